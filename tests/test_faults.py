"""What a machine does to a run: full and read-only disks, damaged data, clocks that jump, memory that runs out."""

import contextlib
import errno
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
from conftest import TINY, TINY_MODELS
from run_folders import assert_same_run, events

from nclab.config.schema import ConfigError
from nclab.run import begun as run_module
from nclab.run.execute import train
from nclab.runfolder import checkpoint
from nclab.runfolder import folder as record
from nclab.runfolder.folder import RunFolder, RunLocked
from nclab.runfolder.logs import Log

PAGE = 4096  # in which tmpfs hands out room


def mounted(path, *options):
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", path], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, which can be filled and made read-only."""
    disk = mounted(tmp_path / "disk", "size=1m", "nr_inodes=40")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk, names):
    """Take all room of the disk, and all names for further files if asked to; returns what gives them back."""
    ballast = disk / "ballast"
    ballast.mkdir()
    with contextlib.suppress(OSError), (ballast / "room").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(PAGE))
    with contextlib.suppress(OSError):
        for i in range(1000 if names else 0):
            (ballast / str(i)).touch()

    def give_back():
        for file in ballast.iterdir():
            file.unlink()
        ballast.rmdir()

    return give_back


@pytest.mark.parametrize(
    ("name", "nth"),
    [
        (".lock", 1),
        ("config.yaml", 1),
        ("metrics.csv", 1),
        ("metrics.csv", 5),
        ("events.jsonl", 1),
        ("events.jsonl", 2),
        ("checkpoint.pt", 1),
        ("checkpoint.pt", 4),
        ("summary.json", 1),
        ("DONE", 1),
    ],
)
def test_a_full_disk_is_named_with_its_file_and_the_run_goes_on_when_there_is_room(
    tiny, tmp_path, small_disk, monkeypatch, name, nth
):
    """The disk is full when a file is to be written, for the nth time that it needs room."""
    config = tiny("epochs=40", root=small_disk)
    given_back = []
    left = {"n": nth}

    def about_to_write(path, needs_room=True):
        if path.name == name and needs_room:
            left["n"] -= 1
            if left["n"] == 0:
                given_back.append(fill(small_disk, names=name == "DONE"))  # which is empty

    append, atomic = Log.append, record.write_atomic

    def then_append(log, data):
        about_to_write(log.path, -log.path.stat().st_size % PAGE < len(data))
        append(log, data)

    def then_write(path, data, **kept):
        about_to_write(path)
        atomic(path, data, **kept)

    if name == ".lock":
        config.folder.mkdir(parents=True)
        about_to_write(config.folder / name)
    with monkeypatch.context() as patch:
        patch.setattr(Log, "append", then_append)
        for module in (record, checkpoint, run_module):
            patch.setattr(module, "write_atomic", then_write)
        with pytest.raises(OSError, match=rf"No space left on device: .*/{re.escape(name)}'") as caught:
            train(config)
    assert caught.value.errno == errno.ENOSPC
    assert not (config.folder / "DONE").exists()
    given_back[0]()
    train(config)
    assert not list(config.folder.glob("*.part"))
    assert_same_run(train(tiny("epochs=40", root=tmp_path / "whole")), config.folder)


def test_a_full_disk_of_wandb_costs_its_mirror_only(tiny, tmp_path):
    config = tiny("tracker=wandb", "tracker.mode=offline")
    config.folder.mkdir(parents=True)
    disk = mounted(config.folder / "wandb", "size=16k")
    fill(disk, names=True)
    try:
        train(config)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    assert "tracker stopped" in events(config.folder, "warning")[0]["text"]
    assert_same_run(train(tiny(root=tmp_path / "whole")), config.folder)


def command(*overrides, root):
    """The command line of the run that `tiny` configures so."""
    given = (*TINY, *TINY_MODELS["model=mlp"], "epochs=6", *overrides, f"output_root={root}")
    return [sys.executable, "-m", "nclab.train", *given]


def test_a_limit_on_the_size_of_files_is_named_and_the_same_command_resumes(tiny, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))  # more than a checkpoint, less than the metrics

    run = ("epochs=30",)
    done = subprocess.run(command(*run, root=tmp_path), preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 1
    named = r"error: .*File too large: .*metrics\.csv'; what was saved is kept, the same command resumes\n"
    assert re.fullmatch(named, done.stderr)
    cut = tiny(*run)
    assert checkpoint.exists(cut.folder)
    assert_same_run(train(tiny(*run, root=tmp_path / "whole")), train(cut))
    assert events(cut.folder, "resume")


def test_a_read_only_disk_is_named(tiny, tmp_path, small_disk, monkeypatch):
    config = tiny(root=small_disk)
    config.folder.parent.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ConfigError, match=rf"output_root must be .*\({config.folder}: Read-only file system\)"):
        train(config)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "finish", lambda *_: subprocess.run(["false"], check=True))
        with pytest.raises(subprocess.CalledProcessError):
            train(config)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OSError, match=rf"Read-only file system: '{config.folder}/\.lock'"):
        train(config)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert_same_run(train(tiny(root=tmp_path / "whole")), train(config))


def test_a_path_below_a_file_is_named(tiny, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=rf"output_root must be .*\({tmp_path}/file/main.*: Not a directory\)"):
        train(tiny(root=tmp_path / "file"))


def test_the_second_process_on_a_run_says_which_is_the_first(tiny, tmp_path):
    config = tiny("epochs=60")
    first = subprocess.Popen(command("epochs=60", root=tmp_path), stdout=subprocess.DEVNULL)
    log, deadline = config.folder / "events.jsonl", time.monotonic() + 120
    while not (log.exists() and '"start"' in log.read_text()):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(RunLocked, match=f"is being written by pid {first.pid} on"):
        train(config)
    first.send_signal(signal.SIGCONT)
    assert first.wait(120) == 0
    assert_same_run(train(tiny("epochs=60", root=tmp_path / "whole")), config.folder)
    assert [e["event"] for e in events(config.folder)].count("start") == 1


DAY = 86400.0


@pytest.mark.parametrize("jump", [5 * DAY, -5 * DAY])
def test_a_clock_that_jumps_does_not_reach_durations(tiny, tmp_path, monkeypatch, jump):
    real, calls = time.time, {"n": 0}

    def jumping():
        calls["n"] += 1
        return real() + jump * (calls["n"] // 3)

    monkeypatch.setattr(time, "time", jumping)
    began = time.monotonic()
    folder = train(tiny(root=tmp_path / "jumped"))
    took = time.monotonic() - began
    assert abs(events(folder)[-1]["time"] - events(folder)[0]["time"]) > DAY  # it did jump
    seconds = [e[key] for e in events(folder, "epoch") for key in ("train_seconds", "measure_seconds")]
    assert all(0 <= s < took for s in seconds)
    assert 0 < events(folder, "done")[0]["seconds"] < took
    monkeypatch.undo()
    assert_same_run(train(tiny(root=tmp_path / "whole")), folder)
