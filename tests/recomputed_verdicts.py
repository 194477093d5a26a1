"""From the runs of an archive to verdicts, by the rules of docs/statistics.md.

A part of the independent judge, see recomputed.py.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product

import numpy as np
from recomputed_runs import STATISTICS, Mismatch, Run
from recomputed_settings import go_together, grouped, meets, setting_of
from scipy import optimize, special, stats

NONE = "not enough runs"
PAIRED = ("not_lower", "higher", "lower", "equivalent")


# Which runs belong together


@dataclass
class Case:
    """A claim in one setting."""

    claim: dict
    treated: Run  # any of its treatment
    plain: Run | None
    numbers: dict[int, float]
    baseline: list[float]
    read: list[float]  # of the treatment
    images: int | None
    lost: list  # seeds whose treatment diverged, or which have a number without a logarithm
    baseline_lost: list
    verdict: str = NONE
    holm: str = ""
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    margin: float | None = None
    p: tuple[float, float] = (math.nan, math.nan)
    full: list = field(default_factory=list)  # seeds without a number since nothing is left to be won
    missing: list = field(default_factory=list)  # seeds without one for another reason

    @property
    def pool(self):
        """Equal where two settings share their spread: all that has a say, but for what the claim goes through."""
        sides = [setting_of(self.claim, run) for run in (self.treated, self.plain) if run]
        through = self.claim.get("per", {})
        return repr([sorted((key, value) for key, value in side.items() if key not in through) for side in sides])

    @property
    def scale(self):
        """How large the numbers are: a difference of them is known to a share of this. Slopes are of order 1."""
        least = 1.0 if self.claim.get("along") else 0.0
        return max([least, *map(abs, [*self.read, *self.baseline])])

    @property
    def rounding(self):
        """By how much two who compute the same mean may differ, beyond a share of it."""
        return max(1e-11 * self.scale, STATISTICS[self.claim["statistic"]].rounding)

    @property
    def floor(self):
        paired = self.claim["kind"] in PAIRED
        return 100 / self.images / math.sqrt(6 if paired else 12) if self.images else None

    @property
    def spread(self):
        values = [*self.numbers.values()]
        sd = np.std(values, ddof=1) if len(values) > 1 else math.nan
        return 0.0 if sd <= 1e-9 * self.scale else float(sd)


def judge(claims, runs):
    """Every case that has a run on each side."""
    runs = [run for run in runs if run.finished or run.diverged]
    found = []
    for claim in claims:
        if claim["statistic"] not in STATISTICS:
            if any(meets(run, claim.get("runs") or claim["treatment"]) for run in runs):
                raise Mismatch(
                    f"claim {claim['id']}: no code of its own for {claim['statistic']}; add it to STATISTICS"
                )
            continue
        cases = [case for case in _cases(claim, runs) if case]
        for pool in {case.pool for case in cases}:
            _decide([case for case in cases if case.pool == pool])
        found += cases
    _holm(found)
    return found


def _cases(claim, runs):
    per = claim.get("per", {})
    baselines = grouped(claim, [run for run in runs if meets(run, claim["baseline"])]) if "baseline" in claim else [[]]
    for values in product(*per.values()):
        wanted = (claim.get("runs") or claim["treatment"]) | dict(zip(per, values, strict=True))
        there = [run for run in runs if meets(run, wanted) and claim.get("along", "seed") in run.settings]
        for group in grouped(claim, there):
            for plain in baselines:
                if not plain or go_together(claim, group[0], plain[0]):
                    yield _case(claim, group, plain)


def _case(claim, group, plain):
    statistic = STATISTICS[claim["statistic"]]
    seeds = sorted({run.seed for run in [*group, *plain]})[: claim["seeds"]]
    group, plain = ([run for run in side if run.seed in seeds] for side in (group, plain))
    gone = sorted({run.seed for run in group if not run.finished} - _done(claim, group))
    case = Case(claim, group[0] if group else None, plain[0] if plain else None, {}, [], [], None, gone, [])
    if case.treated is None:
        return None
    case.baseline_lost = sorted({run.seed for run in plain if not run.finished} - {r.seed for r in plain if r.finished})
    counted = []
    for seed in seeds:
        mine = [run for run in group if run.seed == seed and run.finished]
        theirs = [run for run in plain if run.seed == seed and run.finished]
        if claim.get("along"):
            number = _slope(claim, case, group, mine, seed)
        elif not mine or ("baseline" in claim and not theirs):
            continue
        else:
            if theirs and mine[0].adapts and not mine[0].fixed:
                case.missing.append(seed)
                continue
            left = _only(mine, statistic.value, mine[0])
            right = _only(theirs, statistic.value, mine[0]) if theirs else 0.0
            number = left - right
        if math.isnan(number):
            full = statistic.full and mine and statistic.full(mine[0])
            (case.full if full else case.missing).append(seed)
            continue
        case.numbers[seed] = number
        if theirs:
            case.baseline.append(right)
        case.read.append(number if claim.get("along") else left)
        counted += [*mine[:1], *theirs[:1]]
    if claim.get("spread"):
        case.numbers = dict(zip(case.numbers, distances(case.read) - distances(case.baseline), strict=True))
    if statistic.split and not claim.get("along"):
        case.images = _images(counted, statistic.split)
    return case


def distances(numbers):
    """From their median."""
    ordered, half = sorted(numbers), len(numbers) // 2
    return np.abs(np.array(numbers) - (ordered[half] + ordered[~half]) / 2)


def _done(claim, group):
    """Seeds that lack nothing: of a series, every place at which one diverged is there finished."""
    at = claim.get("along", "seed")
    lost = {(run.seed, run.settings[at]) for run in group if not run.finished}
    there = {(run.seed, run.settings[at]) for run in group if run.finished}
    return {run.seed for run in group} - {seed for seed, _ in lost - there}


def _only(runs, value, treated):
    """The number of runs of one seed: the same one in several folders counts once."""
    numbers = {repr(number): number for number in (value(run, treated) for run in runs)}
    if len(numbers) > 1:
        raise Mismatch(f"seed {runs[0].seed} is there with different numbers: {', '.join(run.name for run in runs)}")
    return next(iter(numbers.values()))


def _slope(claim, case, group, mine, seed):
    depths = sorted({run.settings[claim["along"]] for run in group})
    points = {run.settings[claim["along"]]: STATISTICS[claim["statistic"]].value(run, run) for run in mine}
    if any(not value > 0 or math.isinf(value) for value in points.values()):
        case.lost.append(seed)
        return math.nan
    if len(depths) < 3 or [*sorted(points)] != depths:
        return math.nan
    return float(np.polyfit(np.log10([*points]), np.log10([*points.values()]), 1)[0])


def _images(runs, split):
    """The least number of images on which all these accuracies can have arisen."""
    common = 1
    for run in runs:
        if isinstance(run.settings.get(f"dataset.{split}_size"), int):
            return run.settings[f"dataset.{split}_size"]
        for key, value in run.summary.items():
            if key.startswith(f"final.{split}.") and "accuracy" in key and isinstance(value, float):
                share = Fraction(value).limit_denominator(10**6)
                if abs(float(share) - value) > 1e-14:
                    return None
                common = math.lcm(common, share.denominator)
    return common if 1 < common <= 10**6 else None


def _decide(cases):
    """Interval and verdict of settings of one claim that share what they say of the spread."""
    claim = cases[0].claim
    prior = None
    if not claim.get("deterministic") and not claim["kind"].startswith("every"):
        known = [(max(c.spread, c.floor or 0), len(c.numbers) - 1) for c in cases if len(c.numbers) > 1]
        prior = _prior([one for one in known if one[0] > 0])
    for case in cases:
        if case.numbers:
            _judge(case, prior)
        elif case.full and not case.missing and not case.lost:
            case.verdict = "ceiling"


def _prior(known):
    """(d0, s0^2, D): what several settings, each (standard deviation, degrees of freedom), say of their spread.

    d0 solves trigamma(d0 / 2) = the variance of log s^2 beyond that of chance; s0^2 is the pooled variance.
    """
    if len(known) < 2:
        return None
    s, d = np.array(known).T
    z = 2 * np.log(s) - special.psi(d / 2) + np.log(d / 2)
    excess = np.var(z, ddof=1) - np.mean(special.polygamma(1, d / 2))
    d0 = math.inf
    if excess > 0:
        d0 = 2 * math.exp(optimize.brentq(lambda x: special.polygamma(1, math.exp(x)) - excess, -30, 30, xtol=1e-14))
    return d0, np.sum(d * s**2) / np.sum(d), np.sum(d)


def _judge(case, prior):
    claim, values = case.claim, np.array([*case.numbers.values()])
    n, mean, kind = len(values), float(np.mean(values)), claim["kind"]
    case.mean, case.margin = mean, claim.get("margin")
    threshold = claim.get("threshold")
    if kind in PAIRED and case.margin is None:
        a, errors = np.mean(case.baseline), 100 - np.mean(case.baseline)
        images = case.images
        floor = 0.1 if STATISTICS[claim["statistic"]].split == "train" else 0
        of_images = math.sqrt(a * errors / images) if images else 0
        case.margin = max(0.05 * errors, of_images, 100 / (images or 10**6), floor)
    if kind.startswith("every"):
        case.low, case.high = values.min(), values.max()
        up = kind == "every_seed_at_least"
        slack = 1e-9 * abs(threshold)
        met = int(np.sum(values >= threshold - slack if up else values <= threshold + slack))
        case.verdict = NONE if n < 3 else "holds" if met == n else "fails"
    else:
        se, df = _standard_error(case, n, prior)
        half = stats.t.ppf(0.975, df) * se if 0 < se < math.inf else se
        case.low, case.high = mean - half, mean + half
        room = 100 - np.mean(case.baseline) if case.baseline and STATISTICS[claim["statistic"]].split else math.inf
        case.verdict = _verdict(kind, case, threshold, room, 0.0 if claim.get("along") else None)
        if se < math.inf:
            case.p = _p_values(kind, mean, se, df, case.margin, threshold)
    if case.verdict == "holds" and case.lost:
        case.verdict = NONE
    spares = ("fails", "smaller than the margin", "ceiling") + (("holds",) if kind == "equivalent" else ())
    if case.verdict in spares and case.baseline_lost:
        case.verdict = NONE


def _standard_error(case, n, prior):
    sd = case.spread
    if case.claim.get("deterministic") and not sd > 0:
        return 0.0, math.inf
    if n < 2 or (sd == 0 and case.floor is None and n < 5):
        return math.inf, 0
    variance, d = max(sd, case.floor or 0.0) ** 2, n - 1
    if prior and variance > 0:
        lent, s0, total = min(prior[0], d / 2), prior[1], prior[2]
        variance = (lent * s0 + d * variance) / (lent + d)
        d = (lent + d) ** 2 / (d + lent * (2 * d + lent) / total)
    return math.sqrt(variance / n), d


def _verdict(kind, case, threshold, room, nothing):
    low, high, mean, margin = case.low, case.high, case.mean, case.margin
    if kind == "lower":
        low, high, mean = -high, -low, -mean
    if kind in ("higher", "lower"):
        if high < 0:
            return "fails"
        if kind == "higher" and room < margin:
            return "ceiling"
        if low > 0 and high < margin:
            return "smaller than the margin"
        return "holds" if low > 0 and mean >= margin * (1 - 1e-9) else "fails" if high < margin else NONE
    if kind == "not_lower":
        return "holds" if low > -margin else "fails" if high < -margin else NONE
    if kind in ("at_least", "at_most"):
        flip = 1 if kind == "at_least" else -1
        low, high = sorted((flip * low, flip * high))
        if low >= flip * threshold:
            return "holds"
        if high >= flip * threshold:
            return NONE
        there = nothing is not None and flip * threshold > flip * nothing and low > flip * nothing
        return "smaller than the margin" if there else "fails"
    center = threshold if kind == "equals" else 0.0
    if center - margin <= low and high <= center + margin:
        return "holds"
    return "fails" if high < center - margin or low > center + margin else NONE


def _p_values(kind, mean, se, df, margin, threshold):
    """One-sided: that the claim holds, and that it fails."""

    def above(bound):
        if se == 0:
            return 0.0 if mean >= bound else 1.0
        return stats.t.sf((mean - bound) / se, df)

    def below(bound):
        if se == 0:
            return 0.0 if mean <= bound else 1.0
        return stats.t.cdf((mean - bound) / se, df)

    if kind == "not_lower":
        return above(-margin), below(-margin)
    if kind == "higher":
        return above(0), below(margin)
    if kind == "lower":
        return below(0), above(-margin)
    if kind == "at_least":
        return above(threshold), below(threshold)
    if kind == "at_most":
        return below(threshold), above(threshold)
    first, end = (threshold if kind == "equals" else 0.0) + np.array([-margin, margin])
    return max(above(first), below(end)), min(below(first), above(end))


def _holm(cases):
    """The verdict that stays when each family is judged at once, at 2.5 %; arithmetic belongs to no family."""
    for case in cases:
        case.holm = case.verdict
    tested = [case for case in cases if not case.claim.get("deterministic")]
    for family in {case.claim["family"] for case in tested}:
        for which, verdicts in ((0, ("holds",)), (1, ("fails", "smaller than the margin"))):
            rows = [c for c in tested if c.claim["family"] == family and not math.isnan(c.p[which])]
            reached = 0.0
            for rank, case in enumerate(sorted(rows, key=lambda c: c.p[which])):
                reached = max(reached, (len(rows) - rank) * case.p[which])
                if case.verdict in verdicts and reached > 0.025:
                    case.holm = NONE
