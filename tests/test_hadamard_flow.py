"""Hadamard initialisation in closed form, against dense matrices and plain gradient descent in float64."""

import doctest

import numpy as np
import pytest

from nclab.theory import hadamard as module
from nclab.theory.hadamard import (
    diagonal_softmax,
    etf_cosine,
    factors,
    flow,
    growth_rates,
    hadamard,
    jacobian,
    leakage,
    log_excess,
    logits,
    lyapunov,
    margins,
)


def drawn(classes: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """Singular values s (K,), s_0 among them."""
    return np.exp(spread * np.random.default_rng(seed).normal(size=classes))


def dense_softmax(z: np.ndarray) -> np.ndarray:
    """Of the columns of logits (K, N)."""
    e = np.exp(z - z.max(0))
    return e / e.sum(0)


def cross_entropy(z: np.ndarray) -> float:
    """Mean over the columns; column c is a sample of class c modulo K."""
    classes, samples = z.shape
    return float(-np.log(dense_softmax(z)[np.arange(samples) % classes, np.arange(samples)]).mean())


def descent(w: np.ndarray, h: np.ndarray, lr: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Plain gradient descent on W (K, d) and H (d, K n) with the mean cross-entropy over the K n samples."""
    classes, samples = len(w), h.shape[1]
    target = np.eye(classes)[:, np.arange(samples) % classes]
    for _ in range(steps):
        gap = (dense_softmax(w @ h) - target) / samples
        w, h = w - lr * gap @ h.T, h - lr * w.T @ gap
    return w, h


def on_diagonal(z: np.ndarray) -> np.ndarray:
    phi = hadamard(len(z))
    return np.diag(phi @ z @ phi) / len(z)


@pytest.mark.parametrize("classes", [2, 4, 16])
def test_sylvester_matrices_are_orthogonal_and_symmetric(classes):
    phi = hadamard(classes)
    assert (phi == phi.T).all()
    assert (phi @ phi == classes * np.eye(classes)).all()
    assert (phi[0] == 1).all()


@pytest.mark.parametrize("classes", [4, 8, 16])
def test_the_softmax_is_diagonal_in_the_same_basis(classes):
    s = drawn(classes)
    w, h = factors(s)
    assert w @ h == pytest.approx(logits(s), abs=1e-14)
    phi = hadamard(classes)
    expected = phi @ np.diag(diagonal_softmax(s)) @ phi / classes
    assert dense_softmax(logits(s)) == pytest.approx(expected, abs=1e-14)


def test_margins_and_excess_are_those_of_the_logits():
    s = drawn(8)
    z = logits(s)
    assert margins(s) == pytest.approx(z[0, 0] - z[1:, 0], abs=1e-14)
    assert np.log1p(np.exp(log_excess(s))) == pytest.approx(cross_entropy(z), abs=1e-14)


def test_growth_rates_and_jacobian_against_differences():
    s = drawn(8)
    z = logits(s)
    gap = np.eye(8) - dense_softmax(z)
    assert growth_rates(s) == pytest.approx(2 / 8 * on_diagonal(gap), abs=1e-14)
    assert growth_rates(s)[0] == 0
    step = 1e-6
    for j in range(8):
        moved = np.exp(step * np.eye(8)[j])
        difference = (growth_rates(s * moved) - growth_rates(s / moved)) / (2 * step)
        assert jacobian(s)[:, j] == pytest.approx(difference, abs=1e-9)


@pytest.mark.parametrize("classes", [4, 8])
def test_the_flow_is_the_limit_of_gradient_descent(classes):
    """The error of a step size halves with it, and extrapolated to 0 it is gone."""
    s, time = drawn(classes, spread=0.5), 8.0
    w, h = factors(s)
    coarse, fine = (on_diagonal(np.matmul(*descent(w, h, lr, round(time / lr)))) for lr in (8e-3, 4e-3))
    (exact,) = flow(s, [np.log1p(time)])
    assert np.linalg.norm(exact - s) > 0.1
    assert np.linalg.norm(coarse - exact) == pytest.approx(2 * np.linalg.norm(fine - exact), rel=0.02)
    assert 2 * fine - coarse == pytest.approx(exact, abs=2e-6)


def test_with_n_samples_a_class_time_is_step_size_over_root_n():
    s, n, lr, steps = drawn(4, spread=0.5), 4, 2e-3, 4000
    w, h = factors(s)
    h = np.tile(h, n) / n**0.25
    z = np.matmul(*descent(w * n**0.25, h, lr, steps))
    (exact,) = flow(s, [np.log1p(lr * steps / n**0.5)])
    assert on_diagonal(z[:, :4]) == pytest.approx(exact, rel=1e-3)
    (wrong,) = flow(s, [np.log1p(lr * steps)])
    assert np.abs(wrong / exact - 1).max() > 0.02


def test_gradient_descent_stays_diagonal_and_random_directions_turn():
    s = drawn(8, spread=0.5)
    frame = hadamard(8) / 8**0.5
    z = np.matmul(*descent(*factors(s), 0.1, 500))
    assert leakage(z, frame, frame) < 1e-14
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(8, 8)))[0] for _ in range(2))
    root = np.diag(s**0.5)
    assert leakage(left @ np.diag(s) @ right.T, left, right) < 1e-14
    z = np.matmul(*descent(left @ root, root @ right.T, 0.1, 500))
    assert leakage(z, left, right) > 0.1


@pytest.mark.parametrize("classes", [4, 8, 16])
@pytest.mark.parametrize("seed", [0, 1])
def test_lyapunov_never_falls_and_stays_below_its_bound(classes, seed):
    path = flow(0.1 * drawn(classes, seed), np.linspace(0, 20, 40))
    v = np.array([lyapunov(s) for s in path])
    assert (np.diff(v) > 0).all()
    assert v[0] < 0 < v[-1] < 1 / (classes - 1)  # from E > 1 to E < 1


def test_near_a_face_the_cosine_to_the_etf_falls_while_lyapunov_rises():
    s = drawn(8, spread=0.5)
    s[[3, 5]] = 0.01
    path = flow(s, [5, 10, 20])
    assert (np.diff([etf_cosine(s) for s in path]) < -1e-3).all()
    assert (np.diff([lyapunov(s) for s in path]) > 1e-3).all()


def test_lyapunov_reaches_its_bound_at_collapse_only():
    equal, other = np.ones(8), np.array([1, 1, 1, 1, 1, 1, 1, 0.5])
    assert lyapunov(1e6 * equal) == pytest.approx(1 / 7, abs=1e-6)
    assert lyapunov(1e6 * other) < 1 / 7 - 1e-3
    assert lyapunov(equal) == pytest.approx((1 - np.log(7)) / 7)


def test_a_face_is_invariant_and_each_of_its_points_unstable():
    s = drawn(8, spread=0.5)
    s[[3, 5]] = 0
    late = flow(s, [0, 10, 100])
    assert (late[:, [3, 5]] == 0).all()
    assert (np.diff(late[:, [1, 2, 4, 6, 7]], axis=0) > 0).all()
    assert all((growth_rates(point)[[3, 5]] > 0).all() for point in late)
    left = s.copy()
    left[[3, 5]] = 0.01
    (nearby,) = flow(left, [100])
    assert (nearby[[3, 5]] / left[[3, 5]] > 10 * nearby[1] / left[1]).all()  # they gain on the others
    assert etf_cosine(late[-1]) < 0.78 < etf_cosine(late[1])  # the face leads away from collapse
    assert etf_cosine(flow(left, [5000])[0]) > 0.98


def test_four_classes_equalise_and_the_mean_stays():
    s = np.array([0.7, 0.1, 1.0, 3.0])
    path = flow(s, [0, 5, 20, 200])
    assert (path[:, 0] == 0.7).all()
    ratios = path[:, 1:].max(1) / path[:, 1:].min(1) - 1
    assert (np.diff(ratios) < 0).all()
    assert ratios[-1] < 1e-6
    eight = flow(np.array([0.7, 0.1, 1, 3, 1, 1, 1, 1]), [20])[0, 1:]
    assert eight.max() / eight.min() - 1 > 2 * ratios[2]  # more classes are slower


def test_the_flow_reaches_times_beyond_any_float():
    (late,) = flow(np.ones(8), [5000.0])
    assert late[1:] == pytest.approx(late[1], rel=1e-6)
    assert late[1] == pytest.approx(5000, rel=0.01)  # s' = c exp(-s) s: log t with corrections of log log t


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hadamard(6), "a power of two of rows, at least 2; got 6"),
        (lambda: hadamard(1), "a power of two of rows, at least 2; got 1"),
        (lambda: logits(np.ones((2, 2))), r"\(K,\), K a power of two, at least 2; got shape \(2, 2\)"),
        (lambda: flow(np.array([1, -1.0, 1, 1]), [1]), "of at least 0, one of s_1, s_2 ... above"),
        (lambda: lyapunov(np.array([1, 0, 0, 0.0])), "of at least 0, one of s_1, s_2 ... above"),
        (lambda: flow(np.array([1, np.nan, 0, 0.0]), [1]), "finite singular values of at least 0"),
        (lambda: flow(np.ones(4), [2, 1]), "rising log times of at least 0"),
        (lambda: flow(np.ones(4), [-1.0]), "rising log times of at least 0"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(module).attempted > 3
    assert doctest.testmod(module).failed == 0
