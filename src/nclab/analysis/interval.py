"""Mean and 95 % interval of the numbers of n seeds: Student's, with a spread that several settings may share.

The interval is mean ± t(df, 0.975) s / sqrt(n). Of one setting s is the sample standard deviation and df = n - 1. Of
several settings of one claim s is moderated, see `moderation`. Of paired runs the numbers are the differences
treatment - baseline of one seed each, so that what the seed decides for both (order of the batches, initial weights of
shared layers) cancels.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from nclab.analysis.moderation import Prior

MOST_SEEDS = 1000
LEAST_EQUAL = 5  # equal numbers that are no chance where nothing is known of their resolution


@dataclass(frozen=True)
class Estimate:
    """Mean, sample standard deviation (nan of one) and 95 % interval; infinite where nothing is excluded.

    `se` is the standard error behind the interval, `df` its degrees of freedom. `floor` is the standard deviation that
    rounding alone makes; the interval is no narrower than it allows.
    """

    values: tuple[float, ...]
    mean: float
    sd: float
    se: float
    df: float
    floor: float = 0.0

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def low(self) -> float:
        return self.mean - self._half

    @property
    def high(self) -> float:
        return self.mean + self._half

    @property
    def _half(self) -> float:
        return float(stdtrit(self.df, 0.975) * self.se) if 0 < self.se < math.inf else self.se

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def greatest(self) -> float:
        return max(self.values)

    @property
    def d_z(self) -> float:
        """Standardised effect, mean / sd; nan with one seed or no spread."""
        return self.mean / self.sd if self.sd > 0 else math.nan

    def p_above(self, bound: float) -> float:
        """p-value of the one-sided test of 'the mean is at most `bound`': small where it is above."""
        return self._p(self.mean - bound)

    def p_below(self, bound: float) -> float:
        """p-value of the one-sided test of 'the mean is at least `bound`': small where it is below."""
        return self._p(bound - self.mean)

    def _p(self, distance: float) -> float:
        if self.se == math.inf:
            return 1.0
        if self.se == 0:
            return 0.0 if distance >= 0 else 1.0
        return float(stdtr(self.df, -distance / self.se))


def estimate(
    values: list[float],
    floor: float | None = None,
    deterministic: bool = False,
    prior: Prior | None = None,
    scale: float | None = None,
) -> Estimate:
    """The interval of at least one number.

    Accuracies on a few hundred images are coarse: pairs agree by chance often enough for Student's interval, which
    knows no rounding, to shrink to a point. The standard deviation is therefore taken to be at least `floor`, what
    rounding alone makes (`rounding_sd`). That makes the interval of equal differences, in steps of one image, ±3.7 with
    two seeds, ±1.0 with three and ±0.5 with five; numbers that are not all equal are rarely touched by it (the least
    standard deviation of n differences in whole steps is 1 / sqrt(n), above the floor of 0.41 up to n = 5).

    Args:
        values: One a seed.
        floor: What rounding makes of the standard deviation, in the unit of the numbers. Where the resolution is not
            known (None), equal numbers are believed from LEAST_EQUAL on and exclude nothing before.
        deterministic: The configuration alone decides the number: one seed is enough.
        prior: What the other settings of the claim say of the spread; without it the interval is Student's.
        scale: How large the numbers behind the values are, see `spread`.
    """
    mean, n = float(np.mean(values)), len(values)
    sd = spread(values, scale)
    if deterministic and not sd > 0:
        se, df = 0.0, math.inf
    elif n < 2 or (sd == 0 and floor is None and n < LEAST_EQUAL):
        se, df = math.inf, 0.0
    else:
        used, df = max(sd, floor or 0.0), n - 1
        if prior and used > 0:
            used, df = map(float, prior.moderated(used, df))
        se = used / math.sqrt(n)
    return Estimate(tuple(values), mean, sd, se, df, floor or 0.0)


def spread(values: list[float], scale: float | None = None) -> float:
    """Sample standard deviation (n - 1), nan of one number; 0 where it is only rounding, a billionth of `scale`: how
    large the numbers are whose differences `values` are, by default they themselves."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return 0.0 if sd <= 1e-9 * (max(map(abs, values)) if scale is None else scale) else sd


def rounding_sd(images: int, paired: bool) -> float:
    """Standard deviation in points that rounding to whole images gives an accuracy, or the difference of two."""
    return 100.0 / (images * math.sqrt(6 if paired else 12))


def seeds_to_decide(e: Estimate, distance: float) -> int | None:
    """Least n whose interval is narrower than `distance` on each side, mean and spread staying as they are; None above
    MOST_SEEDS. From two or three seeds this is an order of magnitude, no more."""
    n = np.arange(2, MOST_SEEDS + 1)
    lent = max(e.df - (e.n - 1), 0.0)  # degrees of freedom that other settings lend
    enough = n[stdtrit(n - 1 + lent, 0.975) * e.se * math.sqrt(e.n) / np.sqrt(n) < distance]
    return int(enough[0]) if len(enough) else None
