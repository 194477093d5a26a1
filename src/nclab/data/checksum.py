"""MD5 of files, and the error that says which one is not what it should be. Each is checked whenever it is loaded; from
then on the data lie in memory, and what happens to the file is found by the next run or resume.

MD5 because that is what the official sources publish; it guards against damage, not against malice.
"""

import gzip
import hashlib
import importlib.util
import zlib
from itertools import islice
from pathlib import Path

from nclab.data.dataset import MissingDataError

LARGEST = 2**26  # bytes that a file unpacks to; the train images of MNIST are 47,040,016
PIECE = 2**20  # bytes read at once: a read takes memory for all it was asked for, however small the file


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


def unpacked(path: Path) -> bytes:
    """The content of a gzip file; ValueError, naming it, where it is damaged."""
    try:
        with gzip.open(path) as content:
            pieces = iter(lambda: content.read(PIECE), b"")
            return b"".join(islice(pieces, LARGEST // PIECE))  # of a bomb no more: its checksum is wrong anyway
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected a gzip file, got a damaged one ({error})") from None


def from_wheel(package: str, file: str, md5: str) -> bytes:
    """The content of a file that an installed package holds, unpacked where it ends in .gz, checked. The package is
    found and not imported: that takes seconds. Raises MissingDataError without it, ValueError for a damaged file."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise MissingDataError(f"{Path(file).name} lies in the package {package}, which is not installed")
    path = Path(spec.submodule_search_locations[0]) / file
    content = unpacked(path) if path.suffix == ".gz" else path.read_bytes()
    check_md5(content, md5, path)
    return content


def check_md5(data: bytes | Path, expected: str, label: str | Path) -> None:
    """Raise ChecksumError, naming `label`, unless the md5 of `data` is `expected`."""
    found = md5_of(data)
    if found != expected:
        raise ChecksumError(f"{label}: expected md5 {expected}, found {found}")
