"""Regression with unconstrained features: the closed form against numerical optimisation, and the constant of NRC3."""

import doctest
import math

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from nclab.theory import regression
from nclab.theory.regression import best_g, covariance, nrc3, ufm_gram, ufm_loss, ufm_minimum

rng = np.random.default_rng(0)
M, D = 30, 5


def targets(*eigenvalues):
    """(M, n) with exactly this covariance spectrum, rotated and shifted."""
    n = len(eigenvalues)
    z = rng.normal(size=(M, n))
    z = np.linalg.svd(z - z.mean(0), full_matrices=False)[0] * M**0.5
    u = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return z * np.sqrt(eigenvalues) @ u.T + rng.normal(size=n)


def descended(y, l_h, l_w, start):
    """(loss, W, H, b) of L-BFGS from a random start, with a gradient of its own."""
    n, cut = y.shape[1], [y.shape[1] * D, y.shape[1] * D + M * D]

    def parts(x):
        w, h, b = np.split(x, cut)
        return w.reshape(n, D), h.reshape(M, D), b

    def value(x):
        w, h, b = parts(x)
        e = (h @ w.T + b - y) / M
        gradient = [e.T @ h + l_w * w, e @ w + l_h / M * h, e.sum(0)]
        return ufm_loss(w, h, b, y, l_h, l_w), np.concatenate([g.ravel() for g in gradient])

    x = np.random.default_rng(start).normal(size=cut[1] + n)
    found = minimize(value, x, jac=True, method="L-BFGS-B", options={"maxiter": 20000, "ftol": 0, "gtol": 1e-11})
    return found.fun, *parts(found.x)


@pytest.mark.parametrize(("c", "rank"), [(0.04, 3), (0.3, 2), (1.5, 1), (5.0, 0)])
@pytest.mark.parametrize("ratio", [1.0, 9.0])
def test_the_closed_form_is_what_descent_reaches(c, rank, ratio):
    y = targets(0.2, 1.0, 4.0)
    l_h, l_w = (c * ratio) ** 0.5, (c / ratio) ** 0.5
    minimum = ufm_minimum(y, D, l_h, l_w)
    w, h, b = minimum.weight, minimum.features, minimum.bias
    assert minimum.rank == rank == np.linalg.matrix_rank(w) == np.linalg.matrix_rank(h)
    assert ufm_loss(w, h, b, y, l_h, l_w) == pytest.approx(minimum.loss, rel=1e-13)
    gram, loss, same = ufm_gram(covariance(y), l_h, l_w)
    np.testing.assert_allclose(gram, w @ w.T, atol=1e-12)
    assert (loss, same) == (minimum.loss, rank)
    for start in range(2):
        loss, found_w, found_h, found_b = descended(y, l_h, l_w, start)
        assert loss == pytest.approx(minimum.loss, rel=1e-10)
        np.testing.assert_allclose(found_w @ found_w.T, w @ w.T, atol=1e-5)
        np.testing.assert_allclose(found_h @ found_w.T + found_b, h @ w.T + b, atol=1e-5)
        np.testing.assert_allclose(found_b, y.mean(0), atol=1e-6)


def test_it_is_collapsed_with_g_equal_to_c_and_the_stated_residual():
    y, (l_h, l_w) = targets(0.2, 1.0, 4.0), (0.5, 0.1)
    minimum, s = ufm_minimum(y, D, l_h, l_w), covariance(y)
    gram = minimum.weight @ minimum.weight.T
    assert nrc3(gram, s) < 1e-28
    assert best_g(gram, s) == pytest.approx(l_h * l_w, rel=1e-12)
    values, u = np.linalg.eigh(s)
    expected = -((l_h * l_w) ** 0.5) * (y - y.mean(0)) @ (u / np.sqrt(values)) @ u.T
    np.testing.assert_allclose(minimum.residual, expected, atol=1e-12)
    frame = np.linalg.qr(rng.normal(size=(D, 3)))[0].T
    turned = ufm_minimum(y, D, l_h, l_w, frame)
    np.testing.assert_allclose(turned.weight @ turned.weight.T, gram, atol=1e-13)
    assert ufm_loss(turned.weight, turned.features, turned.bias, y, l_h, l_w) == pytest.approx(minimum.loss)
    assert not np.allclose(turned.weight, minimum.weight)


@pytest.mark.parametrize("seed", range(20))
def test_best_g_against_a_search(seed):
    """Inside, clipped at either end, and against what W learns of the targets."""
    own = np.random.default_rng(seed)
    n = 2 + seed % 3
    s = covariance(own.normal(size=(40, n)) * own.uniform(0.3, 3, n))
    v = own.normal(size=(n, n)) * own.uniform(0.2, 2, n)
    a = v @ v.T if seed % 2 else np.linalg.cholesky(s) + 0.05 * v @ v.T
    a = (a + a.T) / 2
    least = np.linalg.eigvalsh(s)[0]
    found = minimize_scalar(lambda g: nrc3(a, s, g), bounds=(0, least), method="bounded", options={"xatol": 1e-12})
    assert nrc3(a, s) <= found.fun + 1e-12
    assert 0 <= best_g(a, s) <= least + 1e-12


def test_the_search_meets_inner_minima_and_both_ends():
    s = np.diag([1.0, 4.0])
    assert best_g(np.diag([0.5, 1.5]), s) == pytest.approx(0.25)
    assert best_g(np.diag([0.0, 1.0]), s) == 1.0  # all the variance in one direction: g at lambda_min
    assert best_g(np.diag([1.0, 1.0]), s) == best_g(np.diag([2.0, 1.0]), s) == 0.0


def test_a_multiple_of_the_identity():
    s = covariance(np.concatenate([np.eye(3), -np.eye(3)]))
    assert best_g(np.eye(3) * 7, s) == 0.0
    assert nrc3(np.eye(3) * 7, s) < 1e-28


def test_what_is_undefined_is_nan():
    assert math.isnan(nrc3([[2.0]], [[1.0]]))
    assert math.isnan(best_g([[2.0]], [[1.0]]))
    assert math.isnan(nrc3(np.zeros((2, 2)), np.eye(2)))
    assert math.isnan(nrc3(np.eye(2), np.eye(2), g=1.0))


@pytest.mark.parametrize("k", [-300, 300])
def test_no_scale_of_w_changes_it(k):
    s, a = covariance(targets(0.5, 2.0)), np.array([[2.0, 0.3], [0.3, 1.0]])
    assert nrc3(a * 2.0**k, s) == pytest.approx(nrc3(a, s), rel=1e-12)
    assert best_g(a * 2.0**k, s) == pytest.approx(best_g(a, s), rel=1e-12)


def test_wrong_arguments_are_refused():
    y = targets(1.0, 2.0)
    for name, given in (("l_h", (0.0, 1.0)), ("l_w", (1.0, math.nan))):
        with pytest.raises(ValueError, match=f"{name} must be above 0 and finite"):
            ufm_minimum(y, D, *given)
    with pytest.raises(ValueError, match="dim must be at least 2, the directions that are learnt; got 1"):
        ufm_minimum(y, 1, 0.1, 0.1)
    with pytest.raises(ValueError, match=r"frame must be \(2, 5\), got \(2, 4\)"):
        ufm_minimum(y, D, 0.1, 0.1, np.eye(2, 4))
    with pytest.raises(ValueError, match="frame must have orthonormal rows"):
        ufm_minimum(y, D, 0.1, 0.1, 2 * np.eye(2, 5))
    with pytest.raises(ValueError, match=r"targets must be a matrix, got shape \(3,\)"):
        covariance(np.ones(3))
    with pytest.raises(ValueError, match=r"expected two square matrices of one size, got \(2, 2\) and \(3, 3\)"):
        nrc3(np.eye(2), np.eye(3))


def test_examples():
    assert doctest.testmod(regression).attempted >= 4
    assert doctest.testmod(regression).failed == 0
