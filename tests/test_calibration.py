"""Calibration against a float64 reference by loops, and closed forms."""

import math

import numpy as np
import pytest
import torch
from run_folders import rows

from nclab.metrics import calibration
from nclab.run.execute import train
from nclab.run.trained import load_trained

BINS = 15


def by_hand(logits, labels):
    z = np.asarray(logits, dtype=np.float64)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    y = np.asarray(labels)
    nll = -np.mean([np.log(row[c]) for row, c in zip(p, y, strict=True)])
    brier = np.mean([((row - np.eye(len(row))[c]) ** 2).sum() for row, c in zip(p, y, strict=True)])
    order = np.lexsort((p.argmax(1) == y, p.max(1)))
    ece = 0.0
    for part in np.array_split(order, BINS):
        if len(part):
            hits = (p[part].argmax(1) == y[part]).mean()
            ece += len(part) / len(y) * abs(hits - p[part].max(1).mean())
    return {"ece": ece, "nll": nll, "brier": brier}


@pytest.mark.fast
@pytest.mark.parametrize(("n", "c", "scale"), [(300, 10, 3), (7, 3, 1), (1000, 2, 10), (40, 100, 5)])
def test_against_loops(n, c, scale):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, c, (n,), generator=g)
    logits = scale * torch.randn(n, c, generator=g)
    logits[torch.arange(n), y] += scale
    assert calibration(logits, y) == pytest.approx(by_hand(logits, y), rel=1e-9)
    order = torch.randperm(n, generator=g)
    assert calibration(logits[order], y[order]) == pytest.approx(calibration(logits, y), rel=1e-12)


def test_closed_forms():
    y = torch.arange(4).repeat(30)
    even = calibration(torch.zeros(120, 4), y)
    assert even["nll"] == pytest.approx(math.log(4))
    assert even["brier"] == pytest.approx(0.75)
    sure = calibration(1000 * torch.eye(4)[y], y)
    assert sure == {"ece": 0, "nll": 0, "brier": 0}
    wrong = calibration(1000 * torch.eye(4)[(y + 1) % 4], y)
    assert wrong == pytest.approx({"ece": 1, "nll": 1000, "brier": 2})


def test_near_certainty_keeps_its_digits():
    y = torch.zeros(30, dtype=torch.int64)
    logits = torch.tensor([50.0, 0.0]).repeat(30, 1)
    other = math.exp(-50)
    expected = {"ece": other, "nll": other, "brier": 2 * other**2}
    assert calibration(logits, y) == pytest.approx(expected, rel=1e-9)


def test_logits_that_are_not_finite_are_undefined():
    logits = torch.zeros(10, 3)
    logits[4, 1] = math.nan
    assert all(math.isnan(value) for value in calibration(logits, torch.arange(10) % 3).values())


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64), r"\(N, d\)"),
        (torch.zeros(4, 3), torch.zeros(4), "labels must be integers"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), r"labels must lie in 0\.\.2"),
    ],
)
def test_wrong_input_is_refused(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        calibration(logits, labels)


@pytest.mark.fast
def test_a_run_logs_them(tiny):
    folder = train(tiny("epochs=2", "metrics.suite=[calibration]", "metrics.batch_size=33"))
    logged = {r[1:4]: r[4] for r in rows(folder) if r[0] == 2}
    model, data, _ = load_trained(folder)
    for split, s in data.splits.items():
        with torch.no_grad():
            expected = by_hand(model(data.inputs(s.samples)).prediction, s.targets)
        found = {name: logged[split, "network", name] for name in expected}
        assert found == pytest.approx(expected, rel=1e-5)
        assert found["nll"] == pytest.approx(logged[split, "network", "loss"], rel=1e-5)  # trained by cross-entropy


@pytest.mark.parametrize("bad", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize("of_the_label", [True, False])
def test_a_logit_that_is_not_finite_leaves_nothing_defined(bad, of_the_label):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6) % 3
    logits[2, 2 if of_the_label else 0] = bad
    assert all(math.isnan(value) for value in calibration(logits, y).values())
