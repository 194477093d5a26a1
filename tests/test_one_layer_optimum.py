"""The global minimum of one layer on free features, against direct minimisation in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from nclab.theory.one_layer import (
    cross_entropy_optimum,
    fixed_etf_optimum,
    soft_loss_optimum,
    squared_error_optimum,
)

CLASSES, DIM = 4, 6


def minimised(loss, per_class, weight, features, bias, starts=3):
    """(objective, W, H, b) of the best of several direct minimisations; bias None: no bias."""
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    sizes = [CLASSES * DIM, len(labels) * DIM, CLASSES]

    def parts(x):
        w, h, b = torch.as_tensor(x).split(sizes)
        return w.view(CLASSES, DIM), h.view(-1, DIM), b * (bias is not None)

    def objective(x):
        x = torch.tensor(x, requires_grad=True)
        w, h, b = parts(x)
        penalty = weight / 2 * w.square().sum() + features / 2 * h.square().sum() + (bias or 0) / 2 * b.square().sum()
        value = loss(h @ w.T + b, labels) + penalty
        value.backward()
        return value.item(), x.grad.numpy()

    random = np.random.default_rng(0)
    found = [minimize(objective, random.normal(size=sum(sizes)), jac=True, method="L-BFGS-B",
                      options={"maxiter": 20000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-10})
             for _ in range(starts)]  # fmt: skip
    best = min(found, key=lambda result: result.fun)
    return best.fun, *(part.numpy() for part in parts(best.x))


def squared_error(z, labels):
    return (z - torch.eye(CLASSES, dtype=z.dtype)[labels]).square().sum(1).mean() / 2


@pytest.mark.parametrize(
    ("per_class", "weight", "features"), [(1, 0.01, 0.01), (3, 0.02, 0.003), (5, 3e-3, 2e-4), (2, 0.3, 0.3)]
)
def test_cross_entropy(per_class, weight, features):
    direct, w, h, b = minimised(cross_entropy, per_class, weight, features, 0.01)
    optimum = cross_entropy_optimum(CLASSES, per_class, weight, features)
    assert optimum.objective == pytest.approx(direct, abs=1e-9)
    z = h @ w.T + b  # (N, C)
    expected = optimum.scale * (np.eye(CLASSES) - 1 / CLASSES).repeat(per_class, 0)
    np.testing.assert_allclose(z, expected, atol=1e-3)
    np.testing.assert_allclose((w**2).sum(), optimum.weight_square, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose((h**2).sum(), optimum.features_square, rtol=1e-3, atol=1e-6)


def test_cross_entropy_is_zero_from_the_threshold_on():
    per_class, weight = 3, 0.1
    threshold = 1 / (CLASSES**2 * per_class * weight)
    assert cross_entropy_optimum(CLASSES, per_class, weight, 1.001 * threshold).scale == 0
    assert cross_entropy_optimum(CLASSES, per_class, weight, 1.001 * threshold).objective == math.log(CLASSES)
    below = cross_entropy_optimum(CLASSES, per_class, weight, 0.999 * threshold)
    assert below.scale > 0
    assert below.objective < math.log(CLASSES)


@pytest.mark.parametrize("bias", [None, 0.0, 0.05, 10.0])
@pytest.mark.parametrize(("per_class", "weight", "features"), [(1, 0.02, 0.02), (3, 0.03, 0.004)])
def test_squared_error(per_class, weight, features, bias):
    direct, w, h, b = minimised(squared_error, per_class, weight, features, bias)
    optimum = squared_error_optimum(CLASSES, per_class, weight, features, bias)
    assert optimum.objective == pytest.approx(direct, abs=1e-9)
    expected = (optimum.scale * (np.eye(CLASSES) - 1 / CLASSES) + optimum.mean / CLASSES).repeat(per_class, 0)
    np.testing.assert_allclose(h @ w.T, expected, atol=1e-3)
    np.testing.assert_allclose(b, optimum.bias, atol=1e-3)


def test_squared_error_is_zero_from_the_threshold_on():
    per_class, weight = 3, 0.1
    threshold = 1 / (CLASSES**2 * per_class * weight)
    above = squared_error_optimum(CLASSES, per_class, weight, 1.001 * threshold, 0.0)
    assert above.scale == above.mean == 0
    assert above.objective == pytest.approx((1 - 1 / CLASSES) / 2)  # b = 1 / C is left
    assert squared_error_optimum(CLASSES, per_class, weight, 0.999 * threshold, 0.0).scale > 0


def focal(z, labels):
    p = torch.softmax(z, 1)[torch.arange(len(labels)), labels]
    return -((1 - p) ** 3 * p.log()).mean()


def smoothed(z, labels):
    return cross_entropy(z, labels, label_smoothing=0.1)


@pytest.mark.parametrize(("loss", "keys"), [(smoothed, {"smoothing": 0.1}), (focal, {"gamma": 3.0})])
@pytest.mark.parametrize(("per_class", "weight", "features"), [(3, 0.005, 0.004), (1, 0.02, 0.01), (2, 0.5, 0.5)])
def test_soft_losses(loss, keys, per_class, weight, features):
    direct, *_ = minimised(loss, per_class, weight, features, 0.01)
    assert soft_loss_optimum(CLASSES, per_class, weight, features, **keys) == pytest.approx(direct, abs=1e-8)


def test_soft_losses_without_softness_are_cross_entropy():
    least = cross_entropy_optimum(CLASSES, 3, 0.02, 0.003).objective
    assert soft_loss_optimum(CLASSES, 3, 0.02, 0.003) == pytest.approx(least, abs=1e-12)
    for keys in ({"smoothing": 1.0}, {"gamma": -1.0}, {"smoothing": 0.1, "gamma": 1.0}):
        with pytest.raises(ValueError, match="expected smoothing in"):
            soft_loss_optimum(CLASSES, 3, 0.02, 0.003, **keys)


@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_a_fixed_etf(norm):
    per_class, features = 3, 0.004
    ones = np.eye(CLASSES) - 1 / CLASSES
    w = torch.from_numpy(norm * ones / np.linalg.norm(ones[0]))  # rows of this norm
    labels = torch.arange(CLASSES).repeat_interleave(per_class)

    def objective(x):
        h = torch.tensor(x, requires_grad=True)
        value = cross_entropy(h.view(-1, CLASSES) @ w.T, labels) + features / 2 * h.square().sum()
        value.backward()
        return value.item(), h.grad.numpy()

    direct = minimize(objective, np.ones(len(labels) * CLASSES), jac=True, method="L-BFGS-B",
                      options={"ftol": 1e-16, "gtol": 1e-9})  # fmt: skip
    assert fixed_etf_optimum(CLASSES, per_class, norm, features) == pytest.approx(direct.fun, abs=1e-10)


def test_the_etf_of_the_best_norm_loses_nothing():
    per_class, weight, features = 3, 0.02, 0.003
    optimum = cross_entropy_optimum(CLASSES, per_class, weight, features)
    norm = (optimum.weight_square / CLASSES) ** 0.5
    whole = fixed_etf_optimum(CLASSES, per_class, norm, features) + weight / 2 * optimum.weight_square
    assert whole == pytest.approx(optimum.objective, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((1, 3, 0.1, 0.1), "classes: expected at least 2, got 1"),
        ((4, 0, 0.1, 0.1), "per_class: expected at least 1, got 0"),
        ((4, 3, 0.0, 0.1), "weight: expected above 0 and finite, got 0"),
        ((4, 3, 0.1, math.inf), "features: expected above 0 and finite, got inf"),
    ],
)
@pytest.mark.parametrize("optimum", [cross_entropy_optimum, squared_error_optimum])
def test_arguments_are_checked(optimum, arguments, said):
    with pytest.raises(ValueError, match=said):
        optimum(*arguments)


def test_the_bias_and_the_norm_are_checked():
    with pytest.raises(ValueError, match=r"bias: expected at least 0 and finite, or None; got -1"):
        squared_error_optimum(4, 3, 0.1, 0.1, -1.0)
    with pytest.raises(ValueError, match=r"norm: expected above 0 and finite, got 0"):
        fixed_etf_optimum(4, 3, 0.0, 0.1)
