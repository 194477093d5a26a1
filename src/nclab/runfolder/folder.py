"""What a run writes: its folder, the lock that keeps it to one writer, and the append-only logs.

config.yaml     the resolved configuration
metrics.csv     epoch, split, layer, metric, value; appended, the same bit for bit however often a run stopped
events.jsonl    start, switch, switch_settled, rank_fell, epoch (seconds), done, and what happened to the run on its way
                (HISTORY)
summary.json    final numbers, counts, versions, hardware
checkpoint.pt   see checkpoint.py; checkpoint.previous.pt is the one before
DONE            present when the run is finished
.lock           held while a process writes, see lock.py
slurm.json      {"job": "123_4", "submitted": unix time}, written when the run is submitted to a cluster
"""

import json
import math
import os
import shutil
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nclab.system.atomic import flush_folder, write_atomic
from nclab.system.lock import RunLocked as RunLocked
from nclab.system.lock import acquire
from nclab.system.redact import redacted
from nclab.training.fit import RunError

HEADER = "epoch,split,layer,metric,value\n"
# Events that stay in events.jsonl when a resume cuts it back to the checkpoint: they happened, and to the run's
# processes, not to its numbers.
HISTORY = ("resume", "stopped", "requeue", "failed", "diverged", "warning")
Row = tuple[int, str, str, str, float]


class RecordError(RunError):
    """The run folder cannot be continued; the message says why and what to do."""


class RunFolder:
    """One run's folder, open for writing by this process alone. Use as a context manager.

    Raises RunLocked if another process holds it; OSError where it cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = None
        self._files: dict[str, Any] = {}

    def __enter__(self) -> "RunFolder":
        self._lock = acquire(self.path, make=True)
        try:
            self._lock.truncate(0)
            self._lock.write(f"pid {os.getpid()} on {socket.gethostname()}")
            self._lock.flush()
        except OSError as error:
            with suppress(OSError):  # what it could not write it tries again here
                self._lock.close()
            raise OSError(error.errno, error.strerror, str(self.path / ".lock")) from None
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._lock.close()

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    def clear(self) -> None:
        """Remove what an earlier run of the same configuration left, the lock apart. DONE and the checkpoints go
        first: a folder cleared by half is neither finished nor resumed, it starts again."""
        for name in ("DONE", "checkpoint.previous.pt", "checkpoint.pt"):
            (self.path / name).unlink(missing_ok=True)
        flush_folder(self.path)
        for item in self.path.iterdir():
            if item.is_dir() and not item.is_symlink():
                shutil.rmtree(item)
            elif item.name != ".lock":
                item.unlink()

    def open_logs(self, lengths: dict[str, int] | None) -> None:
        """Open the logs for appending: new, or cut back to the lengths in bytes that a checkpoint noted. Of the events
        behind that, those of HISTORY stay.

        Raises RecordError where a log is shorter than the checkpoint says: lines are lost.
        """
        for name in ("metrics.csv", "events.jsonl"):
            path = self.path / name
            keep = 0 if lengths is None else lengths[name]
            have = path.stat().st_size if path.exists() else 0
            if have < keep:
                raise RecordError(
                    f"{path} has {have} bytes, its checkpoint expects {keep}: lines were lost; "
                    "overwrite=true starts the run again"
                )
            # Unbuffered: what was written is with the kernel, also when this process is killed the next moment.
            file = path.open("ab", buffering=0)
            history = _history(path, keep) if name == "events.jsonl" else b""
            file.truncate(keep)
            self._files[name] = file
            if history:
                self._append(name, history)
        if lengths is None:
            self._append("metrics.csv", HEADER.encode())

    def open_events(self) -> None:
        """Open events.jsonl alone, for appending."""
        self._files["events.jsonl"] = (self.path / "events.jsonl").open("ab", buffering=0)

    def rows(self, rows: Iterable[Row]) -> None:
        """Append to metrics.csv; floats in their shortest exact form."""
        text = "".join(f"{epoch},{split},{layer},{metric},{value!r}\n" for epoch, split, layer, metric, value in rows)
        self._append("metrics.csv", text.encode())

    def event(self, event: str, **what: Any) -> None:
        """Append a line to events.jsonl, without secrets that an error may quote."""
        self._append("events.jsonl", _line(event, what))

    def _append(self, name: str, data: bytes) -> None:
        file = self._files[name]
        start = os.fstat(file.fileno()).st_size
        try:
            while data:  # a nearly full disk takes a part, then refuses
                data = data[file.write(data) :]
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one, if there is room for it by then
                file.truncate(start)
            raise OSError(error.errno, error.strerror, str(self.path / name)) from None

    def lengths(self) -> dict[str, int]:
        """Force the logs to disk and say how long they are: what a checkpoint notes before it is written."""
        for name, file in self._files.items():
            try:
                os.fsync(file.fileno())
            except OSError as error:  # some filesystems find only now that they have no room
                raise OSError(error.errno, error.strerror, str(self.path / name)) from None
        return {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}

    def finish(self, summary: dict[str, Any]) -> None:
        """summary.json, then DONE."""
        self.lengths()  # the last event is on disk before DONE
        write_atomic(self.path / "summary.json", json.dumps(jsonable(redacted(summary)), indent=1) + "\n")
        write_atomic(self.path / "DONE", "")


def _history(events: Path, start: int) -> bytes:
    """The lines of HISTORY behind the first `start` bytes; one that was cut off in the middle is none."""
    with events.open("rb") as file:
        file.seek(start)
        lines = file.read().splitlines(keepends=True)
    kept = []
    for line in lines:
        with suppress(ValueError, KeyError):
            if line.endswith(b"\n") and json.loads(line)["event"] in HISTORY:
                kept.append(line)
    return b"".join(kept)


def note(folder: Path, event: str, **what: Any) -> None:
    """Append a line to the events.jsonl of a run whose folder is not open."""
    with (folder / "events.jsonl").open("ab", buffering=0) as file:
        file.write(_line(event, what))


def _line(event: str, what: dict[str, Any]) -> bytes:
    return (json.dumps(jsonable(redacted({"event": event, **what, "time": round(time.time(), 3)}))) + "\n").encode()


def jsonable(value: Any) -> Any:
    """JSON has no nan: undefined numbers become null."""
    if isinstance(value, dict):
        return {key: jsonable(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
