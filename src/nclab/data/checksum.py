"""MD5 of files, and the error that says which one is not what it should be.

MD5 because that is what the official sources publish; it guards against damage, not against malice.
"""

import hashlib
from pathlib import Path


def md5_of(data: bytes | Path) -> str:
    """Hex digest of the bytes, or of the file at the path (read in blocks)."""
    digest = hashlib.md5(usedforsecurity=False)
    if isinstance(data, bytes):
        digest.update(data)
        return digest.hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


class ChecksumError(ValueError):
    """A file whose md5 is not the published one."""


def check_md5(data: bytes | Path, expected: str, label: str | Path) -> None:
    """Raise ChecksumError, naming `label`, unless the md5 of `data` is `expected`."""
    found = md5_of(data)
    if found != expected:
        raise ChecksumError(f"{label}: expected md5 {expected}, found {found}")
