"""From numbers to verdicts: intervals against scipy, every branch of every rule."""

import math

import pytest
from scipy import stats

from nclab.analysis.verdict import FAILS, HOLDS, KINDS, NOT_ENOUGH, decide, estimate, number, seeds_to_decide


@pytest.mark.parametrize("n", [2, 3, 8])
def test_intervals_are_scipys(n):
    one = [88.1, 87.2, 89.9, 88.8, 88.0, 87.7, 90.2, 88.5][:n]
    two = [88.4, 87.9, 89.1, 88.6, 88.9, 87.0, 90.0, 88.1][:n]
    e = estimate([a - b for a, b in zip(one, two, strict=True)], paired=True)
    interval = stats.ttest_rel(one, two).confidence_interval(0.95)
    assert (e.low, e.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    single = estimate(one)
    interval = stats.ttest_1samp(one, 0).confidence_interval(0.95)
    assert (single.low, single.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_an_effect_is_in_units_of_its_spread():
    e = estimate([1.0, 2.0, 3.0])
    assert (e.mean, e.sd, e.d_z, e.n) == (2.0, 1.0, 2.0, 3)
    assert math.isnan(estimate([1.0]).d_z)
    assert math.isnan(estimate([1.0, 1.0]).d_z)


def test_equal_numbers_are_a_point_but_two_equal_differences_are_not():
    assert (estimate([3.0, 3.0]).low, estimate([3.0, 3.0]).high) == (3.0, 3.0)
    assert estimate([0.5, 0.5], paired=True).low == -math.inf
    assert estimate([0.1 + 0.2, 0.3, 0.3], paired=True).low == pytest.approx(0.3)  # rounding is no spread
    assert estimate([3.0]).high == math.inf
    assert estimate([3.0], deterministic=True).high == 3.0
    assert estimate([3.0, 4.0], deterministic=True).high > 4.0  # what the ledger says does not override the numbers


def test_the_number_of_seeds_is_the_first_whose_interval_is_narrow_enough():
    sd, distance = 0.4, 0.25
    n = seeds_to_decide(sd, distance)
    assert stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) < distance
    assert stats.t.ppf(0.975, n - 2) * sd / math.sqrt(n - 1) >= distance
    assert seeds_to_decide(1.0, 0.0) is None


@pytest.mark.parametrize(
    ("kind", "values", "verdict", "reason"),
    [
        ("not_lower", [-0.3, -0.2, -0.25], HOLDS, "interval above -0.50"),
        ("not_lower", [-0.9, -1.0, -1.1], FAILS, "interval below -0.50"),
        ("not_lower", [-0.9, 0.3, 0.0], NOT_ENOUGH, "interval contains -0.50; about 20 seeds would decide"),
        ("not_lower", [-0.5 - 1e-7, 1.0, -1.0, -1.5], NOT_ENOUGH, "more than 1000 seeds would be needed"),
        ("not_lower", [0.1], NOT_ENOUGH, "one seed has no interval"),
        ("not_lower", [0.1, 0.1], NOT_ENOUGH, "two equal differences may be chance"),
        ("not_lower", [0.1, 0.1, 0.1], HOLDS, "the same number with every seed, above -0.50"),
        ("higher", [0.9, 1.0, 1.1], HOLDS, "interval above 0"),
        ("higher", [0.1, -0.1, 0.05], FAILS, "without an advantage of 0.50 or more"),
        ("higher", [0.2, 0.21, 0.19], FAILS, "there is one, but it is smaller"),
        ("higher", [0.9, -0.4, 0.6], NOT_ENOUGH, "contains 0 or 0.50"),
        ("lower", [-0.9, -1.0, -1.1], HOLDS, "interval below 0"),
        ("lower", [0.1, -0.1, 0.05], FAILS, "without a drop of 0.50 or more"),
        ("lower", [-0.2, -0.21, -0.19], FAILS, "there is one, but it is smaller"),
        ("lower", [-0.9, 0.4, -0.6], NOT_ENOUGH, "contains 0 or -0.50"),
        ("at_least", [2.0, 2.1, 1.9], HOLDS, "at or above 1.00"),
        ("at_least", [1.0, 1.0], HOLDS, "at or above 1.00"),
        ("at_least", [0.0, 0.1, 0.2], FAILS, "below 1.00"),
        ("at_least", [0.0, 1.0, 2.0], NOT_ENOUGH, "contains 1.00"),
        ("equals", [1.2, 1.25, 1.2], HOLDS, "within [0.50, 1.50]"),
        ("equals", [1.7, 1.75, 1.7], FAILS, "outside [0.50, 1.50]"),
        ("equals", [0.1, 0.05, 0.1], FAILS, "outside [0.50, 1.50]"),
        ("equals", [1.4, 1.6], NOT_ENOUGH, "contains 0.50 or 1.50"),
    ],
)
def test_every_branch_of_every_rule(kind, values, verdict, reason):
    found, why = decide(kind, estimate(values, paired=KINDS[kind].paired), margin=0.5, threshold=1.0)
    assert found == verdict
    assert reason in why


def test_an_estimate_of_seeds_is_one_that_decides():
    e = estimate([-0.9, 0.3, 0.0], paired=True)
    assert e.mean - stats.t.ppf(0.975, 19) * e.sd / math.sqrt(20) > -0.5  # see the first NOT_ENOUGH above


def test_numbers_for_people():
    assert [number(-0.001), number(1.005, sign=True), number(-2.0), number(math.inf)] == ["0.00", "+1.00", "-2.00", "–"]
