"""The lock of a run folder: one writer, and any number of others who ask whether it is held without disturbing it.

`.lock` is held (flock, exclusively) while a process writes; the kernel frees it however that process ends. To ask
means to hold it shared for an instant, in which a starting writer would find it taken. So a writer waits for those who
hold it shared, and gives up at once where another writer holds it. Imports no torch: `nclab-runs` must start fast.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import TextIO

from nclab.system.atomic import make_folder

NAME = ".lock"
PATIENCE = 5.0  # seconds; each of those who ask holds it for microseconds, on a network file system milliseconds
PAUSE = 0.005


class RunLocked(RuntimeError):
    """Another process is writing this run folder."""


def acquire(folder: Path, make: bool = False) -> TextIO:
    """`.lock`, held exclusively until it is closed, open for reading and appending; with `make` in a new folder too.

    Raises RunLocked if another process writes the folder; OSError where the file cannot be opened: FileNotFoundError
    without the folder, ELOOP where `.lock` is a symbolic link.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if make:
                make_folder(folder)
            file = _open(folder)
        except FileNotFoundError:
            if make and time.monotonic() < deadline:
                continue  # `nclab-runs clean` removed the folder in between
            raise
        if _flock(file.fileno(), fcntl.LOCK_EX):
            if _is_current(file, folder):
                return file
            file.close()  # removed with its folder after we opened it: held, it would keep nobody out
            continue
        only_asked = _flock(file.fileno(), fcntl.LOCK_SH)
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        if not only_asked or time.monotonic() > deadline:
            raise RunLocked(f"{folder} is being written by {owner}; one writer a run folder")
        time.sleep(PAUSE)


def is_held(folder: Path) -> bool:
    """Whether a process writes the folder; false without a lock file. Raises OSError where it cannot be read."""
    try:
        file = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _flock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def owner_host(folder: Path) -> str | None:
    """The machine of the latest writer; None where the lock does not say."""
    try:
        return (folder / NAME).read_text(errors="replace").partition(" on ")[2].strip() or None
    except OSError:
        return None


def _open(folder: Path) -> TextIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(folder / NAME, flags, 0o666), "a+")


def _flock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_current(file: TextIO, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), (folder / NAME).stat())
    except FileNotFoundError:
        return False
