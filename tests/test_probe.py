"""Linear probes and nearest neighbours of every layer, recomputed with scikit-learn and by brute force."""

import math

import numpy as np
import pytest
import torch
from run_folders import rows
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from nclab.data import load_dataset
from nclab.metrics import knn_accuracy, linear_probe_accuracy
from nclab.metrics.rows import chosen_rows
from nclab.metrics.suites import probe
from nclab.run.build import built
from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.training.evaluate import evaluate

C, D = 4, 6


def features(n, seed, spread=4.0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % C
    centres = torch.randn(C, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return 3 * centres[y] + spread * torch.randn(n, D, generator=g, dtype=torch.float64) + 50, y


def by_sklearn(h, y, h_test, y_test):
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    return model.fit(np.asarray(h), np.asarray(y)).score(np.asarray(h_test), np.asarray(y_test))


def by_brute_force(h, y, h_test, y_test, k=5):
    """The class most frequent among the five nearest; of equally frequent ones the smallest label."""
    hits = 0
    for row, label in zip(h_test, y_test, strict=True):
        nearest = ((h - row) ** 2).sum(1).argsort()[:k]
        hits += int(np.bincount(np.asarray(y)[nearest], minlength=C).argmax() == label)
    return hits / len(y_test)


@pytest.mark.fast
def test_against_scikit_learn_and_brute_force():
    h, y = features(200, 0)
    h_test, y_test = features(120, 1)
    linear, knn = (f(h, y, h_test, y_test) for f in (linear_probe_accuracy, knn_accuracy))
    assert linear == by_sklearn(h, y, h_test, y_test)
    assert knn == by_brute_force(h, y, h_test, y_test)
    assert 0.3 < knn < 1
    assert 0.3 < linear < 1


@pytest.mark.parametrize("k", [-100, -40, 40, 100])
def test_neither_depends_on_scale_or_on_the_caller_s_precision(k):
    h, y = features(200, 0)
    h_test, y_test = features(120, 1)
    for f in (linear_probe_accuracy, knn_accuracy):
        assert f(h * 2.0**k, y, h_test * 2.0**k, y_test) == f(h, y, h_test, y_test)


def test_separated_classes_are_all_found():
    (h, y), (h_test, y_test) = features(80, 0, spread=0.01), features(40, 1, spread=0.01)
    assert linear_probe_accuracy(h, y, h_test, y_test) == 1
    assert knn_accuracy(h, y, h_test, y_test) == 1


def test_features_that_say_nothing_are_chance_and_not_finite_ones_undefined():
    y = torch.arange(40) % C
    same = torch.ones(40, D)
    assert linear_probe_accuracy(same, y, same, y) == 1 / C
    broken = same.clone()
    broken[3, 2] = math.nan
    for f in (linear_probe_accuracy, knn_accuracy):
        assert math.isnan(f(broken, y, same, y))
        assert math.isnan(f(same, y, broken, y))
    assert math.isnan(linear_probe_accuracy(same, 0 * y, same, y))  # one class: nothing to fit
    assert math.isnan(knn_accuracy(same[:3], y[:3], same, y))  # fewer than five neighbours


def test_scikit_learn_uses_the_threads_of_torch(monkeypatch):
    (h, y), seen = features(200, 0), []
    for kind, f in ((LogisticRegression, linear_probe_accuracy), (KNeighborsClassifier, knn_accuracy)):
        fit = kind.fit

        def noted(self, *given, fit=fit):
            seen.append({library["num_threads"] for library in threadpool_info()})
            return fit(self, *given)

        monkeypatch.setattr(kind, "fit", noted)
        with threadpool_limits(2, "blas"):  # more than torch has here
            f(h, y, h, y)
    assert torch.get_num_threads() == 1
    assert seen == [{1}] * 2


@pytest.mark.fast
def test_a_run_logs_them_of_what_is_not_trained_on(tiny, monkeypatch):
    monkeypatch.setattr(probe, "MOST_ROWS", 90)
    folder = train(tiny("epochs=1", "metrics.suite=[probe]", "metrics.batch_size=64"))
    logged = {r[1:4]: r[4] for r in rows(folder) if r[0] == 1 and r[2] != "network"}
    assert {split for split, _, _ in logged} == {"test"}
    assert {layer for _, layer, _ in logged} == {"fc1", "fc2", "fc3", "act3", "fc4"}
    model, data, _ = load_trained(folder)
    taken = {}
    for split, s in data.splits.items():
        with torch.no_grad():
            out = model(data.inputs(s.samples))
        chosen = chosen_rows(len(s), 90)
        taken[split] = {**out.features, "fc4": out.prediction}, s.targets, chosen
    (of_train, y, own), (of_test, y_test, other) = taken["train"], taken["test"]
    for layer in ("fc1", "fc4"):
        h, h_test = of_train[layer][own].double(), of_test[layer][other].double()
        expected = by_sklearn(h, y[own], h_test, y_test[other])
        assert logged["test", layer, "linear_probe_accuracy"] == pytest.approx(expected, abs=2 / 90)
        assert logged["test", layer, "knn_accuracy"] == pytest.approx(
            knn_accuracy(h, y[own], h_test, y_test[other]), abs=2 / 90
        )


def test_a_stop_does_not_wait_for_the_probes_of_all_layers(tiny, monkeypatch):
    fitted = []

    class Asked(Exception):
        pass

    def check():
        if fitted:
            raise Asked

    monkeypatch.setattr(probe, "linear_probe_accuracy", lambda *given: fitted.append(1) or 0.5)
    config = tiny("metrics.suite=[probe]")
    dataset = load_dataset(config.dataset, "data")
    model = built(config, dataset).model
    with pytest.raises(Asked):
        evaluate(model, dataset, config.metrics, check=check)
    assert len(fitted) == 1
    evaluate(model, dataset, config.metrics)
    assert len(fitted) == 1 + 5  # of all layers
