"""Where runs may lie and who may write them: a folder of a group, a machine without shared memory; a sweep that is
killed."""

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from run_folders import assert_same_run, events

from nclab.bench import many
from nclab.bench.many import TINY as TINY_SWEEP
from nclab.bench.many import run_many
from nclab.cluster.launch import on_this_machine
from nclab.cluster.train_folders import train_folders
from nclab.cluster.workers import run_all
from nclab.config.schema import ConfigError
from nclab.papers.command import main as paper_command
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


def test_what_to_do_without_shared_memory_is_the_callers_to_say(tiny, tmp_path, monkeypatch, capsys):
    def refused(_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("multiprocessing.context.BaseContext.Lock", refused)
    with pytest.raises(ConfigError, match=r"got \[Errno 30\] Read-only file system$"):
        run_all([], 1)
    with pytest.raises(ConfigError, match=r"Read-only file system; without hydra/launcher=local runs are"):
        on_this_machine([tiny()], 1, 1)
    with pytest.raises(SystemExit) as stop:
        paper_command(["run", "depth", "--profile", "smoke", "--jobs", "1", "--output", str(tmp_path)])
    assert stop.value.code == 2
    assert "file system; a container gets them by --shm-size=1g" in capsys.readouterr().err
    folders = [tiny(f"seed={seed}").folder for seed in (0, 1)]
    with pytest.raises(
        ConfigError, match=r"Read-only file system; with hydra\.launcher\.runs_per_job=1 a job needs none"
    ):
        train_folders(folders, 1)


SWEEP_THEN_RUN = """
import sys
from nclab.train import main
words = sys.argv[1:]
sys.argv = ["nclab-train", *words, "-m", "hydra/launcher=local", "seed=0,1"]
try:
    main()
except SystemExit as end:
    print("code", end.code, flush=True)
sys.argv = ["nclab-train", *words]
main()
"""  # in one process: to import torch takes longer than the run


@root_only
def test_without_shared_memory_workers_are_refused_and_one_run_trains(tmp_path):
    """That of the machine read-only and without room, as in some containers."""
    words = [*TINY_SWEEP, f"output_root={tmp_path}/out"]
    script = f'mount -t tmpfs -o ro,size=4k tmpfs /dev/shm || exit 77; exec {sys.executable} -c "$0" "$@"'
    command = ["unshare", "-m", "sh", "-c", script, SWEEP_THEN_RUN, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mounts of one's own here: {done.stderr.strip()}")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "expected semaphores in shared memory" in line
    assert "without hydra/launcher=local runs are trained one after the other" in line
    assert "code 2\n" in done.stdout
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("out/*/*/DONE"))) == 1


def test_of_a_sweep_that_is_killed_no_run_is_lost_or_doubled(tmp_path):
    counts = run_many(4, 1, tmp_path / "many")
    assert (counts["exit code"], counts["folders"], counts["lost"]) == (0, 4, 0)
    assert counts["doubled epochs"] + counts["finished twice"] == 0
    assert counts["launchers killed"] == 1


def test_a_sweep_of_which_nothing_gets_done_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(many, "PATIENCE", 0.2)
    with pytest.raises(TimeoutError, match=r"expected 1 of 4 runs done within 0.2 s, got 0, see .*many/log"):
        run_many(4, 1, tmp_path / "many")
