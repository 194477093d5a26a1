"""Intervals: against scipy, of equal numbers, of coarse accuracies, with a shared spread."""

import math

import numpy as np
import pytest
from scipy import stats

from nclab.analysis.interval import estimate, rounding_sd, seeds_to_decide
from nclab.analysis.moderation import Prior


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
    e, distance = estimate([-0.4, 0.0, 0.4]), 0.25
    sd, n = e.sd, seeds_to_decide(e, distance)
    assert stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) < distance
    assert stats.t.ppf(0.975, n - 2) * sd / math.sqrt(n - 1) >= distance
    assert seeds_to_decide(e, 0.0) is None


def test_a_shared_spread_narrows_the_interval_of_few_seeds():
    values, prior = [-0.3, 0.1, 0.5], Prior(sd=0.2, df=0.8, total=6.0)
    e = estimate(values, prior=prior)
    s, df = math.sqrt((0.8 * 0.2**2 + 2 * 0.4**2) / (0.8 + 2)), 2.8**2 / (2 + 0.8 * 4.8 / 6)
    assert (e.sd, e.se, e.df) == pytest.approx((0.4, s / math.sqrt(3), df))
    assert e.high - e.mean == pytest.approx(stats.t.ppf(0.975, df) * s / math.sqrt(3))
    assert e.p_above(-0.2) == pytest.approx(stats.t.sf(0.3 / e.se, df))
    assert e.high < estimate(values).high
    assert seeds_to_decide(e, 0.3) < seeds_to_decide(estimate(values), 0.3)


def test_no_prior_makes_one_seed_or_arithmetic_another_number():
    prior = Prior(sd=0.2, df=0.8, total=6.0)
    assert estimate([3.0], prior=prior).high == math.inf
    assert estimate([3.0] * 2, prior=prior).high == math.inf
    assert estimate([3.0] * 5, prior=prior).high == 3.0
    assert estimate([3.0], deterministic=True, prior=prior).high == 3.0


def test_small_numbers_have_a_spread_of_their_own():
    """Of NC1 at 1e-15 the differences count; of 88 percent 1e-14 is the rounding of a difference."""
    assert estimate([1e-15, 2e-15, 3e-15]).sd == pytest.approx(1e-15)
    assert estimate([1e-14, -1e-14, 0.0], scale=88.0).sd == 0
    assert estimate([1e-14, -1e-14, 0.0]).sd == pytest.approx(1e-14)
    assert estimate([1e12, 1e12 + 1, 1e12 + 2]).sd == 0
