"""Signals: a run that is asked to stop saves between two batches, in the middle of an epoch or of a measurement, and
goes on from there to the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_folders import ADAPTIVE, assert_same_run, events

from nclab.run.execute import train, train_seeds
from nclab.runfolder import checkpoint
from nclab.system import signals as stop
from nclab.system.signals import Stopped, StopSignals
from nclab.training.progress import Part


class Asked:
    """Counts the moments at which a run looks for a signal, and sends one at the chosen of them."""

    def __init__(self, monkeypatch, number=signal.SIGTERM):
        self.count, self.at, self.number = 0, -1, number
        check = StopSignals.check

        def counted(signals):
            self.count += 1
            if self.count == self.at:
                os.kill(os.getpid(), self.number)
            check(signals)

        monkeypatch.setattr(StopSignals, "check", counted)

    def run(self, config, at=-1):
        self.count, self.at = 0, at
        return train(config)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (*ADAPTIVE, "schedule=cosine", "optimizer=adamw", "dataset.augment=crop_flip"),
        ("model=vit", "etf=transformer_ffn", "etf.blocks=last1", "metrics.every=2"),
        ("metrics.every=0",),
    ],
)
def test_a_signal_at_any_moment_saves_and_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch, overrides):
    """In the first measurement, between batches, in later measurements, at the very end; twice each."""
    overrides = (*overrides, "epochs=4", "batch_size=48", "metrics.batch_size=64", "checkpoint_seconds=1000")
    whole = train(tiny(*overrides, root=tmp_path / "whole"))
    asked = Asked(monkeypatch)
    asked.run(tiny(*overrides, root=tmp_path / "count"))
    for at in range(1, asked.count + 1, max(1, asked.count // 6)):
        config = tiny(*overrides, root=tmp_path / f"at{at}")
        for again in (at, 3):
            with pytest.raises(Stopped, match="SIGTERM"):
                asked.run(config, at=again)
        assert_same_run(whole, asked.run(config))
        told = [e for e in events(config.folder) if e["event"] in ("stopped", "resume")]
        assert [e["event"] for e in told] == ["stopped", "resume", "stopped", "resume"]
        assert told[0]["epoch"] == told[1]["epoch"]


def test_seeds_in_one_batched_model_stop_together(tiny, tmp_path, monkeypatch):
    overrides = ("epochs=3", "batch_size=48", "checkpoint_seconds=1000")
    configs = {
        root: [tiny(*overrides, f"seed={seed}", root=tmp_path / root) for seed in range(4)]
        for root in ("whole", "stopped")
    }
    train_seeds(configs["whole"])
    count, batches = Part.count, []

    def counted(part, *of_batch):
        count(part, *of_batch)
        batches.append(part.batches)
        if len(batches) == 8:  # of 5 an epoch
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Part, "count", counted)
    with pytest.raises(Stopped):
        train_seeds(configs["stopped"])
    for config in configs["stopped"]:
        assert checkpoint.load(config.folder)["progress"]["epoch"] == 1
        assert checkpoint.load(config.folder)["progress"]["part"]["batches"] == 3
    assert not any(train_seeds(configs["stopped"]).values())
    for one, other in zip(configs["whole"], configs["stopped"], strict=True):
        assert_same_run(one.folder, other.folder)


def command(config_root, *overrides):
    tiny = ("dataset.train_size=400", "dataset.test_size=100", "threads=1", "epochs=100000", "metrics.every=50")
    return subprocess.Popen(
        [sys.executable, "-m", "nclab.train", *tiny, f"output_root={config_root}", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_epochs(root, process, runs=1):
    deadline = time.monotonic() + 120
    while sum('"epoch": 2,' in log.read_text() for log in root.glob("main/*/events.jsonl")) < runs:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGUSR2, 140), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
)
def test_a_real_process_saves_within_seconds_and_says_so(tmp_path, number, code):
    process = command(tmp_path, "checkpoint_seconds=1000")
    wait_for_epochs(tmp_path, process)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 10
    assert process.returncode == code
    assert f"stopped by {number.name}" in err
    assert "Traceback" not in err
    (folder,) = tmp_path.glob("main/*")
    assert (folder / "checkpoint.pt").exists()
    assert events(folder)[-1]["event"] == "stopped"


# A terminal of its own for the command of its arguments, closed once a line comes; says how that ended.
TERMINAL = """
import os, pty, select, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
while sys.stdin not in (ready := select.select([terminal, sys.stdin], [], [])[0]):
    os.read(terminal, 100_000)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1", "hydra/launcher=local", "hydra.launcher.jobs=2")])
def test_a_closed_terminal_saves_the_runs(tmp_path, sweep):
    words = ("dataset.train_size=400", "dataset.test_size=100", "threads=1", "epochs=100000", "metrics.every=50")
    terminal = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, "-m", "nclab.train", *words, f"output_root={tmp_path}", *sweep],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for_epochs(tmp_path, terminal, runs=2 if sweep else 1)
    out, err = terminal.communicate("close\n", timeout=60)
    assert (out.strip(), err) == ("129", "")
    for folder in tmp_path.glob("main/*"):
        assert (folder / "checkpoint.pt").exists()
        assert events(folder)[-1]["event"] == "stopped"


def test_a_second_ctrl_c_leaves_at_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stop.time, "monotonic", lambda: now[0])
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        now[0] = 0.1  # one keypress, passed on by a launcher too
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGINT
        now[0] = 2.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_tests_of_ctrl_c_run_where_it_is_ignored():
    """As of a command that a shell without job control starts in the background: its children inherit that."""
    one = "tests/test_stop.py::test_a_second_ctrl_c_leaves_at_once"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", one],
        cwd=Path(__file__).parents[1],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout  # 5 where no test was found


@pytest.mark.fast
def test_contexts_within_one_another_share_the_note_and_give_the_handlers_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as outer:
        os.kill(os.getpid(), signal.SIGTERM)
        with StopSignals() as inner, pytest.raises(Stopped):
            inner.check()
        assert inner is outer
    assert signal.getsignal(signal.SIGTERM) is before
    StopSignals().check()  # a new one knows of nothing


def test_what_happened_stays_in_the_events_of_a_resumed_run(tiny, monkeypatch):
    """Events behind the last checkpoint are cut back with the rest, but for those of the run's processes."""
    asked = Asked(monkeypatch)
    config = tiny("epochs=4", "batch_size=48", "checkpoint_seconds=1000")
    with pytest.raises(Stopped):
        asked.run(config, at=9)
    with (config.folder / "events.jsonl").open("a") as log:
        log.write('{"event": "epoch", "epoch": 3}\n{"event": "failed", "reason": "no power"}\n{"event": "warni')
    asked.run(config)
    kinds = [e["event"] for e in events(config.folder) if e["event"] != "epoch"]
    assert kinds == ["start", "stopped", "failed", "resume", "done"]
    assert [e["epoch"] for e in events(config.folder, "epoch")] == [1, 2, 3, 4]
