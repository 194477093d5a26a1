"""Collapsed, low-rank and strongly regular solutions of deep free features, against explicit matrices and descent."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from nclab.theory.deep import collapsed, low_rank, regular_graph, some_in_pairs
from nclab.theory.one_layer import cross_entropy_optimum, squared_error_optimum
from nclab.theory.regular_graph import classes_of, incidence, matrices, nuclear_norm


def value(matrices, per_class, decay, loss, relu):
    """The objective of [H (d, N), W_1, ..., W_L] as it stands, torch or numpy; a column a sample."""
    h, *weights = (torch.as_tensor(m) for m in matrices)
    classes = len(weights[-1])
    labels = torch.arange(classes).repeat_interleave(per_class)
    x = h
    for i, weight in enumerate(weights):
        x = weight @ x
        if relu and i < len(weights) - 1:
            x = x.relu()
    if loss == "cross_entropy":
        fit = cross_entropy(x.T, labels)
    else:
        fit = (x.T - torch.eye(classes, dtype=x.dtype)[labels]).square().sum(1).mean() / 2
    return fit + decay / 2 * sum(m.square().sum() for m in (h, *weights))


def descended(start, per_class, decay, loss, relu):
    """The objective where L-BFGS in float64 ends that begins at `start`."""
    shapes = [m.shape for m in start]
    sizes = [m.size for m in start]

    def objective(x):
        x = torch.tensor(x, requires_grad=True)
        parts = [part.view(shape) for part, shape in zip(x.split(sizes), shapes, strict=True)]
        found = value(parts, per_class, decay, loss, relu)
        found.backward()
        return found.item(), x.grad.numpy()

    flat = np.concatenate([m.ravel() for m in start])
    options = {"ftol": 1e-16, "gtol": 1e-10, "maxiter": 5000, "maxfun": 5000}
    return minimize(objective, flat, jac=True, method="L-BFGS-B", options=options).fun


def balanced(logits, depth):
    """[H, W_1, ..., W_L] with this product and the singular values of all matrices equal."""
    left, singular, right = np.linalg.svd(logits, full_matrices=False)
    share = singular ** (1 / (depth + 1))
    return [share[:, None] * right, *[np.diag(share)] * (depth - 1), left * share]


CLASSES, PER_CLASS = 4, 3
ETF = np.eye(CLASSES) - 1 / CLASSES
PAIRS = np.kron(np.eye(CLASSES // 2), [[1, -1], [-1, 1]])


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize(
    ("family", "shape", "loss"),
    [
        (lambda d: collapsed(CLASSES, PER_CLASS, d), ETF, "cross_entropy"),
        (lambda d: collapsed(CLASSES, PER_CLASS, d, "mse"), np.eye(CLASSES), "mse"),
        (lambda d: collapsed(CLASSES, PER_CLASS, d, "mse", relu=True), np.eye(CLASSES), "mse"),
        (lambda d: low_rank(CLASSES, PER_CLASS, d), PAIRS, "cross_entropy"),
    ],
)
def test_a_family_has_the_objective_of_its_matrices(family, shape, loss, depth):
    decay, scale = 0.003, 1.7
    made = balanced(scale * shape.repeat(PER_CLASS, 1), depth)
    of_family = family(depth)
    assert float(value(made, PER_CLASS, decay, loss, relu=False)) == pytest.approx(of_family.objective(scale, decay))
    least = of_family.least(decay)
    assert least.objective == pytest.approx(of_family.objective(least.scale, decay))
    # At its least it is a critical point of all matrices: descent from there, noise-free, gains nothing.
    made = balanced(least.scale * shape.repeat(PER_CLASS, 1), depth)
    assert descended(made, PER_CLASS, decay, loss, relu=False) == pytest.approx(least.objective, abs=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_collapse_through_relu(loss):
    depth, decay = 3, 0.002
    least = collapsed(CLASSES, PER_CLASS, depth, loss, relu=True).least(decay)
    assert least.scale > 0
    last = ETF if loss == "cross_entropy" else np.eye(CLASSES)
    shapes = [np.eye(CLASSES).repeat(PER_CLASS, 1), *[np.eye(CLASSES)] * (depth - 1), last]
    norms = [np.linalg.norm(shape) for shape in shapes]
    each = (least.scale * math.prod(norms)) ** (1 / (depth + 1))
    made = [each / norm * shape for shape, norm in zip(shapes, norms, strict=True)]
    assert float(value(made, PER_CLASS, decay, loss, relu=True)) == pytest.approx(least.objective)
    rough = [m + 0.01 * np.random.default_rng(i).normal(size=m.shape) for i, m in enumerate(made)]
    assert float(value(rough, PER_CLASS, decay, loss, relu=True)) > least.objective + 1e-4


def test_one_layer_is_the_convex_optimum():
    for decay in (0.003, 0.05, 0.2):
        least = collapsed(CLASSES, PER_CLASS, 1).least(decay)
        assert least.objective == pytest.approx(cross_entropy_optimum(CLASSES, PER_CLASS, decay, decay).objective)
        assert collapsed(CLASSES, PER_CLASS, 1, relu=True).least(decay) == least
        squared = collapsed(CLASSES, PER_CLASS, 1, "mse").least(decay)
        assert squared.objective == pytest.approx(squared_error_optimum(CLASSES, PER_CLASS, decay, decay).objective)


def test_the_squared_error_of_linear_layers_is_least_at_collapse_or_below_it_at_fewer_directions():
    depth, decay = 2, 0.004
    least = collapsed(CLASSES, PER_CLASS, depth, "mse").least(decay)
    random = np.random.default_rng(0)
    for _ in range(4):
        start = [
            random.normal(size=(6, CLASSES * PER_CLASS)),
            random.normal(size=(6, 6)),
            random.normal(size=(CLASSES, 6)),
        ]
        assert descended(start, PER_CLASS, decay, "mse", relu=False) >= least.objective - 1e-9


def test_a_large_decay_leaves_nothing():
    for family in (collapsed(6, 2, 3), low_rank(6, 2, 3), regular_graph(4, 2, 3)):
        least = family.least(1.0)
        assert (least.scale, least.objective) == (0.0, family.loss(0.0))
        assert family.least(1e-3).objective < family.loss(0.0)


@pytest.mark.parametrize(
    ("classes", "depth", "wins"),
    [(4, 3, True), (6, 2, True), (10, 2, True), (10, 1, False), (4, 2, False), (4, 1, False)],
)
def test_where_the_low_rank_solution_is_below_collapse(classes, depth, wins):
    for decay in (1e-4, 1e-5):
        lower = low_rank(classes, 5, depth).least(decay).objective < collapsed(classes, 5, depth).least(decay).objective
        assert lower == wins


def test_descent_from_the_low_rank_solution_stays_below_collapse():
    classes, per_class, depth, decay = 10, 1, 2, 2.0**-9
    least = low_rank(classes, per_class, depth).least(decay)
    made = balanced(least.scale * np.kron(np.eye(classes // 2), [[1, -1], [-1, 1]]), depth)
    assert descended(made, per_class, decay, "cross_entropy", relu=False) <= least.objective + 1e-12
    assert least.objective < collapsed(classes, per_class, depth).least(decay).objective


@pytest.mark.parametrize(("pairs", "depth"), [(1, 2), (2, 2), (1, 3)])
def test_some_classes_in_pairs_are_a_critical_point_of_all_matrices(pairs, depth):
    classes, per_class, decay = 6, 2, 2.0**-9
    rest = classes - 2 * pairs
    logits = np.zeros((classes, classes))
    logits[: 2 * pairs, : 2 * pairs] = 6 * np.kron(np.eye(pairs), [[1, -1], [-1, 1]])
    logits[2 * pairs :, 2 * pairs :] = 6 * (np.eye(rest) - 1 / rest)
    made = balanced(logits.repeat(per_class, 1), depth)
    made = [np.where(abs(m) < 1e-12, 0, m) for m in made]  # what rounding adds would grow
    found = some_in_pairs(classes, per_class, depth, pairs, decay)
    assert found == pytest.approx(descended(made, per_class, decay, "cross_entropy", relu=False), abs=1e-9)


def test_the_more_pairs_the_lower():
    levels = [some_in_pairs(10, 5, 2, m, 2.0**-9) for m in range(5)]
    assert levels[0] == pytest.approx(collapsed(10, 5, 2).least(2.0**-9).objective, abs=1e-12)
    assert levels == sorted(levels, reverse=True)
    assert levels[4] == pytest.approx(low_rank(10, 5, 2).least(2.0**-9).objective, abs=1e-9)  # two left are a pair
    assert some_in_pairs(10, 5, 2, 1, 10.0) == math.log(10)


def test_incidence_of_the_complete_graph():
    b = incidence(5)
    assert b.shape == (5, 10)
    np.testing.assert_array_equal(b.sum(0), 2)
    np.testing.assert_array_equal(b @ b.T, 3 * np.eye(5) + 1)
    assert nuclear_norm(5) == pytest.approx(np.linalg.norm(b, "nuc"))
    assert classes_of(5) == 10


@pytest.mark.parametrize("depth", [3, 4, 5])
@pytest.mark.parametrize("vertices", [4, 5])
def test_the_regular_graph_has_the_objective_of_its_matrices(vertices, depth):
    per_class, decay, scale = 2, 0.004, 0.8
    made = matrices(vertices, per_class, depth, scale)
    x = made[0]
    for i, weight in enumerate(made[1:-1], 1):
        x = weight @ x
        # Before each ReLU; the rows 1_e - 1/2 of the last one sum to zero for r = 4.
        assert np.linalg.matrix_rank(x) == vertices - (vertices == 4 and i == depth - 1)
        if i < depth - 1:
            assert x.min() > -1e-12
        x = np.maximum(x, 0)
    assert np.linalg.matrix_rank(x) == classes_of(vertices)
    np.testing.assert_allclose(made[-1] @ x, scale * np.eye(classes_of(vertices)).repeat(per_class, 1), atol=1e-12)
    family = regular_graph(vertices, per_class, depth)
    assert float(value(made, per_class, decay, "mse", relu=True)) == pytest.approx(family.objective(scale, decay))


def test_the_scalars_of_the_regular_graph_are_the_best():
    vertices, per_class, depth, decay = 4, 1, 4, 0.002
    family = regular_graph(vertices, per_class, depth)
    least = family.least(decay)
    shapes = matrices(vertices, per_class, depth, 1.0)

    def objective(logs):
        return float(value([math.exp(t) * m for t, m in zip(logs, shapes, strict=True)], per_class, decay, "mse", True))

    for start in (np.zeros(5), np.array([0.3, -0.2, 0.1, 0.2, -0.1])):
        direct = minimize(
            objective, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 9999}
        )
        assert least.objective == pytest.approx(direct.fun, abs=1e-10)


def test_the_regular_graph_through_cross_entropy():
    vertices, per_class, depth, decay, scale = 4, 2, 4, 0.001, 3.0
    made = matrices(vertices, per_class, depth, scale)
    classes = classes_of(vertices)
    made[-1] = made[-1] @ (np.eye(classes) - 1 / classes)
    norms = [np.linalg.norm(m) for m in made]
    mean = math.prod(norms) ** (1 / len(norms))
    made = [mean / norm * m for m, norm in zip(made, norms, strict=True)]
    family = regular_graph(vertices, per_class, depth, "cross_entropy")
    assert float(value(made, per_class, decay, "cross_entropy", True)) == pytest.approx(family.objective(scale, decay))


@pytest.mark.parametrize("decay", [1e-3, 1e-4, 1e-5])
def test_from_which_size_on_the_regular_graph_is_below_collapse(decay):
    def ratio(vertices, depth):
        collapse = collapsed(classes_of(vertices), 1, depth, "mse", relu=True).least(decay).objective
        return regular_graph(vertices, 1, depth).least(decay).objective / collapse

    assert all(ratio(r, 3) > 1 for r in range(3, 8))
    assert all(ratio(r, depth) < 1 for depth in (4, 5) for r in range(4, 8))
    assert ratio(3, 4) > 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: collapsed(1, 1, 2), "classes: expected at least 2, got 1"),
        (lambda: collapsed(3, 0, 2), "per_class: expected at least 1, got 0"),
        (lambda: collapsed(3, 1, 0), "depth: expected at least 1, got 0"),
        (lambda: collapsed(3, 1, 2, "hinge"), "loss: expected one of cross_entropy, mse; got 'hinge'"),
        (lambda: low_rank(5, 1, 2), "classes: expected an even number, which makes pairs; got 5"),
        (lambda: some_in_pairs(6, 1, 2, 3, 0.1), "pairs: expected 0 to 2 of 6 classes, got 3"),
        (lambda: some_in_pairs(6, 1, 2, 1, 0.0), "decay: expected above 0 and finite, got 0"),
        (lambda: regular_graph(2, 1, 4), "vertices: expected at least 3, got 2"),
        (lambda: regular_graph(4, 1, 2), "depth: expected at least 3, got 2"),
        (lambda: matrices(4, 1, 2, 1.0), "depth: expected at least 3, got 2"),
        (lambda: matrices(4, 1, 3, 0.0), "scale: expected above 0, got 0"),
        (lambda: collapsed(3, 1, 2).least(0.0), "decay: expected above 0 and finite, got 0"),
    ],
)
def test_arguments_are_checked(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("decay", [1e-3, 1e-6, 1e-9, 1e-12])
def test_a_small_decay_leaves_the_fit_alone(decay):
    family = collapsed(6, 2, 4, "mse", relu=True)
    least = family.least(decay)
    assert least.objective <= family.objective(1.0, decay) * (1 + 1e-9)
    assert least.objective == pytest.approx(decay / 2 * 5 * family.rho ** (1 / 5), rel=30 * decay + 1e-9)
    assert 1 - least.scale < 30 * decay + 1e-9
