"""Critical points of one layer on free features, and the curvature there."""

import math

import numpy as np
import pytest
import torch
from torch.func import jacrev
from torch.nn.functional import cross_entropy

from nclab.theory.critical_points import grouped
from nclab.theory.curvature import gradient_norm, hessian_product, least_eigenvalue
from nclab.theory.one_layer import cross_entropy_optimum

CLASSES, PER_CLASS, DIM, WEIGHT, FEATURES, BIAS = 4, 2, 5, 0.02, 0.01, 0.01
LABELS = torch.arange(CLASSES).repeat_interleave(PER_CLASS)


def objective(p):
    penalty = WEIGHT * p["w"].square().sum() + FEATURES * p["h"].square().sum() + BIAS * p["b"].square().sum()
    return cross_entropy(p["h"] @ p["w"].T + p["b"], LABELS) + penalty / 2


def point(groups, random=None):
    w, h = grouped(CLASSES, groups, PER_CLASS, DIM, WEIGHT, FEATURES, random)
    return {"w": torch.from_numpy(w), "h": torch.from_numpy(h), "b": torch.zeros(CLASSES, dtype=torch.float64)}


def anywhere(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(part.shape, generator=generator, dtype=torch.float64) for name, part in point(1).items()}


def dense(at):
    """The whole Hessian (P, P) by torch.func.jacrev."""
    blocks = jacrev(jacrev(objective))(at)
    rows = [torch.cat([blocks[a][b].reshape(at[a].numel(), -1) for b in at], 1) for a in at]
    return torch.cat(rows)


def test_products_are_those_of_the_dense_hessian():
    at, along = anywhere(0), anywhere(1)
    flat = torch.cat([part.flatten() for part in along.values()])
    found = hessian_product(objective, at, along)
    torch.testing.assert_close(torch.cat([part.flatten() for part in found.values()]), dense(at) @ flat)


@pytest.mark.parametrize("most_dense", [0, 600])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_least_eigenvalue_is_that_of_the_dense_hessian(seed, most_dense):
    at = anywhere(seed)
    assert least_eigenvalue(objective, at, most_dense) == pytest.approx(
        torch.linalg.eigvalsh(dense(at))[0].item(), abs=1e-8
    )


def test_few_numbers_are_no_matter_for_lanczos():
    curvatures = torch.tensor([2.0, -1.0, 3.0], dtype=torch.float64)
    at = {"x": torch.zeros(3, dtype=torch.float64)}
    assert least_eigenvalue(lambda p: (curvatures * p["x"] ** 2).sum() / 2, at) == pytest.approx(-1)


@pytest.mark.parametrize("random", [None, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_gradient_is_zero_and_the_rank_is_one_less_than_the_groups(groups, random):
    at = point(groups, None if random is None else np.random.default_rng(random))
    assert gradient_norm(objective, at) < 1e-14
    assert gradient_norm(objective, anywhere(0)) > 1e-2
    assert np.linalg.matrix_rank((at["w"] @ at["h"].T).numpy(), tol=1e-8) == groups - 1


def test_all_groups_are_the_global_minimum_and_fewer_are_strict_saddles():
    optimum = cross_entropy_optimum(CLASSES, PER_CLASS, WEIGHT, FEATURES)
    assert float(objective(point(4))) == pytest.approx(optimum.objective, abs=1e-14)
    assert abs(least_eigenvalue(objective, point(4))) < 1e-9
    assert (
        abs(least_eigenvalue(objective, point(4), most_dense=0)) < 1e-7
    )  # 0: turning W and H together changes nothing
    for groups in (1, 2):
        assert float(objective(point(groups))) > optimum.objective + 1e-2
        assert least_eigenvalue(objective, point(groups)) < -1e-3


def test_random_points_differ_and_have_the_same_objective():
    one, two = (point(2, np.random.default_rng(seed)) for seed in (0, 1))
    assert (one["w"] - two["w"]).abs().max() > 0.01
    assert float(objective(one)) == pytest.approx(float(objective(two)), abs=1e-14)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((4, 3, 2, 5, 0.1, 0.1), r"groups: expected a number that divides 4 \(1, 2, 4\), got 3"),
        ((4, 0, 2, 5, 0.1, 0.1), r"groups: expected a number that divides 4"),
        ((4, 4, 2, 2, 0.1, 0.1), r"dim: expected at least 3, one less than groups; got 2"),
        ((4, 2, 2, 5, 1.0, 1.0), r"expected classes \* sqrt\(per_class \* weight \* features\) below 1, got 5.65685"),
    ],
)
def test_points_that_cannot_be_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        grouped(*arguments)


def test_curvature_takes_float64():
    with pytest.raises(TypeError, match=r"expected float64 parameters, got x is torch\.float32"):
        least_eigenvalue(lambda p: p["x"].sum(), {"x": torch.zeros(3)})
    assert math.isfinite(least_eigenvalue(lambda p: (p["x"] ** 2).sum(), {"x": torch.zeros(3, dtype=torch.float64)}))
