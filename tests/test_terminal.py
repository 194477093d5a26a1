"""Loss of the terminal costs no run, and no observer of convenience ends a training."""

import os
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import TINY as CONFTEST_TINY
from conftest import TINY_MODELS
from run_folders import ADAPTIVE, events

from nclab.run.execute import train, train_seeds
from nclab.runfolder.display import Display, SeedsDisplay
from nclab.runfolder.tracker import TrackerObserver
from nclab.system.signals import Stopped
from nclab.system.terminal import Lasting, lasting_terminal
from nclab.training.fit import Diverged

BIN = Path(sys.executable).parent
TINY = "epochs=12 model.width=8 model.depth=3 batch_size=50 dataset.train_size=100 dataset.test_size=100 threads=1"


def in_shell(module, words, redirections="", **environment):
    """The exit code and, where they are not redirected, stdout and stderr of a command in a shell."""
    line = f"exec {shlex.quote(sys.executable)} -m {module} {words} {redirections}"
    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONUTF8", "PYTHONUNBUFFERED")}
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=200, env={**plain, **environment})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "redirections"),
    [
        ("", ">&-"),
        ("", ">/dev/full 2>&-"),
        ("'seeds=[0,1]'", ">&- 2>/dev/full"),
        ("-m seed=0,1 hydra/launcher=local hydra.launcher.jobs=2", ">&- 2>&-"),
        ("-m seed=0,1 hydra/launcher=basic", "<&- >/dev/full 2>/dev/full"),
    ],
)
def test_a_lost_terminal_costs_no_run(tmp_path, words, redirections):
    code, out, err = in_shell("nclab.train", f"{words} {TINY} output_root={tmp_path}/out", redirections)
    assert len([*tmp_path.glob("out/main/*/DONE")]) == (2 if "seed" in words else 1)
    assert (code, out, err) == (0, b"", b"")


def test_a_worker_that_has_something_to_say_outlives_its_terminal(tiny, tmp_path):
    """It warns of the number of threads that was typed."""
    folder = train(tiny("seed=0"))
    (folder / "DONE").unlink()
    words = (*CONFTEST_TINY, *TINY_MODELS["model=mlp"], f"output_root={tmp_path}", "epochs=6", "seed=0", "threads=2")
    local = "-m hydra/launcher=local hydra.launcher.jobs=1"
    code, out, _ = in_shell("nclab.train", f"{local} {' '.join(words)}", "2>/dev/full")
    assert (code, (folder / "DONE").exists()) == (0, True), out
    assert "threads=2 in the place of 1" in events(folder, "warning")[0]["text"]


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, b"/?n?/main/"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "/ünï/main/".encode()),
    ],
)
def test_a_terminal_of_ascii_costs_no_run(tmp_path, environment, shown):
    """A folder named ünï: letters that the terminal lacks are question marks; names that Python cannot read, as with
    LC_ALL=C, are the bytes that they are."""
    root = tmp_path / "ünï"
    for said in (b"finished: ", b"already finished: "):
        code, out, err = in_shell("nclab.train", f"\"output_root='{root}'\" {TINY}", **environment)
        assert (code, err) == (0, b"")
        assert said in out
        assert shown in out
    assert [*root.glob("main/*/DONE")]


@pytest.mark.parametrize("command", ["nclab-paper list", "nclab-draw --list", "nclab-data list"])
def test_a_command_whose_output_goes_nowhere_is_quiet(command):
    """As `| head -1` ends it: what is printed then is dropped."""
    done = subprocess.run(["sh", "-c", f"{BIN}/{command} >/dev/full"], capture_output=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_lasting_stream_drops_what_cannot_be_written(tmp_path):
    with open("/dev/full", "w", encoding="ascii") as full:  # noqa: PTH123
        stream = Lasting(full)
        stream.write("é" * 100_000)
        stream.writelines(["a", "b"])
        stream.flush()
    with (tmp_path / "file").open("w", encoding="ascii") as file:
        stream = Lasting(file)
        stream.write("ünï\ud800\n")
        stream.flush()
        assert stream.encoding == "ascii"
    stream.write("closed")
    stream.flush()
    assert (tmp_path / "file").read_text() == "?n??\n"


def test_a_stream_that_is_not_there_is_opened(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with lasting_terminal():
        print("nowhere")
    sys.stdout.close()


# Observers of convenience


class OnFire(Exception):
    pass


HOOKS = ("begin", "measured", "switched", "settled", "epoch", "saved", "finished")


def raising(monkeypatch, kind, hook):
    """Let this hook of every display or tracker raise; returns the calls, to be counted."""
    calls = []

    def burn(self, *_):
        calls.append(self)
        raise OnFire("it burns")

    monkeypatch.setattr(kind, hook, burn)
    return calls


def assert_said_once(folder, capsys, what, times=1):
    texts = [event["text"] for event in events(folder, "warning")]
    assert texts == [f"{what} stopped: OnFire: it burns"]
    assert capsys.readouterr().err.count("it burns") == times


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(("kind", "what"), [(Display, "terminal"), (TrackerObserver, "tracker")])
def test_what_an_observer_raises_ends_no_training(tiny, monkeypatch, capsys, kind, what, hook):
    calls = raising(monkeypatch, kind, hook)
    folder = train(tiny(*ADAPTIVE))
    assert (folder / "DONE").exists()
    assert len(calls) == 1
    assert_said_once(folder, capsys, what)


@pytest.mark.parametrize(("kind", "what"), [(Display, "terminal"), (TrackerObserver, "tracker")])
@pytest.mark.parametrize("hook", ["diverged", "failed"])
def test_what_an_observer_raises_hides_no_divergence(tiny, monkeypatch, capsys, kind, what, hook):
    calls = raising(monkeypatch, kind, hook)
    config = tiny("batch_size=200", "model.norm=none", "optimizer.lr=1e38", "epochs=1")
    with pytest.raises(Diverged):
        train(config)
    assert calls
    assert_said_once(config.folder, capsys, what)
    assert events(config.folder, "failed")


@pytest.mark.parametrize(("kind", "what"), [(Display, "terminal"), (TrackerObserver, "tracker")])
def test_what_an_observer_raises_keeps_no_run_from_stopping(tiny, monkeypatch, capsys, kind, what):
    def stopping(self):
        raise Stopped(15)

    calls = raising(monkeypatch, kind, "stopped")
    monkeypatch.setattr("nclab.training.fit.Fit.begin_epoch", stopping)
    with pytest.raises(Stopped):
        train(tiny())
    assert len(calls) == 1
    assert_said_once(tiny().folder, capsys, what)
    assert (tiny().folder / "checkpoint.pt").exists()


@pytest.mark.parametrize("method", ["open", "close", "epoch"])
def test_what_the_line_of_all_seeds_raises_ends_no_training(tiny, monkeypatch, capsys, method):
    calls = raising(monkeypatch, SeedsDisplay, method)
    ended = train_seeds([tiny().of_seed(seed) for seed in (0, 1)])
    assert calls
    assert [*ended.values()] == [None, None]
    assert all((folder / "DONE").exists() for folder in ended)
    if method != "close":  # after the end there is nothing left to say it in
        for folder in ended:
            assert [event["text"] for event in events(folder, "warning")] == ["terminal stopped: OnFire: it burns"]


def test_a_failure_that_cannot_be_printed_is_noted(tiny, monkeypatch):
    raising(monkeypatch, Display, "measured")

    class Closed:
        def write(self, text):
            raise ValueError("I/O operation on closed file")

        flush = partial(write, "")

    monkeypatch.setattr(sys, "stderr", Closed())
    folder = train(tiny())
    assert len(events(folder, "warning")) == 1
    assert (folder / "DONE").exists()
