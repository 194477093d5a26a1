"""A server of files on 127.0.0.1, whose answers may break off."""

import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

BODY = np.random.default_rng(0).bytes(700_000)


class Server(ThreadingHTTPServer):
    """Files by path; `cuts` are the lengths after which the next answers break off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []  # (path, Range)
        self.cuts: list[int] = []
        self.ranges = True
        self.delay = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.asked.append((self.path, wanted))
        time.sleep(server.delay)
        if self.path not in server.files:
            return self.send_error(404)
        body, start = server.files[self.path], 0
        if wanted and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(body):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(body)
        self.wfile.write(body[start : start + cut])

    def log_message(self, *_):
        pass
