"""Cosine margins against loops in numpy, closed forms, and the suite in a run."""

import math

import numpy as np
import pytest
import torch
from run_folders import rows

from nclab.etf import simplex_etf
from nclab.metrics import cosine_margin
from nclab.run.execute import train
from nclab.run.trained import load_trained


def by_hand(h, y, w, mu=None):
    h, y, w = (np.asarray(a, dtype=np.float64) for a in (h, y, w))
    y = y.astype(int)
    mu = np.mean([h[y == c].mean(0) for c in range(len(w))], axis=0) if mu is None else mu
    found = []
    for row, c in zip(h - mu, y, strict=True):
        cosines = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in w]
        found.append(cosines[c] - max(value for j, value in enumerate(cosines) if j != c))
    return {"cosine_margin_min": min(found), "cosine_margin_mean": np.mean(found)}


@pytest.mark.parametrize("scale", [1.0, 2.0**-84, 2.0**70])
def test_against_loops(scale):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(50) % 5
    h, w = torch.randn(50, 8, generator=g) + 3, torch.randn(5, 8, generator=g)
    expected = by_hand(h, y, w)
    assert cosine_margin(scale * h, y, w) == pytest.approx(expected, rel=1e-5)
    assert cosine_margin(h.double(), y, scale * w.double()) == pytest.approx(expected, rel=1e-9)
    mean = torch.ones(8)
    assert cosine_margin(h, y, w, mean) == pytest.approx(by_hand(h, y, w, mean.numpy()), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_at_collapse_it_is_as_large_as_it_can_be(classes):
    etf = simplex_etf(classes, 12, generator=torch.Generator().manual_seed(0)).T
    y = torch.arange(3 * classes) % classes
    found = cosine_margin(7 * etf[y] + 5, y, etf)
    assert found == pytest.approx(dict.fromkeys(found, classes / (classes - 1)), abs=1e-12)


def test_what_has_no_direction_is_undefined():
    y, w = torch.arange(3), torch.eye(3)
    undefined = cosine_margin(torch.eye(3), y, w, torch.eye(3)[0])
    assert all(math.isnan(value) for value in undefined.values())
    assert math.isnan(cosine_margin(torch.eye(3), y, torch.diag(torch.tensor([1.0, 1, 0])))["cosine_margin_min"])


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="class 2 has no sample: its mean does not exist"):
        cosine_margin(torch.eye(3)[:2], torch.arange(2), torch.eye(3))
    with pytest.raises(ValueError, match=r"weight must have shape \(3, 3\), got \(3, 4\)"):
        cosine_margin(torch.eye(3), torch.arange(3), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 0\.\.2"):
        cosine_margin(torch.eye(3), torch.arange(3), torch.zeros(2, 3))


def test_a_run_logs_the_margins_of_its_network(tiny):
    folder = train(tiny("metrics.suite=[collapse,margin]", "epochs=2", "metrics.batch_size=64"))
    model, dataset, _ = load_trained(folder)
    logged = {(r[1], r[3]): r[4] for r in rows(folder) if r[0] == 2 and r[2] == "act3"}
    weight, mean = model.fc4.weight.detach(), None
    for split in ("train", "test"):
        s = dataset.splits[split]
        with torch.no_grad():
            h = model(dataset.inputs(s.samples)).features["act3"]
        expected = by_hand(h, s.targets, weight, mean)
        for name, value in expected.items():
            assert logged[split, name] == pytest.approx(value, rel=1e-4, abs=1e-6)
        if mean is None:
            mean = torch.stack([h[s.targets == c].mean(0) for c in range(10)]).mean(0).numpy()
