"""The suite regression_collapse against slow float64 references, scikit-learn and exact collapse."""

import doctest
import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import mean_squared_error, r2_score

from nclab.data import Dataset, Split
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Classes, Values
from nclab.metrics import explained_variance, nrc1, nrc2, regression
from nclab.metrics.regression import principal_axes
from nclab.metrics.suite import METRICS, Context, by_layer
from nclab.models.mlp import MLP
from nclab.theory.regression import best_g, nrc3, ufm_minimum
from nclab.training.evaluate import MetricsSettings, evaluate, suites_of
from nclab.training.objective import MeanSquaredError, MSESettings
from nclab.training.passes import Pass

N = 3
SETTINGS = MetricsSettings(suite=["regression_collapse"], batch_size=7)


def values(samples, n=N, seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.randn(samples, n, generator=g) * torch.tensor([1.0, 3.0, 0.2])[:n] + 2
    return Split(torch.randn(samples, 4, generator=g), y)


def dataset(train=40, test=25, n=N):
    splits = {"train": values(train, n), "test": values(test, n, 1)}
    return Dataset(splits, Values(n), ArrayShape(4))


def network(width, n=N):
    torch.manual_seed(0)
    return MLP(4, n, 3, width, norm="none").eval()


def measured(model, data, settings=SETTINGS):
    return evaluate(model, data, settings, objective=MeanSquaredError(MSESettings())).values


def features_of(model, split):
    with torch.no_grad():
        out = model(split.samples)
    return out.features["act2"].double().numpy(), out.prediction.double().numpy()


def far(h, axes):
    """Mean squared distance of the rows of h, at length 1, from the span of the columns of axes."""
    total = 0.0
    for row in h:
        unit = row / np.linalg.norm(row)
        coefficients, *_ = np.linalg.lstsq(axes, unit, rcond=None)
        total += np.sum((unit - axes @ coefficients) ** 2)
    return total / len(h)


@pytest.mark.fast
@pytest.mark.parametrize("width", [16, 64], ids=["more samples", "more units"])
def test_the_columns_are_those_of_a_slow_reference(width):
    model, data = network(width), dataset()
    found = measured(model, data)
    weight = model.fc3.weight.detach().double().numpy()
    pca = PCA().fit(features_of(model, data.train)[0])
    s = np.cov(data.train.targets.double().numpy().T, ddof=0)
    for name, split in data.splits.items():
        h, f = features_of(model, split)
        y, own, net = split.targets.double().numpy(), found[name]["act2"], found[name]["network"]
        assert own["nrc1"] == pytest.approx(far(h, pca.components_[:N].T), rel=1e-9)
        assert own["nrc2"] == pytest.approx(far(h, weight.T), rel=1e-9)
        # The network computes in float32, in other batches than the measurement: its outputs differ by their rounding.
        assert net["mse"] == pytest.approx(mean_squared_error(y, f), rel=1e-6)
        assert net["r2"] == pytest.approx(r2_score(y, f), rel=1e-6)
        assert net["loss"] == pytest.approx(N / 2 * net["mse"], rel=1e-6)
        for i in range(N):
            assert net[f"mse_target_{i + 1}"] == pytest.approx(mean_squared_error(y[:, i], f[:, i]), rel=1e-6)
            assert net[f"r2_target_{i + 1}"] == pytest.approx(r2_score(y[:, i], f[:, i]), rel=1e-6)
    own = found["train"]["act2"]
    assert own["nrc3"] == pytest.approx(nrc3(weight @ weight.T, s), rel=1e-9)
    assert own["nrc3_g"] == pytest.approx(best_g(weight @ weight.T, s), rel=1e-9)
    for i in range(N):
        for j in range(i, N):
            assert own[f"weight_gram_{i + 1}_{j + 1}"] == pytest.approx((weight @ weight.T)[i, j], rel=1e-12)
            assert own[f"target_covariance_{i + 1}_{j + 1}"] == pytest.approx(s[i, j], rel=1e-12, abs=1e-12)
        assert own[f"explained_variance_{i + 1}"] == pytest.approx(pca.explained_variance_ratio_[i], rel=1e-9)
    assert set(found["test"]["act2"]) == {"nrc1", "nrc2"}
    assert 0.1 < own["nrc1"] < 1
    assert 0.1 < own["nrc2"] < 1


@pytest.mark.parametrize("width", [16, 64], ids=["more samples", "more units"])
def test_sums_of_three_processes_give_the_numbers_of_one(width):
    """One of them sees no sample."""
    model, data = network(width), dataset()
    probes, whole = model.probes("linear"), measured(model, data)
    of_train = [None] * 3
    for name, split in data.splits.items():
        parts = [METRICS["regression_collapse"].build() for _ in range(3)]
        for part, own in zip(parts, of_train, strict=True):
            part.start(Context(model, probes, data.targets, name, own, samples=len(split)))
        for n_pass in range(1, parts[0].passes + 1):
            for i, (features, batch, out) in enumerate(Pass(model, data, split, 7)):
                with torch.no_grad():
                    parts[i % 2].add(n_pass, features, batch, out)
            total = sum(part.sums() for part in parts)
            if n_pass < parts[0].passes:
                for part in parts:
                    part.next_pass(n_pass + 1, total)
        for part in parts:
            for layer, own in by_layer(part.compute(total)).items():
                for metric, value in own.items():
                    assert value == pytest.approx(whole[name][layer][metric], rel=1e-9), metric
        of_train = parts


def collapsed(n=2, dim=6, samples=40, l_h=0.3, l_w=0.2):
    """Features and weight of the closed form, float64."""
    g = torch.Generator().manual_seed(3)
    y = torch.randn(samples, n, generator=g, dtype=torch.float64) @ torch.tensor([[2.0, 0.7], [0.0, 1.0]]).double() + 5
    frame = torch.linalg.qr(torch.randn(dim, n, generator=g, dtype=torch.float64)).Q.T
    minimum = ufm_minimum(y.numpy(), dim, l_h, l_w, frame.numpy())
    return torch.from_numpy(minimum.features), torch.from_numpy(minimum.weight)


@pytest.mark.fast
def test_at_collapse_they_are_0():
    h, w = collapsed()
    assert nrc1(h, 2) < 1e-28
    assert nrc2(h, w) < 1e-28
    assert explained_variance(h)[:3] == pytest.approx([*np.sort(PCA().fit(h).explained_variance_ratio_)[::-1][:2], 0])
    off = h + 0.1 * torch.randn(h.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert nrc1(off, 2) > 1e-4
    assert nrc2(off, w) > 1e-4


@pytest.mark.parametrize("k", [-84, 70])
def test_no_scale_changes_them(k):
    model, data = network(16), dataset()
    h = torch.from_numpy(features_of(model, data.train)[0]).float()
    w = model.fc3.weight.detach()
    for scaled in (h * 2.0**k, h.double() * 2.0**k):
        assert nrc1(scaled, N) == pytest.approx(nrc1(h, N), rel=1e-9)
        assert nrc2(scaled, w * 2.0**k) == pytest.approx(nrc2(h, w), rel=1e-9)
        assert explained_variance(scaled) == pytest.approx(explained_variance(h), rel=1e-9)


def test_axes_of_features_that_vary_along_few_directions():
    h = torch.zeros(10, 4, dtype=torch.float64)
    h[:, 1] = torch.arange(10)
    assert principal_axes(h, 3).shape == (4, 1)
    assert principal_axes(torch.ones(10, 4), 3).shape == (4, 0)
    assert principal_axes(torch.ones(3, 4), 3).shape == (4, 0)


def test_what_is_undefined_is_nan():
    h = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    assert math.isnan(nrc1(torch.ones(10, 4), 2))
    assert math.isnan(nrc2(h, torch.zeros(2, 4)))
    h[3] = 0
    assert math.isnan(nrc1(h, 2))
    assert all(math.isnan(share) for share in explained_variance(torch.ones(10, 4), 2))
    split = values(40, 2)
    split.targets[:, 1] = 0.1
    data = Dataset({"train": split, "test": values(9, 2)}, Values(2), ArrayShape(4))
    net = measured(network(8, 2), data)["train"]["network"]
    assert math.isnan(net["r2_target_2"])
    assert math.isnan(net["r2"])
    assert math.isfinite(net["r2_target_1"])
    one = measured(network(8, 1), dataset(n=1))["train"]["act2"]
    assert math.isnan(one["nrc3"])
    assert math.isnan(one["nrc3_g"])
    assert 0 < one["nrc1"] < 1


def test_targets_that_are_no_values_are_refused():
    g = torch.Generator().manual_seed(0)
    split = Split(torch.randn(10, 4, generator=g), torch.arange(10) % 2)
    data = Dataset({"train": split}, Classes(2), ArrayShape(4))
    with pytest.raises(ValueError, match="regression_collapse needs targets that are values, got classes"):
        suites_of(network(8, 2), data, SETTINGS)


def test_examples():
    assert doctest.testmod(regression).attempted == 1
    assert doctest.testmod(regression).failed == 0
