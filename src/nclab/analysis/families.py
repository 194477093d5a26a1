"""Verdicts that stand when a whole family of claims is judged at once: Holm's procedure beside the raw verdicts.

Of twenty claims that are all wrong, each judged with an error of 2.5 %, one holds by chance in four cases out of ten.
Holm (1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 65-70) keeps
the chance of even one at 2.5 % within the family, whatever the claims have to do with one another: with the p-values in
order, p_(1) <= ... <= p_(m), the adjusted one is max over j <= i of min(1, (m - j + 1) p_(j)).

A family is what a claim's key `family` says. Its tests that claims hold are one set, its tests that they fail another.
What has no p-value is in neither: claims about every seed, arithmetic, settings without runs.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nclab.analysis.judgement import Judgement
from nclab.analysis.verdict import FAILS, HOLDS, NOT_ENOUGH, SMALLER

LEVEL = 0.025  # of a one-sided test, as of each bound of a 95 % interval


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def adjust(judgements: list[Judgement]) -> list[Judgement]:
    """The judgements with `adjusted`, the verdict that Holm leaves of each, and `p_adjusted` behind it."""
    found = list(judgements)
    for family in dict.fromkeys(judgement.claim.family for judgement in judgements):
        rows = [i for i, one in enumerate(judgements) if one.claim.family == family and not one.arithmetic]
        for name, verdicts in (("p_holds", (HOLDS,)), ("p_fails", (FAILS, SMALLER))):
            tested = [i for i in rows if not math.isnan(getattr(judgements[i], name))]
            adjusted = holm([getattr(judgements[i], name) for i in tested])
            for i, p in zip(tested, adjusted, strict=True):
                if judgements[i].verdict in verdicts:
                    verdict = judgements[i].verdict if p <= LEVEL else NOT_ENOUGH
                    found[i] = replace(judgements[i], adjusted=verdict, p_adjusted=p)
    return [replace(one, adjusted=one.verdict) if not one.adjusted else one for one in found]
