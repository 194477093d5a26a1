"""A rank that falls takes a share of NC1 with it, which looks like collapse: it is told, once."""

import io
import json

import pytest
import torch
from rich.console import Console

from nclab.metrics import measure
from nclab.metrics.suites.collapse import CollapseSuite
from nclab.run.execute import train
from nclab.runfolder.display import Display
from nclab.training.evaluate import Evaluation
from nclab.training.observer import Measured
from nclab.training.progress import Progress


@pytest.mark.fast
def test_why_it_is_told():
    """A direction of the means that falls below the cut: NC1 falls by a factor of 80 where nothing collapsed."""
    y = torch.arange(3).repeat(200)
    noise = torch.randn(600, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise -= torch.stack([noise[y == c].mean(0) for c in range(3)])[y]
    found = []
    for short in (1e-6, 1e-9):  # against 1: the cut is at 2.6e-8
        means = torch.tensor([[1.0, 0, 0, 0], [-1, short, 0, 0], [0, -short, 0, 0]], dtype=torch.float64)
        values = measure(means[y] + noise * torch.tensor([0.1, 0.9 * short, 0, 0]), y, 3)
        found.append((values["rank"], values["nc1"]))
    (full, before), (cut, after) = found
    assert (full, cut) == (2, 1)
    assert before > 20 * after


@pytest.mark.fast
def test_each_rank_of_a_layer_is_told_of_once():
    progress, told = Progress(), []
    for epoch, rank in enumerate([5, 9, 9, 8, 9, 8, 7, 8, 7, 9]):
        told += [(epoch, fall) for fall in progress.falls({"fc": rank, "other": 9}).items()]
        progress = Progress.of(json.loads(json.dumps(progress.plain())))  # as over a resume
    assert told == [(3, ("fc", (9, 8))), (6, ("fc", (8, 7)))]
    assert Progress.of({"epoch": 3}).falls({"fc": 8.0}) == {}  # of a checkpoint that noted no ranks


def test_a_run_tells_of_it(tiny, monkeypatch, capsys):
    compute, ranks = CollapseSuite.compute, iter([9, 9, 8, 8])

    def fallen(self, reduced):
        values = compute(self, reduced)
        return values | {"fc2/rank": float(next(ranks))} if self.context.train is None else values

    monkeypatch.setattr(CollapseSuite, "compute", fallen)
    folder = train(tiny("epochs=3"))
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    told = [e for e in events if e["event"] == "rank_fell"]
    assert [{k: e[k] for k in ("epoch", "layer", "before", "now")} for e in told] == [
        {"epoch": 2, "layer": "fc2", "before": 9, "now": 8}
    ]
    said = [line for line in capsys.readouterr().out.splitlines() if "rank" in line]
    assert said == ["  epoch 2: rank fell at fc2 (9 -> 8); nc1 there is not comparable with earlier epochs"]


def test_layers_that_fall_together_share_a_line():
    out = io.StringIO()
    display = Display("a-run", 9, Console(file=out, width=200))
    display.open()
    display.measured(Measured(4, Evaluation(), 1.0, {"fc1": (9, 8), "fc2": (9, 7)}))
    display.measured(Measured(5, Evaluation(), 1.0))
    display.close()
    assert out.getvalue().splitlines()[1:] == [
        "  epoch 4: rank fell at fc1 (9 -> 8), fc2 (9 -> 7); nc1 there is not comparable with earlier epochs"
    ]
