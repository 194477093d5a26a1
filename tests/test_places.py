"""Where runs may lie and who may write them: a folder of a group, a machine without shared memory, little disk, a disk
that loses its power."""

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from run_folders import assert_same_run, events

from nclab.bench import chaos, power
from nclab.bench.many import TINY as TINY_SWEEP
from nclab.bench.many import run_many
from nclab.bench.power import run_cut
from nclab.run.execute import train

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="other users and mounts need root")
GROUP, ONE, OTHER, STRANGER = 64000, 64001, 64002, 64003


def as_user(user, groups, call):
    """The exit code of a child process that is this user: 0, or 1 where the call raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
        child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(groups[0])
            os.setuid(user)
            os.umask(0o002)
            call()
            os._exit(0)
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def shared():
    """A folder of the group that every user can reach; those of pytest are closed to others."""
    open_to_all = Path(tempfile.mkdtemp(dir="/tmp"))  # TMPDIR may be one's own
    open_to_all.chmod(0o755)
    folder = open_to_all / "shared"
    folder.mkdir()
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2775)
    yield folder
    shutil.rmtree(open_to_all)


@root_only
def test_two_users_of_a_group_go_on_with_each_others_run(tiny, tmp_path, shared, capfd):
    whole = train(tiny("epochs=4", root=tmp_path / "whole"))  # everything is imported before others are asked
    config = tiny("epochs=4", "checkpoint_seconds=0", root=shared)

    class Left(BaseException):
        pass

    def leave():
        from nclab.runfolder.recorder import Recorder

        saved = Recorder.saved

        def then(self, *given, **more):
            saved(self, *given, **more)
            raise Left

        Recorder.saved = then
        train(config)

    assert as_user(ONE, [GROUP], leave) == 1
    assert "Left" in capfd.readouterr().err
    assert not (config.folder / "DONE").exists()
    assert as_user(STRANGER, [STRANGER], lambda: train(config)) == 1
    assert "Permission denied" in capfd.readouterr().err
    assert as_user(OTHER, [GROUP], lambda: train(config)) == 0
    assert len(events(config.folder, "resume")) == 1
    assert {path.stat().st_gid for path in config.folder.rglob("*")} == {GROUP}
    assert {path.stat().st_uid for path in config.folder.rglob("*")} == {ONE, OTHER}
    assert as_user(ONE, [GROUP], lambda: train(config)) == 0  # finished: nothing to do
    assert_same_run(whole, config.folder)


@root_only
def test_without_shared_memory_workers_are_refused_and_one_run_trains(tmp_path):
    """That of the machine read-only and without room, as in some containers."""
    run = f"{sys.executable} -m nclab.train {' '.join(TINY_SWEEP)} output_root={tmp_path}/out"
    sweep = f"{run} -m hydra/launcher=local seed=0,1; echo code $?"
    script = f"mount -t tmpfs -o ro,size=4k tmpfs /dev/shm || exit 77; {sweep}; exec {run}"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=300)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mounts of one's own here: {done.stderr.strip()}")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "expected semaphores in shared memory" in line
    assert "code 2\n" in done.stdout
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("out/*/*/DONE"))) == 1


@pytest.mark.skipif(power.not_here() is not None, reason=f"{power.not_here()}")
def test_a_run_whose_power_is_cut_is_the_same(tmp_path, monkeypatch):
    tiny = ("dataset=digits", "threads=1", "model.width=40", "checkpoint_seconds=0", "epochs=12")
    monkeypatch.setitem(chaos.KINDS, "tiny", tiny)
    monkeypatch.setattr(chaos, "SHARE_ANY_TIME", 0.0)
    report = run_cut("tiny", seed=0, most_cuts=2, root=tmp_path)
    assert report.differences == []
    assert report.counts["bit-identical"] == report.counts["folders"] == 1
    assert report.counts["kills"] > 0


def test_of_a_sweep_that_is_killed_no_run_is_lost_or_doubled(tmp_path):
    counts = run_many(6, 2, tmp_path / "many")
    assert (counts["exit code"], counts["folders"], counts["lost"]) == (0, 6, 0)
    assert counts["doubled epochs"] + counts["finished twice"] == 0
    assert counts["launchers killed"] == 1
