"""From numbers to verdicts: intervals against scipy, every branch of every rule."""

import math

import numpy as np
import pytest
from scipy import stats

from nclab.analysis.verdict import (
    FAILS,
    HOLDS,
    NOT_ENOUGH,
    decide,
    estimate,
    number,
    rounding_sd,
    seeds_to_decide,
)


@pytest.mark.fast
@pytest.mark.parametrize("n", [2, 3, 8])
def test_intervals_are_scipys(n):
    one = [88.1, 87.2, 89.9, 88.8, 88.0, 87.7, 90.2, 88.5][:n]
    two = [88.4, 87.9, 89.1, 88.6, 88.9, 87.0, 90.0, 88.1][:n]
    e = estimate([a - b for a, b in zip(one, two, strict=True)])
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


def test_equal_numbers_of_unknown_resolution_exclude_nothing_until_five():
    assert estimate([3.0] * 4).low == -math.inf
    assert (estimate([3.0] * 5).low, estimate([3.0] * 5).high) == (3.0, 3.0)
    assert estimate([0.1 + 0.2, *[0.3] * 4]).low == pytest.approx(0.3)  # rounding is no spread
    assert estimate([3.0]).high == math.inf
    assert estimate([3.0], deterministic=True).high == 3.0
    assert estimate([3.0, 4.0], deterministic=True).high > 4.0  # what the ledger says does not override the numbers


@pytest.mark.parametrize(("n", "images"), [(2, 3.7), (3, 1.01), (5, 0.51)])
def test_equal_accuracies_are_known_to_a_few_images_at_best(n, images):
    e = estimate([0.5] * n, rounding_sd(360, paired=True))
    assert (e.high - e.mean) * 360 / 100 == pytest.approx(images, rel=0.02)
    assert e.sd == 0
    assert estimate([0.5, 0.9], rounding_sd(360, paired=True)).high == estimate([0.5, 0.9]).high  # the spread is wider


def test_the_floor_is_the_spread_of_rounding():
    images, rng = 50, np.random.default_rng(0)
    exact = rng.uniform(0.2, 0.8, (2, 100_000))
    error = 100 * (np.round(exact * images) / images - exact)
    assert rounding_sd(images, paired=False) == pytest.approx(error[0].std(), rel=0.01)
    assert rounding_sd(images, paired=True) == pytest.approx((error[0] - error[1]).std(), rel=0.01)


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
        ("not_lower", [0.1] * 4, NOT_ENOUGH, "4 equal numbers may be chance"),
        ("not_lower", [0.1] * 5, HOLDS, "the same number with every seed, above -0.50"),
        ("higher", [0.9, 1.0, 1.1], HOLDS, "interval above 0, mean +1.00"),
        ("higher", [0.3, 0.5, 0.4], NOT_ENOUGH, "does not reach 0.50; interval contains 0.50; about 7 seeds"),
        ("higher", [0.4, 0.5, 0.6], HOLDS, "interval above 0, mean +0.50"),
        ("higher", [0.1, -0.1, 0.05], FAILS, "without an advantage of 0.50 or more"),
        ("higher", [0.2, 0.21, 0.19], FAILS, "there is one, but it is smaller"),
        ("higher", [0.9, 0.1, 0.6], NOT_ENOUGH, "interval contains 0; about"),
        ("higher", [0.9, -0.4, 0.6], NOT_ENOUGH, "interval contains 0.50; about"),
        ("lower", [-0.9, -1.0, -1.1], HOLDS, "interval below 0, mean -1.00"),
        ("lower", [-0.3, -0.5, -0.4], NOT_ENOUGH, "does not reach -0.50; interval contains -0.50"),
        ("lower", [0.1, -0.1, 0.05], FAILS, "without a drop of 0.50 or more"),
        ("lower", [-0.2, -0.21, -0.19], FAILS, "there is one, but it is smaller"),
        ("lower", [-0.9, 0.4, -0.6], NOT_ENOUGH, "contains -0.50"),
        ("at_least", [2.0, 2.1, 1.9], HOLDS, "at or above 1.00"),
        ("at_least", [1.0] * 5, HOLDS, "at or above 1.00"),
        ("at_least", [1.0, 1.0], NOT_ENOUGH, "2 equal numbers may be chance"),
        ("at_least", [0.0, 0.1, 0.2], FAILS, "below 1.00"),
        ("at_least", [0.0, 1.0, 2.0], NOT_ENOUGH, "contains 1.00"),
        ("at_most", [0.0, 0.1, 0.2], HOLDS, "at or below 1.00"),
        ("at_most", [1.0] * 5, HOLDS, "at or below 1.00"),
        ("at_most", [2.0, 2.1, 1.9], FAILS, "above 1.00"),
        ("at_most", [0.0, 1.0, 2.0], NOT_ENOUGH, "contains 1.00"),
        ("at_most", [-9.0], NOT_ENOUGH, "one seed has no interval"),
        ("equals", [1.2, 1.25, 1.2], HOLDS, "within [0.50, 1.50]"),
        ("equals", [1.7, 1.75, 1.7], FAILS, "outside [0.50, 1.50]"),
        ("equals", [0.1, 0.05, 0.1], FAILS, "outside [0.50, 1.50]"),
        ("equals", [1.4, 1.6], NOT_ENOUGH, "contains 0.50 or 1.50"),
        ("every_seed_at_least", [1.0, 2.0, 3.0], HOLDS, "all 3 seeds at least 1.00"),
        ("every_seed_at_least", [1.0 - 1e-12, 1.0, 1.0], HOLDS, "all 3 seeds"),  # rounding of percentages
        ("every_seed_at_least", [0.0, 0.9, 0.5], FAILS, "none of 3 seeds at least 1.00"),
        ("every_seed_at_least", [2.0] * 9 + [0.0], NOT_ENOUGH, "9 of 10 seeds at least 1.00: neither all nor none"),
        ("every_seed_at_least", [2.0, 2.0], NOT_ENOUGH, "2 of 2 seeds at least 1.00; 3 seeds are the least"),
        ("every_seed_at_least", [0.0], NOT_ENOUGH, "0 of 1 seeds"),
        ("every_seed_at_most", [1.0, 0.0, 0.2], HOLDS, "all 3 seeds at most 1.00"),
        ("every_seed_at_most", [1.1, 2.0, 3.0], FAILS, "none of 3 seeds at most 1.00"),
        ("every_seed_at_most", [1.1, 1.0, 3.0], NOT_ENOUGH, "1 of 3 seeds at most 1.00"),
    ],
)
def test_every_branch_of_every_rule(kind, values, verdict, reason):
    found, why = decide(kind, estimate(values), margin=0.5, threshold=1.0)
    assert found == verdict
    assert reason in why


def test_an_estimate_of_seeds_is_one_that_decides():
    e = estimate([-0.9, 0.3, 0.0])
    assert e.mean - stats.t.ppf(0.975, 19) * e.sd / math.sqrt(20) > -0.5  # see the first NOT_ENOUGH above


def test_numbers_for_people():
    assert [number(-0.001), number(1.005, sign=True), number(-2.0), number(math.inf)] == ["0.00", "+1.00", "-2.00", "–"]
