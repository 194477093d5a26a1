"""Files that are whole or not there, also after a power cut, and that stay those of the group that shares them; and
files that are opened and removed without following a symbolic link."""

import errno
import io
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)  # what some file systems say to fsync of a folder


def write_atomic(path: Path, data: bytes | str, keep: Path | None = None) -> None:
    """Write to a temporary file beside `path`, flush it to disk, rename it and flush the folder: whole or not at all.

    A new file has the mode that `open` would give it, one that is replaced leaves its mode and group. What `path` was
    until then stays under the name `keep`, if one is given.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)  # of a process that was killed, and perhaps of another user
        with part.open("xb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
            _belong_as(path, file.fileno())
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _keep(path, keep)
        replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)  # on a full disk it would only take more of what is missing
        raise OSError(error.errno, error.strerror, str(path)) from None


def open_appending(path: Path) -> io.FileIO:
    """Open a file for appending, unbuffered: what was written is with the kernel, also when this process is killed the
    next moment. Raises OSError, for a symbolic link too: it may lead to any file of the user's."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        number = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a symbolic link where a file of the run was expected", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return io.FileIO(number, "ab")


def replace(part: Path, path: Path) -> None:
    """Rename `part` to `path` in the same folder, and flush the folder: a power cut brings back neither the old file
    nor none."""
    part.replace(path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Force what was renamed, made or removed in the folder to disk, where its file system can. Raises OSError."""
    try:
        entry = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # one that may be written and not read
    try:
        os.fsync(entry)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise
    finally:
        os.close(entry)


def remove(path: Path) -> None:
    """Remove a file, a folder with all in it or, without what it leads to, a symbolic link. Raises OSError; not where
    it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make the folder and those above it, if they are not there, and flush where each lies. Raises OSError."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:
        flush_folder(path.parent)


def _belong_as(path: Path, file: int) -> None:
    """Give the open file the group and mode of `path`, as writing into that would have left them."""
    with suppress(OSError):  # not there yet; or a group that the user is not in, whose mode would not fit another
        before = path.stat()
        if os.fstat(file).st_gid != before.st_gid:
            os.fchown(file, -1, before.st_gid)
        os.fchmod(file, stat.S_IMODE(before.st_mode))


def _keep(path: Path, keep: Path) -> None:
    """Give the file a second name, so that at every moment one of the two names is there and whole."""
    link = keep.with_name(keep.name + ".part")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a filesystem without hard links: for a moment `keep` alone is there
        path.replace(keep)
        return
    link.replace(keep)
    link.unlink(missing_ok=True)  # where both were names of one file already, renaming did nothing (POSIX)
