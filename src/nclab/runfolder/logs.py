"""The append-only logs of a run, and whether their beginning is what a checkpoint saw.

A checkpoint notes of each log how long it was and its SHA-256 up to there. Nothing else would show a line that an
editor changed, line ends that a copy converted, or the zeros that a power cut left.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nclab.system.atomic import open_appending
from nclab.system.written import LOGS

ROW = re.compile(rb"\d+,[^,\r\n\0]*,[^,\r\n\0]*,[^,\r\n\0]*,[^,\r\n\0]+")
HEADER = "epoch,split,layer,metric,value\n"


class Log:
    """One log, open for appending behind its first `keep` bytes; what follows them is cut off. Raises OSError."""

    def __init__(self, path: Path, keep: int | None = None):
        self.path = path
        self._file = open_appending(path)
        if keep is not None:
            self._file.truncate(keep)
        self._digest = hashlib.sha256(path.read_bytes())

    def append(self, data: bytes) -> None:
        """Raises OSError, and leaves no half of it where the file can be cut."""
        start = self.length
        left = data
        try:
            while left:  # a nearly full disk takes a part, then refuses
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one, if there is room for it by then
                self._file.truncate(start)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._digest.update(data)

    @property
    def length(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    @property
    def digest(self) -> str:
        """SHA-256 of all that it holds."""
        return self._digest.hexdigest()

    def flush(self) -> None:
        """Force it to disk. Raises OSError: some file systems find only now that they have no room."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def close(self) -> None:
        self._file.close()


def marks(logs: Mapping[str, Log]) -> dict[str, dict[str, Any]]:
    """Force the logs to disk and say how long they are and what they hold: what a checkpoint notes before it is
    written, and `disagreement` reads. Raises OSError."""
    for log in logs.values():
        log.flush()
    return {
        "lengths": {name: log.length for name, log in logs.items()},
        "digests": {name: log.digest for name, log in logs.items()},
    }


def disagreement(folder: Path, state: dict[str, Any]) -> str | None:
    """Why the logs in the folder do not begin with what the checkpoint `state` saw of them; None where they do. Older
    checkpoints noted lengths alone."""
    for name in LOGS:
        path, length = folder / name, state["lengths"][name]
        if path.is_symlink():
            return f"{path} is a symbolic link"
        data = path.read_bytes()[:length] if path.exists() else b""
        if len(data) < length:
            return f"{path} has {len(data)} bytes, its checkpoint expects {length}: lines were lost"
        if "digests" in state and hashlib.sha256(data).hexdigest() != state["digests"][name]:
            return f"{path}, {_where(name, data)} not what the run wrote"
    return None


def _where(name: str, data: bytes) -> str:
    lines = data.splitlines(keepends=True)
    odd = _odd_row(lines) if name == "metrics.csv" else _odd_event(lines)
    return f"line {odd}:" if odd else f"one of its first {len(lines)} lines:"


def _odd_row(lines: list[bytes]) -> int | None:
    """The first line that no metrics.csv has, or has twice; None where each could be one."""
    seen = set()
    for number, line in enumerate(lines, 1):
        row, key = line.removesuffix(b"\n"), line.rpartition(b",")[0]
        good = line == HEADER.encode() if number == 1 else ROW.fullmatch(row) and key not in seen
        if not good:
            return number
        seen.add(key)
    return None


def _odd_event(lines: list[bytes]) -> int | None:
    seen = set()
    for number, line in enumerate(lines, 1):
        try:
            good = line.endswith(b"}\n") and line not in seen and isinstance(json.loads(line), dict)
        except ValueError:
            good = False
        if not good:
            return number
        seen.add(line)
    return None
