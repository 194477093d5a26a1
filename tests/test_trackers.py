"""wandb mirrors a run, continues it when resumed, and never costs it."""

import json
import sys

import pytest
from run_folders import Killed

from nclab.interfaces.registry import Registry
from nclab.run.execute import train
from nclab.runfolder.tracker import TRACKERS, Tracker, TrackerSettings
from nclab.runfolder.trackers.wandb import _has_key
from nclab.training import fit


class Recorder(Tracker):
    """Keeps what it is told, across the runs of one test."""

    calls: list = []  # noqa: RUF012
    fails_at: str | None = None

    def __init__(self, settings):
        pass

    def start(self, folder, config):
        self._note("start", folder, config)

    def log(self, epoch, numbers):
        self._note("log", epoch, numbers)

    def finish(self, summary):
        self._note("finish", summary)

    def _note(self, method, *args):
        Recorder.calls.append((method, *args))
        if Recorder.fails_at == method:
            raise RuntimeError("the server is on fire")


@pytest.fixture
def recorder(monkeypatch):
    entry = Registry.__getitem__(TRACKERS, "none")
    monkeypatch.setitem(TRACKERS._entries, "none", type(entry)(TrackerSettings, Recorder))
    Recorder.calls, Recorder.fails_at = [], None
    return Recorder


@pytest.mark.fast
def test_the_tracker_sees_the_numbers_of_metrics_csv(tiny, recorder):
    folder = train(tiny("metrics.every=3"))
    assert [c[0] for c in recorder.calls] == ["start", "log", "log", "log", "finish"]
    lines = (folder / "metrics.csv").read_text().splitlines()[1:]
    logged = {(c[1], key): value for c in recorder.calls if c[0] == "log" for key, value in c[2].items()}
    assert len(lines) == len([key for key in logged if key[1] != "train_seconds"])
    for line in lines:
        epoch, split, layer, metric, value = line.split(",")
        assert repr(logged[int(epoch), f"{split}/{layer}/{metric}"]) == value
    assert recorder.calls[-1][1]["run"] == folder.name


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_failing_tracker_is_reported_once_and_costs_nothing(tiny, tmp_path, recorder, capsys, method):
    good = train(tiny(root=tmp_path / "good"))
    recorder.fails_at = method
    folder = train(tiny(root=tmp_path / "bad"))
    assert (folder / "metrics.csv").read_bytes() == (good / "metrics.csv").read_bytes()
    assert (folder / "DONE").exists()
    warnings = [
        e for e in map(json.loads, (folder / "events.jsonl").read_text().splitlines()) if e["event"] == "warning"
    ]
    assert len(warnings) == 1
    assert "the server is on fire" in warnings[0]["text"]
    assert capsys.readouterr().err.count("the server is on fire") == 1


def test_a_missing_wandb_costs_nothing(tiny, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    folder = train(tiny("tracker=wandb", "tracker.mode=offline"))
    assert (folder / "DONE").exists()
    assert "the tracker stopped and the run goes on" in capsys.readouterr().err


def test_wandb_without_a_key_never_asks(tiny, monkeypatch, tmp_path, capsys):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    folder = train(tiny("tracker=wandb"))
    assert (folder / "DONE").exists()
    assert "no wandb API key" in capsys.readouterr().err
    assert not _has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret")
    (tmp_path / "netrc").chmod(0o600)
    assert _has_key()


def test_wandb_offline_mirrors_and_a_resumed_run_continues_it(tiny, monkeypatch):
    """The real library, offline: both pieces of an interrupted run carry one wandb id."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    config = ("tracker=wandb", "tracker.mode=offline", "epochs=4")
    save = fit.Fit.save

    def then_stop(self):
        save(self)
        if self.progress.epoch == 2:
            raise Killed

    monkeypatch.setattr(fit.Fit, "save", then_stop)
    with pytest.raises(Killed):
        train(tiny(*config))
    monkeypatch.setattr(fit.Fit, "save", save)
    folder = train(tiny(*config))
    run_id = (folder / "wandb_id").read_text()
    pieces = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(pieces) == 2
    assert all(run_id in piece.name for piece in pieces)  # two of one second end in -1
    assert all(list(piece.glob("*.wandb")) for piece in pieces)
    other = train(tiny(*config, "seed=1"))  # after one that failed in this process
    assert list((other / "wandb").glob("offline-run-*/*.wandb"))
    events = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert "warning" not in events
