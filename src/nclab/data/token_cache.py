"""Arrays that take seconds to make, kept in a file: whole and right, or made again. The latest used stay."""

import hashlib
import io
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from nclab.data.checksum import md5_of

Arrays = dict[str, np.ndarray]
DIGEST = 16  # bytes at the head of a file: the md5 of its key and of all that follows, a .npz archive
KEPT = 8  # files of a folder, the latest used: those of IMDB have 52 MB each
VERY_OLD = 7 * 86400.0  # seconds after which nobody still writes a file
# A file that is being written names its writer; before it named none.
PART = re.compile(r"[0-9a-f]+\.tokens\.(?:(?P<host>.+)\.(?P<pid>\d{1,9})\.)?[0-9a-f]{16}\.part")


def _digest(key: str, body: bytes) -> bytes:
    digest = hashlib.md5(key.encode(), usedforsecurity=False)
    digest.update(body)
    return digest.digest()


def cached(folder: Path, key: str, make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, or what it gave when it was last called with this key and this folder.

    key: everything that the arrays depend on. A stored file is checked before anything in it is read, and one that is
    damaged, or of another key, is made again. A folder that cannot be read or written only means that nothing is kept.
    Of more than KEPT files the one that was used longest ago is removed.
    """
    path = folder / f"{md5_of(key.encode())}.tokens"
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    body = data[DIGEST:]
    if body and data[:DIGEST] == _digest(key, body):
        with suppress(OSError):  # of another user's file
            os.utime(path)  # when it was last used
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:  # noqa: TID251
            return {name: stored[name] for name in stored.files}
    arrays = make()
    _store(path, key, arrays)
    return arrays


def _store(path: Path, key: str, arrays: Arrays) -> None:
    """Write the file beside its place and rename it: readers see all of it, or none."""
    archive = io.BytesIO()
    np.savez(archive, **arrays)
    body = archive.getvalue()
    # Others may be writing the same at this moment.
    part = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                file.write(_digest(key, body))
                file.write(body)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        _tidy(path.parent)
    except OSError:
        return  # read-only or full: the arrays are in memory, and the next load makes them again


def _tidy(folder: Path) -> None:
    """Remove all but the KEPT files that were used last, and what processes left that died while they wrote."""
    files = [(file.stat().st_mtime, file) for file in folder.glob("*.tokens")]
    unused = [file for _, file in sorted(files)[:-KEPT]]
    for file in (*unused, *filter(_is_abandoned, folder.glob("*.part"))):
        file.unlink(missing_ok=True)


def _is_abandoned(part: Path) -> bool:
    """Whether nobody writes it any more: its process, of this machine, is gone, or it is very old. Those of other
    machines that share the folder cannot be asked after."""
    named = PART.fullmatch(part.name)
    if named is None:
        return False
    try:
        if time.time() - part.stat().st_mtime > VERY_OLD:
            return True
        if named["host"] != socket.gethostname():
            return False
        os.kill(int(named["pid"]), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except OSError:  # renamed meanwhile, or another user's process
        return False
    return False
