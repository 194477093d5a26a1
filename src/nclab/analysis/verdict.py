"""From the numbers of n seeds to a verdict, with its reason in one sentence.

holds                    the interval excludes what speaks against the claim; of an advantage or a drop (higher, lower)
                         that is 0, and the observed mean has to reach the margin besides, which is no test
fails                    the interval excludes what the claim says
smaller than the margin  there is an effect in the direction of the claim, and the interval lies short of the margin
ceiling                  the baseline leaves no room for an advantage of the margin, so that none can be seen
not enough runs          anything else

How often a bound of an interval errs: 2.5 % where the settings of a claim have equal spreads, up to about 7 % in the
noisiest of settings with unequal ones, if the numbers of seeds are normally distributed and the number of seeds was not
chosen by looking at the verdict (docs/statistics.md shows by simulation what else costs). Whether they are normally
distributed cannot be seen from a few seeds. The bar of the mean has no such rate: at a true effect of 0.9 of the margin
"holds" comes out in a quarter to a third of cases. The seeds are those of training: every run is tested on the same
split, so that nothing is said about other test images. Claims about every seed (counts of layers, bounds that a run
meets or misses) have no interval and no such rate: one seed that misses refutes them, and n of n seeds is what was
seen.
"""

import math
from dataclasses import dataclass, replace

from nclab.analysis.interval import LEAST_EQUAL, MOST_SEEDS, Estimate, seeds_to_decide

HOLDS, FAILS, SMALLER, CEILING, NOT_ENOUGH = VERDICTS = (
    "holds",
    "fails",
    "smaller than the margin",
    "ceiling",
    "not enough runs",
)
LEAST_EVERY = 3  # seeds of a claim about every seed


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
        "non-inferiority, margin {margin}",
        True,
        ("margin",),
        "treatment is not lower than baseline by the margin: holds if the interval lies above minus the margin, fails "
        "if below",
    ),
    "higher": Kind(
        "superiority",
        "superiority, margin {margin}",
        True,
        ("margin",),
        "treatment is higher than baseline: holds if the interval lies above 0, which is the test, and the observed "
        "mean reaches the margin, an extra bar and no test; fails if the interval lies below the margin; if it lies "
        "between 0 and the margin, the advantage is smaller than the margin; if the baseline is nearer to 100 % than "
        "the margin, it is a ceiling",
    ),
    "lower": Kind(
        "superiority downwards",
        "superiority downwards, margin {margin}",
        True,
        ("margin",),
        "treatment is lower than baseline: holds if the interval lies below 0, which is the test, and the observed "
        "mean reaches minus the margin, an extra bar and no test; fails if the interval lies above that; if it lies "
        "between that and 0, the drop is smaller than the margin",
    ),
    "equivalent": Kind(
        "equivalence",
        "equivalence, margin {margin}",
        True,
        ("margin",),
        "treatment differs from baseline by less than the margin either way: holds if the interval lies between minus "
        "the margin and the margin, fails if it lies outside. These are two one-sided tests (TOST), each at 2.5 % like "
        "every other bound here, hence the 95 % interval; at the usual 5 % it would be the 90 % interval",
    ),
    "at_least": Kind(
        "threshold",
        "at least {threshold}",
        False,
        ("threshold",),
        "holds if the interval lies at or above the threshold, fails if below",
    ),
    "at_most": Kind(
        "upper threshold",
        "at most {threshold}",
        False,
        ("threshold",),
        "holds if the interval lies at or below the threshold, fails if above",
    ),
    "equals": Kind(
        "stated value",
        "stated value {threshold} ± {margin}",
        False,
        ("threshold", "margin"),
        "holds if the interval lies within the tolerance around the stated value, fails if outside",
    ),
    "every_seed_at_least": Kind(
        "every seed, at least",
        "every seed at least {threshold}",
        False,
        ("threshold",),
        f"holds if every one of at least {LEAST_EVERY} seeds reaches the threshold, fails if one of them misses it; "
        "least and greatest number are shown in place of an interval",
        interval=False,
    ),
    "every_seed_at_most": Kind(
        "every seed, at most",
        "every seed at most {threshold}",
        False,
        ("threshold",),
        f"holds if every one of at least {LEAST_EVERY} seeds stays within the threshold, fails if one of them misses "
        "it; least and greatest number are shown in place of an interval",
        interval=False,
    ),
}


@dataclass(frozen=True)
class Decision:
    """A verdict, its reason in one sentence, the p-values of the two one-sided tests behind it (that the claim holds,
    and that it fails; nan where nothing is tested: one seed, or a claim about every seed), and how many seeds would
    decide, '' where that is not asked."""

    verdict: str
    reason: str
    p_holds: float = math.nan
    p_fails: float = math.nan
    needed: str = ""


def decide(
    kind: str,
    e: Estimate,
    margin: float = 0.0,
    threshold: float = 0.0,
    room: float = math.inf,
    nothing: float | None = None,
    stated: int | None = None,
) -> Decision:
    """The verdict by the rule of KINDS[kind].

    Args:
        kind: A name of KINDS.
        e: The numbers and their interval.
        margin, threshold: Of the claim, as far as its kind needs them.
        room: How far the baseline's mean lies below the greatest number that there can be.
        nothing: Of a threshold, the number that means no effect: 0 of a slope. Between it and the threshold lies an
            effect that is smaller than what was claimed.
        stated: The number of seeds that the claim states, where all of them were used: no verdict then says how many
            more would decide, which would be an invitation to stop at a lucky moment. None: some are still to come.
    """
    found = _decision(kind, e, margin, threshold, room, nothing)
    if not found.needed:
        return found
    needed = f"undecided with the stated {stated} seeds" if stated else found.needed
    return replace(found, reason=f"{found.reason}; {needed}")


def _decision(kind: str, e: Estimate, margin: float, threshold: float, room: float, nothing: float | None) -> Decision:
    if not KINDS[kind].interval:
        return _every(kind, e, threshold)
    if kind in ("higher", "lower"):
        return _superior(kind, e, margin, room)
    if kind == "not_lower":
        edge = _bound(-margin)
        holds, fails = e.low > -margin, e.high < -margin
        good, bad = f"lies above {edge}: a loss of the margin is excluded", f"lies below {edge}: the loss is larger"
        return _decided(e, holds, fails, good, bad, [-margin], e.p_above(-margin), e.p_below(-margin))
    if kind in ("at_least", "at_most"):
        return _threshold(kind, e, threshold, nothing)
    center = 0.0 if kind == "equivalent" else threshold
    first, last = center - margin, center + margin
    holds, fails = first <= e.low and e.high <= last, e.high < first or e.low > last
    good, bad = (f"lies {where} [{_bound(first)}, {_bound(last)}]" for where in ("within", "outside"))
    p_holds = max(e.p_above(first), e.p_below(last))
    p_fails = min(e.p_below(first), e.p_above(last))  # either side would do
    return _decided(e, holds, fails, good, bad, [first, last], p_holds, p_fails)


def _superior(kind: str, e: Estimate, margin: float, room: float) -> Decision:
    up = kind == "higher"
    sign = 1.0 if up else -1.0
    mean, low, high = sign * e.mean, *sorted((sign * e.low, sign * e.high))
    least = sign * margin
    p_holds, p_fails = (e.p_above(0.0), e.p_below(least)) if up else (e.p_below(0.0), e.p_above(least))
    what = "advantage" if up else "drop"
    if high < 0:
        side, other = ("below", "lower") if up else ("above", "higher")
        return Decision(FAILS, f"{_interval(e)} lies {side} 0: the treatment is {other}", p_holds, p_fails)
    if up and room < margin:
        left = f"the baseline's mean leaves {_bound(room)} below 100, less than the margin of {_bound(margin)}"
        tested = (p_holds, p_fails) if math.isfinite(e.se) else ()
        return Decision(CEILING, f"{left}: no run can show such an advantage", *tested)
    reached = at_least(mean, margin)
    if low > 0 and high < margin and not reached:
        between = f"lies between 0 and {_bound(least)}" if up else f"lies between {_bound(least)} and 0"
        small = f"{_interval(e)} {between}: there is {'an' if up else 'a'} {what}, smaller than the margin"
        return Decision(SMALLER, small, p_holds, p_fails)
    side = "above" if up else "below"
    tested = f"lies {side} 0: the treatment is {'higher' if up else 'lower'}"
    good = f"{tested}; the observed mean, {number(e.mean, True)}, reaches {_bound(least)}"
    bad = f"lies {'below' if up else 'above'} {_bound(least)}: {'an' if up else 'a'} {what} of the margin is excluded"
    short = low > 0 and not reached
    decided = _decided(e, low > 0 and reached, high < margin, good, bad, [0.0 if reached else least], p_holds, p_fails)
    if decided.verdict == NOT_ENOUGH and short:
        effect = f"there is {'an' if up else 'a'} {what}, but the observed mean does not reach {_bound(least)}"
        return replace(decided, reason=f"{effect}; {decided.reason}")
    return decided


def _threshold(kind: str, e: Estimate, threshold: float, nothing: float | None) -> Decision:
    edge = _bound(threshold)
    if kind == "at_least":
        holds, fails = e.low >= threshold, e.high < threshold
        good, bad = f"lies at or above {edge}", f"lies below {edge}"
        p_holds, p_fails = e.p_above(threshold), e.p_below(threshold)
        small = fails and nothing is not None and threshold > nothing and e.low > nothing
    else:
        holds, fails = e.high <= threshold, e.low > threshold
        good, bad = f"lies at or below {edge}", f"lies above {edge}"
        p_holds, p_fails = e.p_below(threshold), e.p_above(threshold)
        small = fails and nothing is not None and threshold < nothing and e.high < nothing
    if small:
        between = " and ".join(map(_bound, sorted((threshold, nothing))))
        reason = f"{_interval(e)} lies between {between}: there is such an effect, smaller than claimed"
        return Decision(SMALLER, reason, p_holds, p_fails)
    return _decided(e, holds, fails, good, bad, [threshold], p_holds, p_fails)


def _decided(
    e: Estimate, holds: bool, fails: bool, good: str, bad: str, edges: list[float], p_holds: float, p_fails: float
) -> Decision:
    if holds or fails:
        return Decision(HOLDS if holds else FAILS, f"{_interval(e)} {good if holds else bad}", p_holds, p_fails)
    tested = (p_holds, p_fails) if math.isfinite(e.se) else (math.nan, math.nan)
    reason, needed = _undecided(e, edges)
    return Decision(NOT_ENOUGH, reason, *tested, needed)


def _interval(e: Estimate) -> str:
    return "the same number with every seed" if e.low == e.high else "the interval"


def number(value: float, sign: bool = False) -> str:
    """Two decimals, no minus before zero; a dash for what is undefined or unbounded."""
    if not math.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0.0:{'+' if sign else ''}.2f}"


def _bound(value: float) -> str:
    """A margin or threshold: as a number, but 0 as 0 and small ones with two digits that count."""
    return f"{value:.2g}" if abs(value) < 0.1 else number(value)


def at_least(value: float, bound: float) -> bool:
    """value >= bound, but for rounding: a billionth of the bound.

    >>> at_least(0.1 + 0.2, 0.3), at_least(0.3, 0.1 + 0.2), at_least(9.99e-10, 1e-9)
    (True, True, False)
    """
    return value >= bound or math.isclose(value, bound, rel_tol=1e-9)


def _every(kind: str, e: Estimate, threshold: float) -> Decision:
    """Numbers that miss the threshold by rounding alone meet it."""
    at_most = kind == "every_seed_at_most"
    met = sum(at_least(threshold, value) if at_most else at_least(value, threshold) for value in e.values)
    bound = f"{'at most' if at_most else 'at least'} {_bound(threshold)}"
    if e.n < LEAST_EVERY:
        return Decision(NOT_ENOUGH, f"{met} of {e.n} seeds {bound}; {LEAST_EVERY} seeds are the least that decide")
    if met == e.n:
        return Decision(HOLDS, f"all {e.n} seeds {bound}")
    missed = e.n - met
    return Decision(FAILS, f"{missed} of {e.n} seeds {'misses' if missed == 1 else 'miss'} it: not {bound}")


def _undecided(e: Estimate, edges: list[float]) -> tuple[str, str]:
    """Why nothing is decided, and how many seeds would."""
    if e.n < 2:
        return "one seed has no interval", "at least two are needed"
    if not math.isfinite(e.se):
        return f"{e.n} equal numbers may be chance, their resolution is not known", f"{LEAST_EQUAL} would decide"
    needed = seeds_to_decide(e, min(abs(e.mean - edge) for edge in edges))
    about = f"about {needed} seeds would decide" if needed else f"more than {MOST_SEEDS} seeds would be needed"
    return f"the interval contains {' or '.join(map(_bound, edges))}", f"{about}, mean and spread as they are"
