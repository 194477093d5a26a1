"""From the numbers of n seeds to holds, fails or not enough runs.

The interval is Student's: mean ± t(n - 1, 0.975) sd / sqrt(n), with the sample standard deviation (n - 1). Of paired
runs the numbers are the differences treatment - baseline of one seed each, so that what the seed decides for both
(order of the batches, initial weights of shared layers) cancels. A two-sided 95 % interval makes each one-sided
decision below wrong at most 2.5 % of the time; nothing is corrected for the number of claims.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

HOLDS, FAILS, NOT_ENOUGH = "holds", "fails", "not enough runs"
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Kind:
    """A kind of test: its name, how one with its amounts is written, whether it compares two sides, what it needs
    besides, and its rule in words."""

    name: str
    written: str
    paired: bool
    needs: tuple[str, ...]
    rule: str


KINDS = {
    "not_lower": Kind(
        "non-inferiority",
        "non-inferiority, margin {margin:g} {unit}",
        True,
        ("margin",),
        "treatment is not lower than baseline by the margin: holds if the interval lies above -margin, fails if below",
    ),
    "higher": Kind(
        "superiority",
        "superiority, margin {margin:g} {unit}",
        True,
        ("margin",),
        "treatment is higher than baseline: holds if the interval lies above 0, fails if it lies below the margin (an "
        "advantage that would matter is excluded, also where a smaller one is certain)",
    ),
    "lower": Kind(
        "superiority downwards",
        "superiority downwards, margin {margin:g} {unit}",
        True,
        ("margin",),
        "treatment is lower than baseline: holds if the interval lies below 0, fails if it lies above -margin",
    ),
    "at_least": Kind(
        "threshold",
        "at least {threshold:g} {unit}",
        False,
        ("threshold",),
        "holds if the interval lies at or above the threshold, fails if below",
    ),
    "equals": Kind(
        "stated value",
        "stated value {threshold:g} ± {margin:g} {unit}",
        False,
        ("threshold", "margin"),
        "holds if the interval lies within the tolerance around the stated value, fails if outside",
    ),
}


@dataclass(frozen=True)
class Estimate:
    """Mean, sample standard deviation (nan of one) and 95 % interval; infinite where nothing is excluded."""

    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def d_z(self) -> float:
        """Standardised effect, mean / sd; nan with one seed or no spread."""
        return self.mean / self.sd if self.sd > 0 else math.nan


def estimate(values: list[float], deterministic: bool = False, paired: bool = False) -> Estimate:
    """The interval of at least one number.

    Equal numbers have an interval of one point. Two equal *differences* do not: accuracies on a few hundred images are
    coarse, and two pairs agree by chance often enough to make a verdict of nothing; three do not. `deterministic` says
    that the configuration alone decides the number: one seed is enough.
    """
    mean, n = float(np.mean(values)), len(values)
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    if sd <= 1e-9 * max(1.0, abs(mean)):  # rounding of percentages, not spread
        sd = 0.0
    if deterministic and not sd > 0:
        half = 0.0
    elif n < 2 or (sd == 0 and paired and n == 2):
        half = math.inf
    else:
        half = half_width(sd, n)
    return Estimate(tuple(values), mean, sd, mean - half, mean + half)


def half_width(sd: float, n: int | np.ndarray) -> float | np.ndarray:
    """t(n - 1, 0.975) sd / sqrt(n)."""
    return stdtrit(n - 1, 0.975) * sd / np.sqrt(n)


def seeds_to_decide(sd: float, distance: float) -> int | None:
    """Least n whose interval is narrower than `distance` on each side, mean and sd staying as they are; None above
    MOST_SEEDS. From two or three seeds this is an order of magnitude, no more."""
    n = np.arange(2, MOST_SEEDS + 1)
    enough = n[half_width(sd, n) < distance]
    return int(enough[0]) if len(enough) else None


def decide(kind: str, e: Estimate, margin: float = 0.0, threshold: float = 0.0) -> tuple[str, str]:
    """(verdict, its reason in words) by the rule of KINDS[kind]."""
    sign = -1.0 if kind == "lower" else 1.0
    mean, low, high = sign * e.mean, *sorted((sign * e.low, sign * e.high))
    if kind == "not_lower":
        holds, fails, distance = low > -margin, high < -margin, abs(mean + margin)
        good, bad, edge = f"above {number(-margin)}", f"below {number(-margin)}", number(-margin)
    elif kind in ("higher", "lower"):
        fails, distance = high < margin, max(mean, margin - mean)
        holds = low > 0 and not fails
        good, edge = "above 0" if sign > 0 else "below 0", f"0 or {number(sign * margin)}"
        small = "; there is one, but it is smaller" if low > 0 else ""
        bad = f"without {'an advantage' if sign > 0 else 'a drop'} of {number(margin)} or more{small}"
    elif kind == "at_least":
        holds, fails, distance = low >= threshold, high < threshold, abs(mean - threshold)
        good, bad, edge = f"at or above {number(threshold)}", f"below {number(threshold)}", number(threshold)
    else:
        first, last = threshold - margin, threshold + margin
        holds, fails = first <= low and high <= last, high < first or low > last
        distance = min(abs(mean - first), abs(mean - last))
        edge = f"{number(first)} or {number(last)}"
        good, bad = (f"{where} [{number(first)}, {number(last)}]" for where in ("within", "outside"))
    interval = "the same number with every seed," if e.low == e.high else "interval"
    if holds or fails:
        return (HOLDS, f"{interval} {good}") if holds else (FAILS, f"{interval} {bad}")
    return NOT_ENOUGH, _undecided(e, edge, distance)


def number(value: float, sign: bool = False) -> str:
    """Two decimals, no minus before zero; a dash for what is undefined or unbounded."""
    if not math.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0.0:{'+' if sign else ''}.2f}"


def _undecided(e: Estimate, edge: str, distance: float) -> str:
    if e.n < 2:
        return "one seed has no interval; at least two are needed"
    if e.sd == 0:
        return "two equal differences may be chance; a third seed decides"
    needed = seeds_to_decide(e.sd, distance)
    about = f"about {needed} seeds would decide" if needed else f"more than {MOST_SEEDS} seeds would be needed"
    return f"interval contains {edge}; {about}, mean and spread as they are"
