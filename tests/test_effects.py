"""The lines at which a verdict turns, in the picture of a claim."""

import pytest
from fake_runs import claim

from nclab.analysis.effects import decisive, guides
from nclab.analysis.judgement import Judgement
from nclab.analysis.verdict import HOLDS


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("not_lower", [-0.5, 0.0]),
        ("higher", [0.0, 0.5]),
        ("lower", [-0.5, 0.0]),
        ("equivalent", [-0.5, 0.0, 0.5]),
        ("at_least", [2.0]),
        ("every_seed_at_most", [2.0]),
        ("equals", [1.5, 2.5]),
    ],
)
def test_what_decides_a_kind(kind, values):
    assert decisive(claim(kind, threshold=2.0), 0.5) == values


def test_a_margin_of_one_setting_stands_beside_that_setting():
    one = claim("higher", margin=None)
    same, other = (Judgement(one, {}, HOLDS, "", margin=margin) for margin in (0.5, 0.2))
    whole, whole_of_three = (-1.45, 0.75), (-2.45, 0.75)
    assert guides(one, [same, same]) == [(0.0, whole), (0.5, whole)]
    assert guides(one, [same, other, same]) == [
        (0.0, whole_of_three),
        (0.5, (-0.3, 0.3)),
        (0.2, (-1.3, -0.7)),
        (0.5, (-2.3, -1.7)),
    ]
