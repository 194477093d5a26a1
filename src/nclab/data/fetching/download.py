"""Download one file: resumed after an interruption, checked by md5, in place whole or not at all."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rich.progress import Progress, TaskID

from nclab.data.checksum import ChecksumError
from nclab.data.fetching.errors import NetworkError
from nclab.data.fetching.place import is_intact, place

TIMEOUT = 10.0  # seconds to connect, and for each read: a machine without internet soon goes on to the next source
ATTEMPTS = 4  # connections to one address, as long as each brings something
BLOCK = 1 << 18


class Downloader:
    """Called with addresses of the same file, gives its path; a bar on `progress` meanwhile. `parts` is told of each
    file that begins to come."""

    def __init__(self, progress: Progress, parts: list[Path] | None = None):
        self.progress = progress
        self.parts = [] if parts is None else parts

    def __call__(self, urls: list[str], target: Path, md5: str) -> Path:
        """`target`, downloaded from the first address that has it with this md5.

        What came before an interruption stays in <target>.part, and the next call goes on from there; with a
        wrong md5 it is removed. NetworkError says what each address answered; OSError (no space, no
        permission) passes through, since no other address would help.
        """
        if is_intact(target, md5):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        self.parts.append(part)
        answers = []
        for url in urls:
            try:
                self._complete(url, part, md5)
                place(part, target, md5)
                return target
            except NetworkError as error:
                answers.append(str(error))
            except ChecksumError as error:
                part.unlink()
                answers.append(f"{url}: {error}")
        raise NetworkError("; ".join(answers))

    def _complete(self, url: str, part: Path, md5: str) -> None:
        """Bring `part` to the full length, in as many connections as it takes."""
        resumed = part.exists()
        task = self.progress.add_task(part.name.removesuffix(".part"), total=None)
        try:
            for attempt in range(ATTEMPTS):
                before = part.stat().st_size if part.exists() else 0
                try:
                    self._stream(url, part, task)
                    break
                except NetworkError:
                    if attempt == ATTEMPTS - 1 or not part.exists() or part.stat().st_size <= before:
                        raise
            if resumed and not is_intact(part, md5):  # what an earlier run left may be from another file
                part.unlink()
                self._stream(url, part, task)
        finally:
            self.progress.remove_task(task)

    def _stream(self, url: str, part: Path, task: TaskID) -> None:
        """One connection: append to `part` what it lacks, or write it anew if the server sends everything."""
        offset = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310  # addresses are ours, content is checked
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # nothing after offset: `part` is whole, or wrong, and its md5 will tell
            raise NetworkError(f"{url}: HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise NetworkError(f"{url}: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"{url}: {error or type(error).__name__}") from error
        with response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                offset = 0
            length = response.headers["Content-Length"]
            total = None if length is None else offset + int(length)
            self.progress.update(task, total=total, completed=offset)
            with part.open("ab" if offset else "wb") as sink:
                for block in _blocks(response, url):
                    sink.write(block)
                    self.progress.advance(task, len(block))
        received = part.stat().st_size
        if total is not None and received < total:
            raise NetworkError(f"{url}: connection lost after {received} of {total} bytes")


def _blocks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    """The body; only reading is guarded here, so that an OSError of the disk is not taken for one of the net."""
    while True:
        try:
            block = response.read(BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise NetworkError(f"{url}: {error or type(error).__name__}") from error
        if not block:
            return
        yield block
