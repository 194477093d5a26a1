"""Remove runs, or the checkpoints of finished ones: what was listed, and only what still is as it was listed."""

import socket
from dataclasses import dataclass
from pathlib import Path

from nclab.runs.queue import Queue
from nclab.runs.state import RunState, inspect, rough
from nclab.system import lock
from nclab.system.atomic import remove as remove_path
from nclab.system.written import BEST, CHECKPOINTS, is_written

REMOVABLE = ("failed", "interrupted", "done")
WITH_PARTS = tuple(name + part for part in ("", ".part") for name in (*CHECKPOINTS, BEST))
# In this order: a folder removed by half is neither finished nor resumed, and is a run until nearly all of it is gone.
FIRST, LAST = ("DONE", *WITH_PARTS), ("slurm.json", "config.yaml", lock.NAME)


class Kept(RuntimeError):
    """A run that is not removed after all; the message says why."""


@dataclass(frozen=True)
class Removal:
    """What is to go of one run."""

    run: RunState
    size: int  # bytes
    foreign: tuple[str, ...] = ()  # what no run wrote, and goes with the folder


def plan(run: RunState, checkpoints: bool) -> Removal | None:
    """What would be removed: its checkpoints, or its folder; None where there is nothing. Raises Kept."""
    if run.path.is_symlink():
        raise Kept("is a symbolic link")
    try:
        if checkpoints:
            size = sum((run.path / name).lstat().st_size for name in WITH_PARTS if _there(run.path / name))
            return Removal(run, size) if size else None
        host = lock.owner_host(run.path)
        if run.unsaid and run.age is not None and run.age < run.silence and host not in (None, socket.gethostname()):
            # Not every network file system shows a lock to other machines.
            raise Kept(
                f"its last event is {rough(run.age)} old, of a process on {host}, which may still be at it; "
                f"sure once it was silent for {rough(run.silence)}"
            )
        foreign = sorted(path.name for path in run.path.iterdir() if not is_written(path.name))
        return Removal(run, _size(run.path), tuple(foreign))
    except FileNotFoundError:
        return None


def remove(removal: Removal, queue: Queue | None, checkpoints: bool) -> None:
    """Remove it, with the lock of the folder held so that no process can begin meanwhile.

    Raises Kept where a process did begin, or the run is not any more what it was; OSError where files resist.
    """
    run = removal.run
    try:
        with lock.acquire(run.path):
            now = inspect(run.path, queue, mine=True)
            if now is None or (now.state, now.job) != (run.state, run.job):
                raise Kept(f"it was {run.state}, now it is {now.state if now else 'no run'}")
            if checkpoints:
                for name in WITH_PARTS:
                    (run.path / name).unlink(missing_ok=True)
            else:
                _remove_folder(run.path)
    except FileNotFoundError:
        raise Kept("it is gone already") from None
    except lock.RunLocked as error:
        raise Kept(str(error)) from None


def _remove_folder(folder: Path) -> None:
    """Symbolic links in it go, what they point to stays."""
    for name in FIRST:
        (folder / name).unlink(missing_ok=True)
    for item in sorted(folder.iterdir()):
        if item.name not in LAST:
            remove_path(item)
    for name in LAST:
        remove_path(folder / name)
    folder.rmdir()


def _there(file: Path) -> bool:
    return file.is_symlink() or file.is_file()


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
