"""Reading and comparing run folders, and two policies that switch within a few epochs."""

import csv
import json

import pytest
import torch

from nclab.run.execute import train
from nclab.runfolder import checkpoint
from nclab.training import fit

ADAPTIVE = ("etf=adaptive", "etf.start=2", "etf.patience=1", "etf.threshold=0.5")
FROZEN = (*ADAPTIVE, "etf.kind=frozen")


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [(int(r["epoch"]), r["split"], r["layer"], r["metric"], float(r["value"])) for r in csv.DictReader(file)]


def events(folder, kind=None):
    text = (folder / "events.jsonl").read_text()
    if not (folder / "DONE").exists():
        text, _, _ = text.rpartition("\n")  # its process is writing the last line
    all_events = [json.loads(line) for line in text.splitlines()]
    return [e for e in all_events if kind in (None, e["event"])]


def assert_same_run(a, b):
    """Bit for bit: every logged number, every weight, the optimizer and the fixed maps."""
    assert (a / "metrics.csv").read_bytes() == (b / "metrics.csv").read_bytes()
    one, two = checkpoint.load(a), checkpoint.load(b)
    for part in ("model", "optimizer", "fixed", "policy", "generators"):
        assert flat(one[part]) == flat(two[part]), part
    switches = [{k: v for k, v in e.items() if k != "time"} for e in events(a, "switch")]
    assert switches == [{k: v for k, v in e.items() if k != "time"} for e in events(b, "switch")]


def flat(value):
    """Nested dicts and lists of tensors as comparable plain values."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(v) for key, v in value.items()}
    return [flat(v) for v in value] if isinstance(value, list | tuple) else value


def folder_of(fit):
    """The run folder that records this fit."""
    return fit.observer.observers[0].folder.path


class Killed(BaseException):
    """Stands for a process that ends at this very point. Logs are unbuffered, so nothing is flushed on the way out."""


def killed_after(epoch, config):
    """The folder of a run that ended like a killed process right after it saved this epoch."""
    save = fit.Fit.save

    def then_stop(self):
        save(self)
        if self.progress.epoch == epoch:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit.Fit, "save", then_stop)
        with pytest.raises(Killed):
            train(config)
    return config.folder
