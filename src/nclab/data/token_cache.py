"""Arrays that take seconds to make, kept in a file: whole and right, or made again."""

import hashlib
import io
import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nclab.data.checksum import md5_of

Arrays = dict[str, np.ndarray]
DIGEST = 16  # bytes at the head of a file: the md5 of its key and of all that follows, a .npz archive


def _digest(key: str, body: bytes) -> bytes:
    digest = hashlib.md5(key.encode(), usedforsecurity=False)
    digest.update(body)
    return digest.digest()


def cached(folder: Path, key: str, make: Callable[[], Arrays]) -> Arrays:
    """What `make` gives, or what it gave when it was last called with this key and this folder.

    key: everything that the arrays depend on. A stored file is checked before anything in it is read, and one that is
    damaged, or of another key, is made again. A folder that cannot be read or written only means that nothing is kept.
    """
    path = folder / f"{md5_of(key.encode())}.tokens"
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    body = data[DIGEST:]
    if body and data[:DIGEST] == _digest(key, body):
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
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")  # others may be writing the same at this moment
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                file.write(_digest(key, body))
                file.write(body)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError:
        return  # read-only or full: the arrays are in memory, and the next load makes them again
