"""Claims judged from run folders: treatment and baseline paired by seed, one judgement a claim and setting.

A *setting* is everything that must not differ between the two sides: the dataset, the length of training, the model,
the optimizer ... Free to differ are the keys that the claim names, keys of the policy that one side alone has (a
baseline has no `etf.k`), keys that mean nothing in one of the two, the seed, and where and how a run was executed
(`MAY_DIFFER`). How often was measured (`metrics.*`) belongs to the setting where the statistic or the policy reads it.
Runs of different settings are never averaged, nor paired.

The number of a series (`Claim.along`) is the slope over the runs of one seed, see `series`.

No run is left out in silence: what does not count is named in the note, and what would flatter a verdict by its absence
(a side that diverged, a seed with two different numbers) undoes the verdict.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from nclab.analysis.families import adjust
from nclab.analysis.interval import estimate, spread
from nclab.analysis.judgement import ALWAYS, POLICY, Judgement
from nclab.analysis.ledger import Claim, meets, no_finished_run
from nclab.analysis.margins import Margin, accuracy_margin
from nclab.analysis.moderation import Prior, fit_prior
from nclab.analysis.pairs import Numbers, Side, comparable, first_seeds, is_free, may_pair, seed_list, sides
from nclab.analysis.runs import AnalysisError, Run, differences
from nclab.analysis.series import Series, depth_of
from nclab.analysis.trend import LEAST_DEPTHS
from nclab.analysis.verdict import CEILING, FAILS, HOLDS, NOT_ENOUGH, SMALLER, decide


def judge(claims: Iterable[Claim], runs: list[Run]) -> list[Judgement]:
    """Every claim in every setting in which its treatment was run; one without any run is 'not enough runs'. Beside
    each verdict stands the one that Holm's procedure leaves within its family.

    `runs` may hold unfinished ones: those that diverged keep a claim from holding by their absence, others are ignored.
    """
    usable = [run for run in runs if run.finished or has_diverged(run)]
    return adjust([judgement for claim in claims for judgement in _judge(claim, usable)])


def has_diverged(run: Run) -> bool:
    """Whether training ended in nan or infinity, and was not resumed since."""
    if run.finished:
        return False
    try:
        last = [event["event"] for event in run.events if event.get("event") in ("diverged", "resume")][-1:]
    except AnalysisError:  # a running process may be in the middle of a line
        return False
    return last == ["diverged"]


def _judge(claim: Claim, runs: list[Run]) -> list[Judgement]:
    both = [run for run in runs if claim.baseline and meets(run, claim.treatment) and meets(run, claim.baseline)]
    if both:
        raise AnalysisError(f"claim {claim.id}: {both[0].path} meets the conditions of both treatment and baseline")
    baselines = sides(claim, [run for run in runs if meets(run, claim.baseline)]) if claim.baseline else []
    if claim.along:  # a run that has no such key stands nowhere in the series
        named = [run for run in runs if meets(run, claim.treatment) and claim.along in run.settings]
        runs = [run for run in named if depth_of(claim, run)]
    judged: list[tuple[Judgement | Numbers, Side | None, Side | None]] = []
    for case in _cases(claim.per):
        treatments = sides(claim, [run for run in runs if meets(run, claim.treatment | case)])
        if not treatments:
            reason = no_finished_run(claim.treatment | case)
            judged.append((_without_runs(claim, case, reason), None, None))
        for treatment in treatments:
            partners = [b for b in baselines if may_pair(claim, treatment.any_run, b.any_run)]
            if claim.baseline and not partners:
                reason = f"{no_finished_run(claim.baseline)} in this setting"
                judged.append((_without_runs(claim, {}, reason), treatment, None))
            numbers = [_numbers(claim, treatment, side) for side in (partners if claim.baseline else [None])]
            judged += [(one, treatment, one.baseline) for one in _telling(numbers)]
    priors = _priors([one for one, *_ in judged if isinstance(one, Numbers)])
    judged = [
        (_compare(one, priors.get(_pool(one))) if isinstance(one, Numbers) else one, *both) for one, *both in judged
    ]
    return _with_settings(claim, judged)


def _cases(per: dict[str, list]) -> list[dict[str, Any]]:
    """{a: [1, 2], b: [3]} -> [{a: 1, b: 3}, {a: 2, b: 3}]; [{}] of nothing."""
    cases = [{}]
    for key, values in per.items():
        cases = [case | {key: value} for case in cases for value in values]
    return cases


def _without_runs(claim: Claim, setting: dict[str, Any], reason: str) -> Judgement:
    provisional = _provisional(claim, 0) if claim.seeds else ""
    return Judgement(claim, setting, NOT_ENOUGH, reason, provisional=provisional, absent=True)


def _numbers(claim: Claim, treatment: Side, baseline: Side | None) -> Numbers:
    """Those of the seeds that the claim states; more of them change nothing."""
    treatment, baseline, beyond = first_seeds(claim.seeds, treatment, baseline)
    numbers = Series(claim, treatment) if claim.along else Numbers(claim, treatment, baseline)
    numbers.beyond = beyond
    return numbers


def _telling(numbers: list[Numbers]) -> list[Numbers]:
    """Of all baselines of a treatment those that say something: where a statistic takes some pairs alone (equally many
    fixed layers), every treatment has baselines that it was never meant to be held against. One remains in any case."""
    mute = [one for one in numbers if one.mute]
    telling = [one for one in numbers if not one.mute] or mute[:1]
    for one in telling:
        one.others = [other.baseline for other in mute if other is not one]
    return telling


def _chosen(numbers: Numbers) -> dict[str, Any]:
    """What tells the baseline from the others, which say nothing: part of the setting."""
    if not numbers.others:
        return {}
    keys = _unlike(numbers.claim, [side.any_run for side in (numbers.baseline, *numbers.others)])
    return {f"baseline {key}": numbers.baseline.settings.get(key) for key in keys}


def _pool(numbers: Numbers) -> tuple:
    """What must be equal where settings of a claim share their spread: everything but the keys in `per`.

    Another schedule, optimizer or variant of a policy is another experiment: nothing says that its spread is alike.
    """
    claim = numbers.claim
    runs = [side.any_run for side in (numbers.treatment, numbers.baseline) if side]
    compared = (sorted(comparable(claim, run).items()) for run in runs)
    return tuple(tuple(f"{key}={value!r}" for key, value in items if key not in claim.per) for items in compared)


def _priors(settings: list[Numbers]) -> dict[tuple, Prior]:
    """What the settings of a claim say of the spread together, pool by pool."""
    pools: dict[tuple, list[tuple[float, int]]] = {}
    for numbers in settings:
        sd = max(spread(numbers.values, numbers.scale), numbers.floor or 0.0) if len(numbers.values) > 1 else 0.0
        if sd > 0 and numbers.claim.rule.interval and not numbers.claim.deterministic:
            pools.setdefault(_pool(numbers), []).append((sd, len(numbers.values) - 1))
    priors = {pool: fit_prior(*zip(*spreads, strict=True)) for pool, spreads in pools.items()}
    return {pool: prior for pool, prior in priors.items() if prior}


def _compare(numbers: Numbers, prior: Prior | None) -> Judgement:
    claim, baseline = numbers.claim, numbers.baseline
    judgement = Judgement(
        claim,
        _chosen(numbers),
        NOT_ENOUGH,
        "; ".join(numbers.twins) or _too_few(numbers),
        seeds=tuple(numbers.left),
        treatment=tuple(numbers.left.values()),
        baseline=tuple(numbers.right.values()) if baseline else (),
        note="; ".join(numbers.note()),
        broken=tuple(numbers.broken),
        provisional=_provisional(claim, len(numbers.left)),
    )
    if not numbers.left:
        return replace(judgement, verdict=CEILING) if _all_full(numbers) else judgement
    e = estimate(numbers.values, numbers.floor, claim.deterministic, prior, numbers.scale)
    margin = _margin(numbers)
    room = 100.0 - np.mean(judgement.baseline) if baseline and claim.statistic.split else np.inf
    amount = margin.amount if margin else 0.0
    stated = claim.seeds if claim.seeds and len(numbers.tried) >= claim.seeds else None
    nothing = 0.0 if claim.along else None
    found = decide(claim.kind, e, amount, claim.threshold, float(room), nothing, stated)
    verdict, reason = found.verdict, found.reason
    if verdict == HOLDS and numbers.flatters:
        verdict = NOT_ENOUGH
        reason += f", but {numbers.flatters}: leaving it out would flatter"
    spares_baseline = verdict in (FAILS, SMALLER, CEILING) or (verdict == HOLDS and claim.kind == "equivalent")
    if spares_baseline and baseline and baseline.diverged:
        verdict = NOT_ENOUGH
        reason += f", but the baseline diverged with seed {seed_list(baseline.diverged)}: leaving it out flatters it"
    if numbers.twins:
        verdict, reason = NOT_ENOUGH, judgement.reason
    return replace(
        judgement,
        verdict=verdict,
        reason=reason,
        estimate=e,
        margin=margin.amount if margin else None,
        margin_reason=margin.reason if margin else "",
        p_holds=found.p_holds,
        p_fails=found.p_fails,
    )


def _margin(numbers: Numbers) -> Margin | None:
    """What the claim states, or what follows from the errors of its baseline; None of a kind without a margin."""
    claim = numbers.claim
    if "margin" not in claim.rule.needs:
        return None
    if claim.margin is not None:
        return Margin(claim.margin, claim.why)
    return accuracy_margin(float(np.mean([*numbers.right.values()])), numbers.images, claim.statistic.split)


def _provisional(claim: Claim, seeds: int) -> str:
    """'' of a verdict with all the seeds that its claim states, and of arithmetic."""
    if claim.deterministic or seeds == claim.seeds:
        return ""
    return f"{seeds} of {claim.seeds} seeds" if claim.seeds else f"{seeds} seeds, no number stated"


def _all_full(numbers: Numbers) -> bool:
    """Whether every seed lacks its number because it left no room, and none for another reason."""
    others = (*numbers.missing.values(), numbers.broken, numbers.twins, numbers.treatment.diverged)
    return bool(numbers.full) and not any(others)


def _too_few(numbers: Numbers) -> str:
    """Why there is no number at all."""
    depths = numbers.treatment.depths
    if numbers.claim.along and len(depths) < LEAST_DEPTHS:
        there = "|".join(f"{depth:g}" for depth in depths)
        return f"a slope takes at least {LEAST_DEPTHS} values, there is {numbers.claim.along}={there}"
    if _all_full(numbers):
        return f"{numbers.claim.statistic.name} has no room with any seed, so that no run can show it"
    if numbers.full or any(numbers.missing.values()):
        return "no seed counts"
    if numbers.broken:
        return "no run can be read"
    if numbers.treatment.diverged and (numbers.claim.along or not numbers.treatment.runs):
        return f"training diverged with seed {seed_list(numbers.treatment.diverged)}"
    there = [f"treatment {seed_list(numbers.treatment.runs)}"]
    there += [f"baseline {seed_list(numbers.baseline.runs)}"] if numbers.baseline else []
    return f"no seed on both sides: {'; '.join(there)}"


def _with_settings(claim: Claim, judged: list[tuple[Judgement, Side | None, Side | None]]) -> list[Judgement]:
    """Name the setting of each judgement: dataset, epochs, `per`, and whatever else differs within the claim."""
    treatments, baselines = ([sides[i].any_run for sides in judged if sides[i]] for i in (1, 2))
    vary = [key for key in _differing(claim, treatments) if key not in (*ALWAYS, *claim.per)]
    vary_baseline = _differing(claim, baselines)
    if len({run.policy for run in treatments}) > 1 and not any(key.startswith("etf.") for key in claim.per):
        vary.insert(0, POLICY)
    named = []
    for judgement, treatment, baseline in judged:
        setting = dict(judgement.setting)
        if treatment:
            shown = treatment.settings | {POLICY: treatment.any_run.policy}
            if claim.along:
                shown[claim.along] = "|".join(f"{depth:g}" for depth in treatment.depths)
            keys = (*ALWAYS, *claim.per, *vary, *filter(None, [claim.along]))
            setting = {key: shown.get(key) for key in keys} | setting
            other = baseline.settings if baseline else {}
            differ = [key for key in vary_baseline if key in other and other[key] != shown.get(key)]
            setting |= {f"baseline {key}": other[key] for key in differ}
        judgement = replace(judgement, setting=setting, run=treatment.any_run if treatment else None)
        named.append((judgement, treatment, baseline))
    return sorted(_told_apart(claim, named), key=_order)


def _told_apart(claim: Claim, named: list[tuple[Judgement, Side | None, Side | None]]) -> list[Judgement]:
    """The judgements, with the keys added that tell settings of one name apart: the label of a policy stands for keys
    that it does not say, such as the frames behind 'canonical'. Raises AnalysisError where none does."""
    by_name: dict[str, list[tuple[Judgement, Side | None, Side | None]]] = {}
    for one in named:
        by_name.setdefault(one[0].where, []).append(one)
    found = []
    for name, alike in by_name.items():
        if len(alike) == 1:
            found.append(alike[0][0])
            continue
        apart = [
            (f"{word}{key}", i, key)
            for i, word in ((1, ""), (2, "baseline "))
            for key in _unlike(claim, [one[i].any_run for one in alike if one[i]])
        ]
        more = [
            replace(
                one[0], setting=one[0].setting | {shown: one[i].settings.get(key) for shown, i, key in apart if one[i]}
            )
            for one in alike
        ]
        if len({judgement.where for judgement in more}) < len(more):
            raise AnalysisError(f"claim {claim.id}: {len(more)} settings have one name, {name}; close its conditions")
        found += more
    return found


def _unlike(claim: Claim, runs: list[Run]) -> list[str]:
    """Keys that have a say and in which any two of the runs differ, whatever their policies are called."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    return [
        key
        for key in keys
        if len({repr(run.settings.get(key)) for run in runs}) > 1 and not all(is_free(claim, run, key) for run in runs)
    ]


def _differing(claim: Claim, runs: list[Run]) -> list[str]:
    """Keys in which runs differ, without those that have no say in all of them."""
    return [key for key in differences(runs) if not all(is_free(claim, run, key) for run in runs)]


def _order(judgement: Judgement) -> tuple[bool, str, int, int]:
    """By data set, epochs and number of blocks, which folders sort as text; what has no run comes last."""
    setting = judgement.setting
    blocks = setting.get("model.blocks")
    depth = blocks if isinstance(blocks, int) else 0
    return "epochs" not in setting, setting.get("dataset.name", ""), setting.get("epochs", 0), depth
