"""From numbers to verdicts: every branch of every rule, and the p-values behind them."""

import math

import pytest
from scipy import stats

from nclab.analysis.interval import estimate
from nclab.analysis.verdict import CEILING, FAILS, HOLDS, KINDS, NOT_ENOUGH, SMALLER, decide, number


@pytest.mark.parametrize(
    ("kind", "values", "verdict", "reason"),
    [
        ("not_lower", [-0.3, -0.2, -0.25], HOLDS, "the interval lies above -0.50: a loss of the margin is excluded"),
        ("not_lower", [-0.9, -1.0, -1.1], FAILS, "the interval lies below -0.50: the loss is larger"),
        ("not_lower", [-0.9, 0.3, 0.0], NOT_ENOUGH, "interval contains -0.50; about 20 seeds would decide"),
        ("not_lower", [-0.5 - 1e-7, 1.0, -1.0, -1.5], NOT_ENOUGH, "more than 1000 seeds would be needed"),
        ("not_lower", [0.1], NOT_ENOUGH, "one seed has no interval"),
        ("not_lower", [0.1] * 4, NOT_ENOUGH, "4 equal numbers may be chance"),
        ("not_lower", [0.1] * 5, HOLDS, "the same number with every seed lies above -0.50"),
        (
            "higher",
            [0.9, 1.0, 1.1],
            HOLDS,
            "lies above 0: the treatment is higher; the observed mean, +1.00, reaches 0.50",
        ),
        (
            "higher",
            [0.3, 0.5, 0.4],
            NOT_ENOUGH,
            "the observed mean does not reach 0.50; the interval contains 0.50; about 7 seeds",
        ),
        ("higher", [0.4, 0.5, 0.6], HOLDS, "the observed mean, +0.50, reaches 0.50"),
        ("higher", [0.1, -0.1, 0.05], FAILS, "lies below 0.50: an advantage of the margin is excluded"),
        (
            "higher",
            [0.2, 0.21, 0.19],
            SMALLER,
            "lies between 0 and 0.50: there is an advantage, smaller than the margin",
        ),
        ("higher", [-0.2, -0.21, -0.19], FAILS, "lies below 0: the treatment is lower"),
        ("higher", [0.9, 0.1, 0.6], NOT_ENOUGH, "interval contains 0; about"),
        ("higher", [0.9, -0.4, 0.6], NOT_ENOUGH, "interval contains 0.50; about"),
        (
            "lower",
            [-0.9, -1.0, -1.1],
            HOLDS,
            "lies below 0: the treatment is lower; the observed mean, -1.00, reaches -0.50",
        ),
        (
            "lower",
            [-0.3, -0.5, -0.4],
            NOT_ENOUGH,
            "there is a drop, but the observed mean does not reach -0.50; the interval contains -0.50",
        ),
        ("lower", [0.1, -0.1, 0.05], FAILS, "lies above -0.50: a drop of the margin is excluded"),
        ("lower", [-0.2, -0.21, -0.19], SMALLER, "lies between -0.50 and 0: there is a drop, smaller than the margin"),
        ("lower", [0.2, 0.21, 0.19], FAILS, "lies above 0: the treatment is higher"),
        ("equivalent", [0.1, 0.2, 0.15], HOLDS, "lies within [-0.50, 0.50]"),
        ("equivalent", [0.8, 0.9, 0.85], FAILS, "lies outside [-0.50, 0.50]"),
        ("equivalent", [-0.8, -0.9, -0.85], FAILS, "lies outside"),
        ("equivalent", [0.45, 0.55], NOT_ENOUGH, "contains -0.50 or 0.50"),
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
        ("every_seed_at_least", [0.0, 0.9, 0.5], FAILS, "3 of 3 seeds miss it: not at least 1.00"),
        ("every_seed_at_least", [2.0] * 9 + [0.0], FAILS, "1 of 10 seeds misses it: not at least 1.00"),
        ("every_seed_at_least", [2.0, 2.0], NOT_ENOUGH, "2 of 2 seeds at least 1.00; 3 seeds are the least"),
        ("every_seed_at_least", [0.0], NOT_ENOUGH, "0 of 1 seeds"),
        ("every_seed_at_most", [1.0, 0.0, 0.2], HOLDS, "all 3 seeds at most 1.00"),
        ("every_seed_at_most", [1.1, 2.0, 3.0], FAILS, "3 of 3 seeds miss it: not at most 1.00"),
        ("every_seed_at_most", [1.1, 1.0, 3.0], FAILS, "2 of 3 seeds miss it: not at most 1.00"),
        ("every_seed_at_most", [0.0, 2.0], NOT_ENOUGH, "1 of 2 seeds at most 1.00; 3 seeds are the least"),
    ],
)
def test_every_branch_of_every_rule(kind, values, verdict, reason):
    found = decide(kind, estimate(values), margin=0.5, threshold=1.0)
    assert found.verdict == verdict
    assert reason in found.reason


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        ("not_lower", [-0.9, 0.3, 0.0], "the interval contains -0.50; "),
        ("equivalent", [0.1, 1.4, 0.3], "the interval contains -0.50 or 0.50; "),
        ("at_least", [0.0, 1.2, 2.1], "the interval contains 1.00; "),
        (
            "higher",
            [0.3, 0.5, 0.4],
            "there is an advantage, but the observed mean does not reach 0.50; the interval contains 0.50; ",
        ),
        ("not_lower", [0.1] * 4, "4 equal numbers may be chance, their resolution is not known; "),
    ],
)
def test_no_more_seeds_are_asked_for_where_all_that_are_stated_were_used(kind, values, reason):
    e = estimate(values)
    asked, done = (decide(kind, e, margin=0.5, threshold=1.0, stated=stated) for stated in (None, len(values)))
    assert asked.reason.startswith(reason)
    assert "would decide" in asked.reason
    assert done.reason == f"{reason}undecided with the stated {len(values)} seeds"
    assert (done.verdict, done.p_holds, done.p_fails) == pytest.approx(
        (NOT_ENOUGH, asked.p_holds, asked.p_fails), nan_ok=True
    )


@pytest.mark.parametrize("kind", ["higher", "lower"])
def test_the_margin_of_an_advantage_is_said_to_be_no_test(kind):
    """An effect of 0.9 of the margin holds in a third of cases: the words must not promise an amount."""
    assert "which is the test" in KINDS[kind].rule
    assert "an extra bar and no test" in KINDS[kind].rule
    assert "matters" not in KINDS[kind].rule


@pytest.mark.parametrize(
    ("values", "room", "verdict", "reason"),
    [
        ([0.05, 0.06, 0.04], 0.1, CEILING, "leaves 0.10 below 100, less than the margin of 0.50: no run can show"),
        ([0.05, -0.06, 0.04], 0.1, CEILING, "leaves 0.10"),
        ([0.05], 0.0, CEILING, "leaves 0 below 100"),  # one seed says as much
        ([-0.2, -0.21, -0.19], 0.1, FAILS, "the treatment is lower"),
        ([0.2, 0.21, 0.19], 0.5, SMALLER, "smaller than the margin"),
        ([0.5, 0.5, 0.5 - 1e-12, 0.5, 0.5], 0.5, HOLDS, "reaches"),
    ],
)
def test_a_baseline_without_room_is_a_ceiling(values, room, verdict, reason):
    found = decide("higher", estimate(values), margin=0.5, room=room)
    assert (found.verdict, reason in found.reason) == (verdict, True), found
    for kind in ("not_lower", "lower", "equivalent"):
        assert decide(kind, estimate(values), margin=0.5, room=room).verdict != CEILING


@pytest.mark.parametrize(
    ("kind", "threshold", "values", "verdict"),
    [
        ("at_most", -0.1, [-0.05, -0.06, -0.04], SMALLER),
        ("at_most", -0.1, [-0.01, 0.02, 0.0], FAILS),
        ("at_most", -0.1, [0.05, 0.06, 0.04], FAILS),
        ("at_least", 0.1, [0.05, 0.06, 0.04], SMALLER),
        ("at_least", 0.1, [-0.05, -0.06, -0.04], FAILS),
        ("at_least", -0.1, [-0.15, -0.16, -0.14], FAILS),  # it claims no effect
    ],
)
def test_a_slope_in_the_direction_of_a_claim_that_is_too_flat(kind, threshold, values, verdict):
    found = decide(kind, estimate(values), threshold=threshold, nothing=0.0)
    assert (found.verdict, "smaller than claimed" in found.reason) == (verdict, verdict == SMALLER), found
    assert decide(kind, estimate(values), threshold=threshold).verdict in (FAILS, NOT_ENOUGH)


@pytest.mark.parametrize(
    "values", [[-0.3, -0.2, -0.25], [0.9, 0.1, 0.6], [-0.6, -0.4, -0.7, -0.9], [0.8, 0.7, 1.0], [0.1, -0.2]]
)
def test_p_values_are_scipys(values):
    def p(bound, alternative):
        return stats.ttest_1samp(values, bound, alternative=alternative).pvalue

    e = estimate(values)
    less, more = p(-0.5, "less"), p(0.5, "greater")
    expected = {
        "not_lower": (p(-0.5, "greater"), less),
        "higher": (p(0, "greater"), p(0.5, "less")),
        "lower": (p(0, "less"), p(-0.5, "greater")),
        "at_least": (p(1, "greater"), p(1, "less")),
        "at_most": (p(1, "less"), p(1, "greater")),
        "equivalent": (max(p(-0.5, "greater"), p(0.5, "less")), min(less, more)),
    }
    for kind, pair in expected.items():
        found = decide(kind, e, margin=0.5, threshold=1.0)
        assert (found.p_holds, found.p_fails) == pytest.approx(pair, abs=1e-12), kind
        # an interval excludes a bound where its one-sided test is below 2.5 %
        assert (found.verdict in (FAILS, SMALLER)) == (found.p_fails < 0.025), kind
        if kind in ("not_lower", "at_least", "at_most", "equivalent"):
            assert (found.verdict == HOLDS) == (found.p_holds < 0.025), kind


def test_where_nothing_is_tested_there_is_no_p_value():
    for found in (
        decide("not_lower", estimate([0.1]), margin=0.5),
        decide("not_lower", estimate([0.1] * 4), margin=0.5),
        decide("higher", estimate([0.1]), margin=0.5, room=0.1),  # a ceiling all the same
        decide("every_seed_at_least", estimate([1.0, 2.0, 3.0]), threshold=1.0),
    ):
        assert math.isnan(found.p_holds)
        assert math.isnan(found.p_fails)


def test_an_estimate_of_seeds_is_one_that_decides():
    e = estimate([-0.9, 0.3, 0.0])
    assert e.mean - stats.t.ppf(0.975, 19) * e.sd / math.sqrt(20) > -0.5  # see the first NOT_ENOUGH above


def test_numbers_for_people():
    assert [number(-0.001), number(1.005, sign=True), number(-2.0), number(math.inf)] == ["0.00", "+1.00", "-2.00", "–"]


@pytest.mark.parametrize(("kind", "numbers"), [("every_seed_at_most", 1.9e-9), ("every_seed_at_least", 0.1e-9)])
def test_a_bound_of_a_billionth_is_missed_by_its_half(kind, numbers):
    e = estimate([numbers] * 3)
    assert decide(kind, e, threshold=1e-9).verdict == FAILS
    assert decide(kind, estimate([1e-9 * (1 + 1e-12), 1e-9 * (1 - 1e-12), 1e-9]), threshold=1e-9).verdict == HOLDS
    assert decide(kind, estimate([0.1 + 0.2, 0.3, 0.3]), threshold=0.3).verdict == HOLDS
