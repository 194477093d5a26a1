"""Holm's procedure by hand, and what it leaves of verdicts within a family."""

import math

import pytest
from fake_runs import claim

from nclab.analysis.families import adjust, holm
from nclab.analysis.judgement import Judgement
from nclab.analysis.verdict import CEILING, FAILS, HOLDS, NOT_ENOUGH, SMALLER


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x .005, 3 x .01, 2 x .03, then no less than that
        ([0.04], [0.04]),
        ([0.5, 0.6, 0.9], [1.0, 1.0, 1.0]),
        ([0.01, 0.01], [0.02, 0.02]),
        ([], []),
    ],
)
def test_holm_by_hand(p, adjusted):
    assert holm(p) == pytest.approx(adjusted)


def judgement(verdict, p_holds=math.nan, p_fails=math.nan, family="one"):
    return Judgement(claim(family=family), {}, verdict, "", p_holds=p_holds, p_fails=p_fails)


def test_a_verdict_that_the_family_does_not_bear_is_undone():
    rows = [judgement(HOLDS, 0.005, 0.9), judgement(HOLDS, 0.02, 0.9), judgement(NOT_ENOUGH, 0.3, 0.3)]
    one, two, three = adjust(rows)
    assert (one.adjusted, one.p_adjusted) == (HOLDS, pytest.approx(0.015))
    assert (two.adjusted, two.p_adjusted) == (NOT_ENOUGH, pytest.approx(0.04))
    assert (three.adjusted, math.isnan(three.p_adjusted)) == (NOT_ENOUGH, True)
    assert [row.verdict for row in (one, two, three)] == [HOLDS, HOLDS, NOT_ENOUGH]  # the raw one stands beside


def test_families_and_directions_do_not_meet():
    rows = [
        judgement(HOLDS, 0.02, 0.9),
        judgement(HOLDS, 0.02, 0.9, family="other"),
        judgement(FAILS, 0.9, 0.02, family="third"),
        judgement(SMALLER, 0.001, 0.011, family="third"),
    ]
    assert [one.adjusted for one in adjust(rows)] == [HOLDS, HOLDS, FAILS, SMALLER]
    assert [one.p_adjusted for one in adjust(rows)] == pytest.approx([0.02, 0.02, 0.022, 0.022])
    crowded = [*rows, judgement(NOT_ENOUGH, 0.9, 0.5, family="third")]
    assert [one.adjusted for one in adjust(crowded)[2:]] == [NOT_ENOUGH, NOT_ENOUGH, NOT_ENOUGH]


def test_what_is_not_tested_is_in_no_family():
    rows = [judgement(HOLDS, 0.02, 0.9), judgement(HOLDS), judgement(CEILING), judgement(NOT_ENOUGH)]
    assert [one.adjusted for one in adjust(rows)] == [HOLDS, HOLDS, CEILING, NOT_ENOUGH]
