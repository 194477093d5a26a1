"""One definition of effective depth, for metrics, for the rule of etf=adaptive, and for claims without torch."""

import doctest
import math
import random
from types import SimpleNamespace

import pytest

from nclab import metrics
from nclab.etf.depth_rule import DepthRule
from nclab.interfaces import effective_depth as module
from nclab.interfaces.effective_depth import effective_depth, effective_depth_first


def slow_depth(ncc, least):
    """By the words of the definition: the first point such that it and all after it reach `least`."""
    good = [i for i in range(1, len(ncc) + 1) if all(a >= least for a in ncc[i - 1 :])]
    return min(good, default=math.inf)


def test_it_is_the_first_point_from_which_on_all_are_separated():
    rng = random.Random(0)
    seen = set()
    for _ in range(500):
        ncc = [round(rng.uniform(0.7, 1), 2) for _ in range(rng.randint(1, 6))]
        eps = rng.choice([0.0, 0.05, 0.1, 0.2])
        depth = effective_depth(ncc, eps)
        assert (math.inf if math.isnan(depth) else depth) == slow_depth(ncc, 1 - eps)
        seen.add(depth if math.isfinite(depth) else None)
    assert {None, 1.0, 2.0, 3.0} <= seen
    assert metrics.effective_depth is effective_depth
    assert metrics.effective_depth_first is effective_depth_first


def test_a_relative_tolerance_is_a_share_of_the_accuracy():
    assert effective_depth([0.6, 0.75], 0.1, accuracy=0.8) == 2.0
    assert math.isnan(effective_depth([0.6, 0.75], 0.1))
    assert math.isnan(effective_depth([0.9, float("nan")], 0.1, accuracy=0.5))


def test_more_tolerance_is_never_more_depth():
    depths = [effective_depth([0.8, 0.97, 0.95, 0.99], eps) for eps in (0.001, 0.01, 0.05, 0.1, 0.2)]
    assert [None if math.isnan(d) else d for d in depths] == [None, 4, 2, 2, 1]


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("patience", [1, 3])
def test_the_rule_of_adaptive_is_the_same_depth_held_for_patience_epochs(relative, patience):
    """Against the definition: the greatest depth of the last `patience` epochs, at tolerance 1 - threshold."""
    rng = random.Random(patience)
    settings = SimpleNamespace(
        threshold=0.9, relative=relative, patience=patience, start=None, pause=1, order="at_once"
    )
    decided = set()
    for _ in range(60):
        rule, depths = DepthRule(settings), []
        for epoch in range(1, 9):
            accuracy = rng.choice([1.0, 0.95])
            ncc = {f"fc{i}": rng.choice([0.5, 0.89, 0.95, 0.99, 0.99, 0.99]) for i in range(1, 6)}
            depths.append(slow_depth(list(ncc.values()), 0.9 * (accuracy if relative else 1.0)))
            held = max(depths[-patience:]) if epoch >= patience else math.inf
            expected = [stage for place, stage in enumerate(ncc, 1) if place > held]
            assert rule.choose(ncc, accuracy, epoch, lambda stage: [stage]) == expected
            decided.add(len(expected))
    assert {0, 1} <= decided
    assert max(decided) >= 3 or patience > 1


def test_an_example_is_right():
    assert doctest.testmod(module).attempted
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("samples", [7, 200, 1000, 60_000])
def test_an_error_of_exactly_eps_is_separated_and_one_more_is_not(samples):
    for wrong in range(0, samples, max(1, samples // 1000)):
        eps = wrong / samples
        for accuracy, expected in (((samples - wrong) / samples, 1.0), ((samples - wrong - 1) / samples, math.nan)):
            for found in (effective_depth([accuracy], eps), effective_depth_first([accuracy], eps)):
                assert found == expected or (math.isnan(found) and math.isnan(expected)), (wrong, accuracy)
