"""The max-margin solution against scikit-learn's and a closed form, and gradient descent that goes to it."""

import math

import numpy as np
import pytest
import torch
from conftest import composed
from run_folders import rows
from sklearn.svm import LinearSVC

from nclab.etf import simplex_etf
from nclab.interfaces.targets import Classes
from nclab.metrics.suite import METRICS, Context
from nclab.papers.terminal_phase.parts import max_margin as module
from nclab.papers.terminal_phase.parts.linear import Linear
from nclab.papers.terminal_phase.parts.max_margin import against_max_margin, least_margin, max_margin
from nclab.run.execute import train


def clusters(classes=4, dim=6, count=12, noise=0.3):
    rng = np.random.default_rng(0)
    labels = np.arange(count * classes) % classes
    return rng.normal(size=(classes, dim))[labels] * 2 + noise * rng.normal(size=(len(labels), dim)), labels


def test_it_is_the_svm_of_crammer_and_singer():
    features, labels = clusters()
    ours = max_margin(features, labels, 4)
    svm = LinearSVC(multi_class="crammer_singer", C=1e5, fit_intercept=False, tol=1e-10, max_iter=10**6)
    theirs = svm.fit(features, labels).coef_
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert least_margin(ours, features, labels) == pytest.approx(1, abs=1e-9)


def test_of_an_etf_it_is_the_etf():
    vertices = simplex_etf(5, 9, generator=torch.Generator().manual_seed(0)).T.numpy()
    found = max_margin(vertices, np.arange(5), 5)
    np.testing.assert_allclose(found, vertices * 4 / 5, atol=1e-12)  # margin of the vertices themselves: C / (C - 1)
    numbers = against_max_margin(3 * vertices, vertices, np.arange(5))
    assert numbers["max_margin_distance"] == pytest.approx(0, abs=1e-12)
    assert numbers["margin_share"] == pytest.approx(1)
    assert numbers["weight_norm"] == pytest.approx(3 * math.sqrt(5))


def test_a_solver_that_stops_early_is_not_believed(monkeypatch):
    features, labels = clusters()
    wanted = max_margin(features, labels, 4)
    stopped = lambda matrix, *_, **__: (np.full(matrix.shape[1], 1 / matrix.shape[1]), 0.0)  # noqa: E731
    monkeypatch.setattr("scipy.optimize.nnls", stopped)
    np.testing.assert_allclose(max_margin(features, labels, 4), wanted, atol=1e-9)


def test_the_distance_is_that_of_directions():
    features, labels = clusters()
    best = max_margin(features, labels, 4)
    wrong = np.roll(best, 1, axis=0)
    cosine = (best * wrong).sum() / (best**2).sum()
    numbers = against_max_margin(wrong, features, labels)
    assert numbers["max_margin_distance"] == pytest.approx(math.sqrt(2 - 2 * cosine))
    assert numbers["margin_share"] < 0


def test_what_no_classifier_separates_is_refused():
    features = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="separates, got 3 that none does; keep fewer samples"):
        max_margin(features, np.array([0, 1, 1]), 2)


def test_too_many_samples_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MOST_NUMBERS", 100)
    with pytest.raises(ValueError, match="max_margin takes at most 1 samples of 6 numbers, got 48"):
        max_margin(*clusters(), 4)


def test_a_bias_and_several_processes_are_refused(monkeypatch):
    model = Linear(3, 2, True)
    context = Context(model, model.probes("linear"), Classes(2))
    with pytest.raises(ValueError, match=r"needs a classifier without a bias \(model.bias=false\), got one"):
        METRICS["max_margin"].build().start(context)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    for suite in ("max_margin", "projection"):
        with pytest.raises(ValueError, match=f"{suite} keeps samples of a whole split: expected one process, got 2"):
            METRICS[suite].build().start(Context(model, model.probes("linear"), Classes(3)))


def test_gradient_descent_goes_there_and_an_etf_stays_an_etf(tmp_path):
    keys = ("model=linear", "dataset=etf_features", f"output_root={tmp_path}", "threads=1", "batch_size=null")
    keys += ("dataset.classes=4", "dataset.dim=6", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.weight_decay=0")
    keys += ("metrics.suite=[collapse,max_margin]", "epochs=300", "metrics.every=100", "checkpoint_seconds=10")
    folder = train(composed(*keys))
    found = {(r[0], r[3]): r[4] for r in rows(folder) if r[1] == "train" and r[2] == "features"}
    distance = [found[epoch, "max_margin_distance"] for epoch in (0, 100, 200, 300)]
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 0.2 < 0.7 < distance[0]
    assert found[300, "nc3"] == pytest.approx(distance[-1], rel=1e-5)  # on these features the solution is the ETF
    assert found[300, "margin_share"] > 0.9
    assert found[300, "weight_norm"] > found[100, "weight_norm"]
