"""Slopes in log-log: against numpy, against a power law, and which seeds have none."""

import math

import numpy as np
import pytest
from fake_depth_runs import DEPTHS
from scipy import stats

from nclab.analysis.trend import line, trend, why_undefined


def power(a, s, depths=DEPTHS):
    return {depth: a * depth**s for depth in depths}


@pytest.mark.fast
@pytest.mark.parametrize(("a", "s"), [(1.2, -1 / 3), (0.5, 0.0), (1e-6, 2.0)])
def test_a_power_law_has_its_exponent(a, s):
    slope, intercept = line(power(a, s))
    assert slope == pytest.approx(s, abs=1e-12)
    assert intercept == pytest.approx(math.log10(a))


def test_slopes_are_numpys():
    rng = np.random.default_rng(0)
    points = {depth: float(rng.lognormal()) for depth in DEPTHS}
    fitted = np.polyfit(np.log10([*points]), np.log10([*points.values()]), 1)
    np.testing.assert_allclose(line(points), fitted)


def test_the_interval_is_students_over_seeds():
    rng = np.random.default_rng(1)
    values = {seed: {d: d**-0.3 * 10 ** rng.normal(0, 0.05) for d in DEPTHS} for seed in range(5)}
    fitted = trend(values)
    slopes = [np.polyfit(np.log10([*p]), np.log10([*p.values()]), 1)[0] for p in values.values()]
    interval = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    e = fitted.estimate
    assert (e.mean, e.sd, e.low, e.high) == pytest.approx(
        (np.mean(slopes), np.std(slopes, ddof=1), interval.low, interval.high)
    )
    # All seeds have all depths: the mean line is the line of the mean logarithms.
    logs = np.mean([np.log10([*points.values()]) for points in values.values()], axis=0)
    np.testing.assert_allclose((e.mean, fitted.intercept), np.polyfit(np.log10(DEPTHS), logs, 1))


def test_seeds_without_a_slope_are_named_with_the_reason():
    fitted = trend(
        {
            0: power(1, -0.5),
            1: power(1, -0.5) | {13: math.nan},
            2: power(1, -0.5) | {5: 0.0, 8: -1.0},
            3: power(1, -0.5, DEPTHS[:-1]),  # three depths and more, but another range
            4: power(1, -0.5) | {34: math.inf},
            5: power(2, -0.5),
        }
    )
    assert [*fitted.slopes] == [0, 5]
    assert fitted.undefined == {
        "undefined at 13": [1],
        "not positive at 5, 8": [2],
        "no number at 34": [3],
        "undefined at 34": [4],
    }
    assert fitted.seeds == 6
    assert fitted.intercept == pytest.approx(math.log10(2) / 2)


def test_two_depths_are_no_slope():
    fitted = trend({0: power(1, -1, (2, 5)), 1: power(1, -1, (2, 5))})
    assert fitted.estimate is None
    assert math.isnan(fitted.intercept)
    assert fitted.undefined == {"a slope takes at least 3 depths, there are 2": [0, 1]}
    assert why_undefined({2: 1.0}, [2]) == "a slope takes at least 3 depths, there is 1"
    assert why_undefined(power(1, -1, (2, 5, 8)), (2, 5, 8)) == ""
