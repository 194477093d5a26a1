"""From the numbers of n seeds to holds, fails or not enough runs.

The interval is Student's: mean ± t(n - 1, 0.975) sd / sqrt(n), with the sample standard deviation (n - 1). Of paired
runs the numbers are the differences treatment - baseline of one seed each, so that what the seed decides for both
(order of the batches, initial weights of shared layers) cancels.

How often a verdict by an interval errs: at most 2.5 % for each bound, if the numbers of seeds are normally distributed
and the number of seeds was not chosen by looking at the verdict. A few seeds cannot show the first; nothing is
corrected for the number of claims. The seeds are those of training: every run is tested on the same split, so that
nothing is said about other test images. Claims about every seed (counts of layers, bounds that a run meets or misses)
have no interval and no such rate: n of n seeds is what was seen.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

HOLDS, FAILS, NOT_ENOUGH = "holds", "fails", "not enough runs"
MOST_SEEDS = 1000
LEAST_EVERY = 3  # seeds of a claim about every seed
LEAST_EQUAL = 5  # equal numbers that are no chance where nothing is known of their resolution


@dataclass(frozen=True)
class Kind:
    """A kind of test: its name, how one with its amounts is written, whether it compares two sides, what it needs
    besides, its rule in words, and whether it judges by an interval of the mean."""

    name: str
    written: str
    paired: bool
    needs: tuple[str, ...]
    rule: str
    interval: bool = True


KINDS = {
    "not_lower": Kind(
        "non-inferiority",
        "non-inferiority, margin {margin:g} {unit}",
        True,
        ("margin",),
        "treatment is not lower than baseline by the margin: holds if the interval lies above minus the margin, fails "
        "if below",
    ),
    "higher": Kind(
        "superiority",
        "superiority, margin {margin:g} {unit}",
        True,
        ("margin",),
        "treatment is higher than baseline by an amount that matters: holds if the interval lies above 0 and the mean "
        "reaches the margin, fails if the interval lies below the margin (also where a smaller advantage is certain)",
    ),
    "lower": Kind(
        "superiority downwards",
        "superiority downwards, margin {margin:g} {unit}",
        True,
        ("margin",),
        "treatment is lower than baseline by an amount that matters: holds if the interval lies below 0 and the mean "
        "reaches minus the margin, fails if the interval lies above that",
    ),
    "at_least": Kind(
        "threshold",
        "at least {threshold:g} {unit}",
        False,
        ("threshold",),
        "holds if the interval lies at or above the threshold, fails if below",
    ),
    "at_most": Kind(
        "upper threshold",
        "at most {threshold:g} {unit}",
        False,
        ("threshold",),
        "holds if the interval lies at or below the threshold, fails if above",
    ),
    "equals": Kind(
        "stated value",
        "stated value {threshold:g} ± {margin:g} {unit}",
        False,
        ("threshold", "margin"),
        "holds if the interval lies within the tolerance around the stated value, fails if outside",
    ),
    "every_seed_at_least": Kind(
        "every seed, at least",
        "every seed at least {threshold:g} {unit}",
        False,
        ("threshold",),
        f"holds if every one of at least {LEAST_EVERY} seeds reaches the threshold, fails if none of at least "
        f"{LEAST_EVERY} does; least and greatest number are shown in place of an interval",
        interval=False,
    ),
    "every_seed_at_most": Kind(
        "every seed, at most",
        "every seed at most {threshold:g} {unit}",
        False,
        ("threshold",),
        f"holds if every one of at least {LEAST_EVERY} seeds stays within the threshold, fails if none of at least "
        f"{LEAST_EVERY} does; least and greatest number are shown in place of an interval",
        interval=False,
    ),
}


@dataclass(frozen=True)
class Estimate:
    """Mean, sample standard deviation (nan of one) and 95 % interval; infinite where nothing is excluded.

    `floor` is the standard deviation that rounding alone makes; the interval is no narrower than it allows.
    """

    values: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    floor: float = 0.0

    @property
    def n(self) -> int:
        return len(self.values)

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


def estimate(values: list[float], floor: float | None = None, deterministic: bool = False) -> Estimate:
    """The interval of at least one number.

    Accuracies on a few hundred images are coarse: pairs agree by chance often enough for Student's interval, which
    knows no rounding, to shrink to a point. The standard deviation is therefore taken to be at least `floor`, what
    rounding alone makes (`rounding_sd`). That makes the interval of equal differences, in steps of one image, ±3.7 with
    two seeds, ±1.0 with three and ±0.5 with five; numbers that are not all equal are rarely touched by it (the least
    standard deviation of n differences in whole steps is 1 / sqrt(n), above the floor of 0.41 up to n = 5).

    Where the resolution is not known (None), equal numbers are believed from LEAST_EQUAL on and exclude nothing before.
    `deterministic` says that the configuration alone decides the number: one seed is enough.
    """
    mean, n = float(np.mean(values)), len(values)
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    if sd <= 1e-9 * max(1.0, abs(mean)):  # rounding of percentages, not spread
        sd = 0.0
    if deterministic and not sd > 0:
        half = 0.0
    elif n < 2 or (sd == 0 and floor is None and n < LEAST_EQUAL):
        half = math.inf
    else:
        half = half_width(max(sd, floor or 0.0), n)
    return Estimate(tuple(values), mean, sd, mean - half, mean + half, floor or 0.0)


def rounding_sd(images: int, paired: bool) -> float:
    """Standard deviation in points that rounding to whole images gives an accuracy, or the difference of two."""
    return 100.0 / (images * math.sqrt(6 if paired else 12))


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
    if not KINDS[kind].interval:
        return _every(kind, e, threshold)
    sign = -1.0 if kind == "lower" else 1.0
    mean, low, high = sign * e.mean, *sorted((sign * e.low, sign * e.high))
    short = ""
    if kind == "not_lower":
        holds, fails, distance = low > -margin, high < -margin, abs(mean + margin)
        good, bad, edge = f"above {number(-margin)}", f"below {number(-margin)}", number(-margin)
    elif kind in ("higher", "lower"):
        reached = mean >= margin - 1e-9
        holds, fails, distance = low > 0 and reached, high < margin, mean if reached else margin - mean
        edge = "0" if reached else number(sign * margin)
        good = f"{'above' if sign > 0 else 'below'} 0, mean {number(e.mean, True)}"
        short = "" if reached or low <= 0 else f"an effect, but its mean does not reach {number(sign * margin)}; "
        small = "; there is one, but it is smaller" if low > 0 else ""
        bad = f"without {'an advantage' if sign > 0 else 'a drop'} of {number(margin)} or more{small}"
    elif kind == "at_least":
        holds, fails, distance = low >= threshold, high < threshold, abs(mean - threshold)
        good, bad, edge = f"at or above {number(threshold)}", f"below {number(threshold)}", number(threshold)
    elif kind == "at_most":
        holds, fails, distance = high <= threshold, low > threshold, abs(mean - threshold)
        good, bad, edge = f"at or below {number(threshold)}", f"above {number(threshold)}", number(threshold)
    else:
        first, last = threshold - margin, threshold + margin
        holds, fails = first <= low and high <= last, high < first or low > last
        distance = min(abs(mean - first), abs(mean - last))
        edge = f"{number(first)} or {number(last)}"
        good, bad = (f"{where} [{number(first)}, {number(last)}]" for where in ("within", "outside"))
    interval = "the same number with every seed," if e.low == e.high else "interval"
    if holds or fails:
        return (HOLDS, f"{interval} {good}") if holds else (FAILS, f"{interval} {bad}")
    return NOT_ENOUGH, short + _undecided(e, edge, distance)


def number(value: float, sign: bool = False) -> str:
    """Two decimals, no minus before zero; a dash for what is undefined or unbounded."""
    if not math.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0.0:{'+' if sign else ''}.2f}"


def _every(kind: str, e: Estimate, threshold: float) -> tuple[str, str]:
    """Numbers that miss the threshold by rounding alone meet it."""
    at_most = kind == "every_seed_at_most"
    met = sum(value <= threshold + 1e-9 if at_most else value >= threshold - 1e-9 for value in e.values)
    bound = f"{'at most' if at_most else 'at least'} {number(threshold)}"
    if e.n < LEAST_EVERY:
        return NOT_ENOUGH, f"{met} of {e.n} seeds {bound}; {LEAST_EVERY} seeds are the least that decide"
    if met in (0, e.n):
        return (HOLDS, f"all {e.n} seeds {bound}") if met else (FAILS, f"none of {e.n} seeds {bound}")
    return NOT_ENOUGH, f"{met} of {e.n} seeds {bound}: neither all nor none"


def _undecided(e: Estimate, edge: str, distance: float) -> str:
    if e.n < 2:
        return "one seed has no interval; at least two are needed"
    if not math.isfinite(e.low):
        return f"{e.n} equal numbers may be chance, their resolution is not known; {LEAST_EQUAL} would decide"
    needed = seeds_to_decide(max(e.sd, e.floor), distance)
    about = f"about {needed} seeds would decide" if needed else f"more than {MOST_SEEDS} seeds would be needed"
    return f"interval contains {edge}; {about}, mean and spread as they are"
