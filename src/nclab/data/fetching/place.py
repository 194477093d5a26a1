"""Put checked files where the loaders look for them: whole and right, or not at all."""

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from nclab.data.checksum import check_md5, md5_of
from nclab.data.fetching.errors import FetchError

MOST_BYTES = 2**31  # unpacked: ten times the largest dataset here; a bomb would fill the disk


def is_intact(path: Path, md5: str) -> bool:
    return path.exists() and md5_of(path) == md5


def place(source: Path, target: Path, md5: str) -> None:
    """Move a file of the same file system to `target` if its md5 is right; ChecksumError, a ValueError, if not.

    A reader of `target` sees the old file or the whole new one.
    """
    if not source.exists():
        raise FetchError(f"expected a file {source.name} in the archive, found none")
    check_md5(source, md5, target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def place_gunzipped(packed: Path, target: Path, md5: str) -> None:
    """`place` what a .gz file holds; the .gz stays."""
    if not packed.exists():
        raise FetchError(f"expected a file {packed.name} in the archive, found none")
    target.parent.mkdir(parents=True, exist_ok=True)
    raw = target.with_name(target.name + ".part")
    try:
        with gzip.open(packed) as source, raw.open("wb") as sink:
            try:
                while block := source.read(1 << 20):
                    sink.write(block)
                    if sink.tell() > MOST_BYTES:
                        raise FetchError(f"{packed.name}: expected at most {MOST_BYTES} bytes in it, got more")
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise FetchError(f"{packed.name}: not a whole gzip file ({error})") from error
        place(raw, target, md5)
    finally:
        raw.unlink(missing_ok=True)


def unpack_tar(archive: Path, folder: Path, wanted: Callable[[str], bool] = lambda member: True) -> None:
    """Unpack the wanted members (by name) of a .tar.gz, refusing such as would land outside `folder`, devices, and more
    than MOST_BYTES."""
    total = 0

    def checked(member: tarfile.TarInfo, to: str) -> tarfile.TarInfo | None:
        nonlocal total
        if not wanted(member.name):
            return None
        total += member.size
        if total > MOST_BYTES:
            raise FetchError(f"{archive.name}: expected at most {MOST_BYTES} bytes in it, got {total} and more")
        # Of the mode that `open` gives, not the packer's: a data root may be a group's.
        return tarfile.data_filter(member, to).replace(mode=None, deep=False)

    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter=checked)  # noqa: S202  # `checked` ends in data_filter
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise FetchError(f"{archive.name}: not a sound tar file ({error})") from error
