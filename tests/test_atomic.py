"""Files that are whole or not there, whatever the power does, and that a group can share."""

import errno
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from nclab.data.fetching.place import unpack_tar
from nclab.run.execute import train
from nclab.runfolder import checkpoint
from nclab.runfolder.folder import RunFolder
from nclab.system import lock
from nclab.system.atomic import write_atomic


@pytest.fixture
def calls(monkeypatch):
    """Every flush, rename and new folder, in order: ("fsync", path), ("replace", from, to), ("mkdir", path)."""
    made = []

    def recorded(holder, name, of):
        real = getattr(holder, name)

        def call(*args, **kwargs):
            new = name != "mkdir" or not args[0].exists()
            result = real(*args, **kwargs)
            if new:
                made.append((name, *of(args)))
            return result

        monkeypatch.setattr(holder, name, call)

    recorded(os, "fsync", lambda args: [str(Path(f"/proc/self/fd/{args[0]}").readlink())])
    recorded(Path, "replace", lambda args: map(str, args))
    recorded(Path, "mkdir", lambda args: [str(args[0])])
    return made


def test_a_file_is_flushed_then_renamed_then_its_folder_is_flushed(tmp_path, calls):
    path, part = str(tmp_path / "file"), str(tmp_path / "file.part")
    write_atomic(tmp_path / "file", "text")
    assert calls == [("fsync", part), ("replace", part, path), ("fsync", str(tmp_path))]
    calls.clear()
    write_atomic(tmp_path / "file", "new", keep=tmp_path / "old")
    kept = ("replace", str(tmp_path / "old.part"), str(tmp_path / "old"))
    assert calls == [("fsync", part), kept, ("replace", part, path), ("fsync", str(tmp_path))]


def test_every_file_that_a_run_renames_is_followed_by_its_folder(tiny, tmp_path, calls):
    folder = train(tiny("epochs=2", root=tmp_path / "new" / "root"))
    renames = [i for i, call in enumerate(calls) if call[0] == "replace" and not call[2].endswith(checkpoint.PREVIOUS)]
    named = {Path(calls[i][2]).name for i in renames}
    assert named == {"config.yaml", "checkpoint.pt", "summary.json", "DONE"}
    for i in renames:
        assert calls[i - 1][0] == "fsync" or calls[i - 1][2].endswith(checkpoint.PREVIOUS)
        assert calls[i + 1] == ("fsync", str(folder)), calls[i]
    for path in (folder, *folder.parents):
        if ("mkdir", str(path)) in calls:
            after = calls[calls.index(("mkdir", str(path))) :]
            assert ("fsync", str(path.parent)) in after
    assert ("mkdir", str(tmp_path / "new")) in calls
    calls.clear()
    checkpoint.promote(folder)
    assert calls[-1] == ("fsync", str(folder))


@pytest.mark.fast
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_cannot_flush_folders_is_no_error(tmp_path, monkeypatch, code):
    fsync = os.fsync

    def refused(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(code, os.strerror(code))
        fsync(file)

    monkeypatch.setattr(os, "fsync", refused)
    if code == errno.EIO:  # this one says that the disk is damaged
        with pytest.raises(OSError, match="file"):
            write_atomic(tmp_path / "file", "text")
    else:
        write_atomic(tmp_path / "file", "text")
        assert (tmp_path / "file").read_text() == "text"


@pytest.fixture(params=[0o002, 0o022], ids=["umask 002", "umask 022"])
def shared(request, tmp_path):
    """A folder whose files belong to its group, and the mode that `open` gives a file there."""
    root = tmp_path / "shared"
    root.mkdir()
    if os.geteuid() == 0:
        os.chown(root, -1, 12345)
    root.chmod(0o2775)
    before = os.umask(request.param)
    yield root, 0o666 & ~request.param
    os.umask(before)


def test_a_run_in_a_shared_folder_is_its_groups(tiny, shared):
    root, mode = shared
    train(tiny("epochs=2", root=root))
    found = [path.stat() for path in root.rglob("*")]
    assert {s.st_gid for s in found} == {root.stat().st_gid}
    assert {stat.S_IMODE(s.st_mode) for s in found if stat.S_ISREG(s.st_mode)} == {mode}
    assert all(s.st_mode & stat.S_ISGID for s in found if stat.S_ISDIR(s.st_mode))
    assert (next(root.glob("*/*")) / lock.NAME).exists()


def test_a_file_that_is_replaced_leaves_its_mode_and_group(tmp_path):
    """Someone let the group write the files of a run; the next save must not take that back."""
    path, before = tmp_path / "file", os.umask(0o022)
    try:
        path.touch()
        path.chmod(0o664)
        if os.geteuid() == 0:
            os.chown(path, -1, 12345)
        group = path.stat().st_gid
        write_atomic(path, "new")
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o664, group)
        write_atomic(tmp_path / "other", "new")
        assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_what_a_killed_process_left_is_not_written_into(tmp_path):
    """It may be another user's, which cannot be opened, or lead elsewhere."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "file.part").symlink_to(tmp_path / "precious")
    write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "new"
    assert not (tmp_path / "file").is_symlink()


def test_unpacked_data_have_the_mode_that_open_gives(shared):
    root, mode = shared
    with tarfile.open(root / "a.tar.gz", "w:gz") as tar:
        for name in ("top", "deep/below"):
            member = tarfile.TarInfo(name)
            member.size, member.mode = 2, 0o600
            tar.addfile(member, io.BytesIO(b"hi"))
    unpack_tar(root / "a.tar.gz", root)
    for path in (root / "top", root / "deep" / "below"):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_cleared_folder_is_no_finished_run_after_a_power_cut(tmp_path, calls):
    with RunFolder(tmp_path) as run:
        (tmp_path / "DONE").touch()
        (tmp_path / "metrics.csv").touch()
        run.clear()
    assert ("fsync", str(tmp_path)) in calls
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]
