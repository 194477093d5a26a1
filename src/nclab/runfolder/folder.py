"""What a run writes: its folder, the lock that keeps it to one writer, and the append-only logs.

config.yaml     the resolved configuration
metrics.csv     epoch, split, layer, metric, value; appended, the same bit for bit however often a run stopped
events.jsonl    start, switch, switch_settled, rank_fell, epoch (seconds), done, and what happened to the run on its way
                (HISTORY)
summary.json    final numbers, counts, versions, hardware
checkpoint.pt   see checkpoint.py; checkpoint.previous.pt is the one before, checkpoint.best.pt that of the best epoch
DONE            present when the run is finished
.lock           held while a process writes, see lock.py
slurm.json      {"job": "123_4", "submitted": unix time}, written when the run is submitted to a cluster
"""

import json
import math
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nclab.runfolder.logs import HEADER, Log, marks
from nclab.runfolder.tracker import TRACKERS
from nclab.system import lock
from nclab.system.atomic import flush_folder, open_appending, remove, write_atomic
from nclab.system.lock import RunLocked as RunLocked
from nclab.system.lock import acquire
from nclab.system.redact import redacted
from nclab.system.written import CHECKPOINTS, FILES, LOGS, is_finished, is_written
from nclab.training.fit import RunError

# Events that stay in events.jsonl when a resume cuts it back to the checkpoint: they happened, and to the run's
# processes, not to its numbers.
HISTORY = ("resume", "stopped", "requeue", "failed", "diverged", "warning")
Row = tuple[int, str, str, str, float]


class RecordError(RunError):
    """The run folder cannot be continued; the message says why and what to do."""


class RunFolder:
    """One run's folder, open for writing by this process alone. Use as a context manager.

    Raises RunLocked if another process holds it; RecordError where a folder has the name of a file that a run writes;
    OSError where it cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = None
        self._logs: dict[str, Log] = {}

    def __enter__(self) -> "RunFolder":
        self._lock = acquire(self.path, make=True)
        for name in sorted(FILES):
            if (self.path / name).is_dir():
                self._lock.close()
                raise RecordError(
                    f"{self.path / name} is a folder: expected the file that a run writes; move it away, and the same "
                    "command goes on"
                )
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
        for log in self._logs.values():
            log.close()
        self._lock.close()

    @property
    def done(self) -> bool:
        return is_finished(self.path)

    def clear(self) -> None:
        """Remove what an earlier run of the same configuration wrote, the lock apart; what else lies there stays. DONE
        and the checkpoints go first: a folder cleared by half is neither finished nor resumed, it starts again.

        Raises RecordError where the folder is a symbolic link; OSError.
        """
        if self.path.is_symlink():
            raise RecordError(
                f"{self.path} is a symbolic link to {self.path.resolve()}: overwrite=true would clear that; remove the "
                "link, or name the folder itself by output_root"
            )
        for name in ("DONE", *reversed(CHECKPOINTS)):
            remove(self.path / name)
        flush_folder(self.path)
        trackers = (TRACKERS[name].build(TRACKERS[name].settings()) for name in TRACKERS.names())
        of_trackers = {name for tracker in trackers for name in tracker.writes}
        for item in self.path.iterdir():
            if item.name != lock.NAME and (is_written(item.name) or item.name in of_trackers):
                remove(item)

    def open_logs(self, lengths: dict[str, int] | None) -> None:
        """Open the logs for appending: new, or cut back to the lengths in bytes that a checkpoint noted, once
        `nclab.runfolder.logs.disagreement` found nothing. Of the events behind that, those of HISTORY stay. Raises
        OSError."""
        for name in LOGS:
            path = self.path / name
            keep = 0 if lengths is None else lengths[name]
            history = _history(path, keep) if name == "events.jsonl" else b""
            self._logs[name] = log = Log(path, keep)
            if history:
                log.append(history)
        if lengths is None:
            self._logs["metrics.csv"].append(HEADER.encode())

    def open_events(self) -> None:
        """Open events.jsonl alone, for appending."""
        self._logs["events.jsonl"] = Log(self.path / "events.jsonl")

    def rows(self, rows: Iterable[Row]) -> None:
        """Append to metrics.csv; floats in their shortest exact form."""
        text = "".join(f"{epoch},{split},{layer},{metric},{value!r}\n" for epoch, split, layer, metric, value in rows)
        self._logs["metrics.csv"].append(text.encode())

    def event(self, event: str, **what: Any) -> None:
        """Append a line to events.jsonl, without secrets that an error may quote."""
        self._logs["events.jsonl"].append(_line(event, what))

    def marks(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint notes of the logs, which are on disk then."""
        return marks(self._logs)

    def finish(self, summary: dict[str, Any]) -> None:
        """summary.json, then DONE."""
        for log in self._logs.values():  # the last event is on disk before DONE
            log.flush()
        write_atomic(self.path / "summary.json", json.dumps(jsonable(redacted(summary)), indent=1) + "\n")
        write_atomic(self.path / "DONE", "")


def _history(events: Path, start: int) -> bytes:
    """The lines of HISTORY behind the first `start` bytes; one that was cut off in the middle is none."""
    if not events.is_file() or events.is_symlink():
        return b""
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
    with open_appending(folder / "events.jsonl") as file:
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
