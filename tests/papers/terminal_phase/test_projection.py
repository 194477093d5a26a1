"""The plane of three class means, and what a training records of it."""

import math

import numpy as np
import pytest
import torch
from run_folders import assert_same_run, killed_after, rows

from nclab.etf import simplex_etf
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.targets import Classes
from nclab.metrics.suite import METRICS, Context
from nclab.papers.terminal_phase.parts.linear import Linear
from nclab.papers.terminal_phase.parts.projection import POINTS, plane_of, triangle
from nclab.run.execute import train


def test_the_target_is_a_simplex_etf():
    gram = triangle() @ triangle().T
    torch.testing.assert_close(gram, 1.5 * torch.eye(3, dtype=torch.float64) - 0.5)
    assert triangle()[0].tolist() == pytest.approx([0, 1])


def test_the_plane_keeps_the_means_and_turns_them_to_the_target():
    means = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred, plane = means - means.mean(0), plane_of(means)
    flat = centred @ plane
    torch.testing.assert_close(plane.T @ plane, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(flat @ flat.T, centred @ centred.T)  # no distance is lost
    fit = (flat * triangle()).sum()
    for angle in np.linspace(0, 2 * math.pi, 60):
        turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        for mirror in (1.0, -1.0):
            other = flat @ turn.double() @ torch.tensor([[mirror, 0], [0, 1]], dtype=torch.float64)
            assert (other * triangle()).sum() <= fit + 1e-9


def test_means_of_a_simplex_etf_are_the_target():
    means = simplex_etf(3, 5, generator=torch.Generator().manual_seed(1)).T
    torch.testing.assert_close((means - means.mean(0)) @ plane_of(means), triangle())


def test_means_on_a_line_have_no_plane():
    means = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]], dtype=torch.float64)
    assert plane_of(means).isnan().all()


def test_the_columns_are_the_first_samples_the_means_and_the_rows():
    model = Linear(5, 4, True)
    labels = torch.arange(100) % 4
    features = torch.randn(100, 5, generator=torch.Generator().manual_seed(3)) + labels[:, None] ** 2
    suite = METRICS["projection"].build()
    suite.start(Context(model, model.probes("linear"), Classes(4)))
    for part in torch.arange(100).split(9):
        x, y = features[part], labels[part]
        suite.add(1, {"features": x}, Batch(x, y, part, len(part)), Output(x, {}))
    found = suite.compute(suite.sums())
    assert len(found) == (POINTS + 2) * 3 * 2 == 102
    h = features.double()
    means = torch.stack([h[labels == c].mean(0) for c in range(3)])
    plane = plane_of(means)
    rows_of_w = model.head.weight.detach().double()[:3]
    for c in range(3):
        sample = (h[labels == c][4] - means.mean(0)) @ plane
        row = (rows_of_w[c] - rows_of_w.mean(0)) @ plane
        for i, axis in enumerate("xy"):
            assert found[f"features/plane_sample_{c}_4_{axis}"] == pytest.approx(float(sample[i]), rel=1e-4)
            assert found[f"features/plane_row_{c}_{axis}"] == pytest.approx(float(row[i]), rel=1e-4)


def test_a_training_records_it_and_a_resume_repeats_nothing(tiny, tmp_path):
    folder = train(tiny("metrics.suite=[collapse,projection]", "metrics.every=2"))
    recorded = [r for r in rows(folder) if r[3].startswith("plane_")]
    assert {(r[1], r[2]) for r in recorded} == {("train", "act3")}
    assert len(recorded) == 102 * 4  # epochs 0, 2, 4, 6
    assert max(len(",".join(map(str, r))) for r in recorded) < 60  # 6 kB an epoch
    other = killed_after(4, tiny("metrics.suite=[collapse,projection]", "metrics.every=2", root=tmp_path / "again"))
    train(tiny("metrics.suite=[collapse,projection]", "metrics.every=2", root=tmp_path / "again"))
    assert_same_run(folder, other)


def test_two_classes_are_too_few():
    model = Linear(3, 2, True)
    with pytest.raises(ValueError, match="projection needs at least 3 classes, got 2"):
        METRICS["projection"].build().start(Context(model, model.probes("linear"), Classes(2)))
