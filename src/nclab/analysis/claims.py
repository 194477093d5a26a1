"""Claims judged from run folders: treatment and baseline paired by seed, one judgement a claim and setting.

A *setting* is everything that must not differ between the two sides: the dataset, the length of training, the model,
the optimizer ... Free to differ are the keys that the claim names, keys of the policy that one side alone has (a
baseline has no `etf.k`), the seed, and where and how a run was executed (`MAY_DIFFER`). Runs of different settings are
never averaged, nor paired.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from nclab.analysis.ledger import Claim, condition_text, meets
from nclab.analysis.runs import MAY_DIFFER, AnalysisError, Run, differences
from nclab.analysis.verdict import HOLDS, NOT_ENOUGH, Estimate, decide, estimate

ALWAYS = ("dataset.name", "epochs")  # named in every setting
POLICY = "policy"  # the treatment's label, named where it differs within a claim


@dataclass(frozen=True)
class Judgement:
    """The verdict on a claim in one setting, and the numbers behind it, one a seed in the order of `seeds`."""

    claim: Claim
    setting: dict[str, Any]  # the keys worth naming
    verdict: str
    reason: str
    estimate: Estimate | None = None
    seeds: tuple[int, ...] = ()
    treatment: tuple[float, ...] = ()
    baseline: tuple[float, ...] = ()
    note: str = ""

    @property
    def where(self) -> str:
        """The setting for people: 'mnist, 30 epochs, etf.k=1'."""
        parts = [f"{key}={value}" for key, value in self.setting.items() if key not in (*ALWAYS, POLICY)]
        if POLICY in self.setting:
            parts.insert(0, self.setting[POLICY])
        if "dataset.name" in self.setting:
            parts = [str(self.setting["dataset.name"]), f"{self.setting['epochs']} epochs", *parts]
        return ", ".join(parts) or "no runs"


@dataclass(frozen=True)
class _Side:
    """Runs that differ in seed, machine and experiment name alone, by seed; `diverged` are seeds without a number."""

    runs: dict[int, list[Run]]
    diverged: tuple[int, ...]
    any_run: Run

    @property
    def settings(self) -> dict[str, Any]:
        return self.any_run.settings


def judge(claims: Iterable[Claim], runs: list[Run]) -> list[Judgement]:
    """Every claim in every setting in which its treatment was run; one without any run is 'not enough runs'.

    `runs` may hold unfinished ones: those that diverged keep a claim from holding by their absence, others are ignored.
    """
    usable = [run for run in runs if run.finished or has_diverged(run)]
    return [judgement for claim in claims for judgement in _judge(claim, usable)]


def has_diverged(run: Run) -> bool:
    """Whether training ended in numbers that are none."""
    if run.finished:
        return False
    try:
        return any(event.get("event") == "diverged" for event in run.events)
    except AnalysisError:  # a running process may be in the middle of a line
        return False


def _judge(claim: Claim, runs: list[Run]) -> list[Judgement]:
    both = [run for run in runs if claim.baseline and meets(run, claim.treatment) and meets(run, claim.baseline)]
    if both:
        raise AnalysisError(f"claim {claim.id}: {both[0].path} meets the conditions of both treatment and baseline")
    baselines = _sides([run for run in runs if meets(run, claim.baseline)]) if claim.baseline else []
    judged = []
    for case in _cases(claim.per):
        treatments = _sides([run for run in runs if meets(run, claim.treatment | case)])
        if not treatments:
            reason = f"no finished run with {condition_text(claim.treatment | case)}"
            judged.append((Judgement(claim, case, NOT_ENOUGH, reason), None, None))
        for treatment in treatments:
            partners = [b for b in baselines if _may_pair(treatment.settings, b.settings, claim.named)]
            if claim.baseline and not partners:
                reason = f"no finished run with {condition_text(claim.baseline)} in this setting"
                judged.append((Judgement(claim, {}, NOT_ENOUGH, reason), treatment, None))
            for baseline in partners if claim.baseline else [None]:
                judged.append((_compare(claim, treatment, baseline), treatment, baseline))
    return _with_settings(claim, judged)


def _cases(per: dict[str, list]) -> list[dict[str, Any]]:
    """{a: [1, 2], b: [3]} -> [{a: 1, b: 3}, {a: 2, b: 3}]; [{}] of nothing."""
    cases = [{}]
    for key, values in per.items():
        cases = [case | {key: value} for case in cases for value in values]
    return cases


def _sides(runs: list[Run]) -> list[_Side]:
    groups: dict[frozenset, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.config["dataset"]["name"], run.config["epochs"], str(run.path))):
        groups.setdefault(frozenset((key, repr(value)) for key, value in _compared(run.settings)), []).append(run)
    sides = []
    for group in groups.values():
        by_seed: dict[int, list[Run]] = {}
        for run in sorted((run for run in group if run.finished), key=lambda run: run.seed):
            by_seed.setdefault(run.seed, []).append(run)
        diverged = sorted({run.seed for run in group if not run.finished} - by_seed.keys())
        sides.append(_Side(by_seed, tuple(diverged), group[0]))
    return sides


def _compared(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in settings.items() if key == "etf.name" or not MAY_DIFFER.match(key)]


def _may_pair(treatment: dict[str, Any], baseline: dict[str, Any], named: set[str]) -> bool:
    """Equal in every key that both have, and no key outside the policy that one alone has; see the module."""
    one, two = ({key: v for key, v in _compared(side) if key not in named} for side in (treatment, baseline))
    return all(one[key] == two[key] if key in one and key in two else key.startswith("etf.") for key in {**one, **two})


def _compare(claim: Claim, treatment: _Side, baseline: _Side | None) -> Judgement:
    seeds = [seed for seed in treatment.runs if baseline is None or seed in baseline.runs]
    left = {seed: _value(claim, treatment.runs[seed], treatment.runs[seed][0]) for seed in seeds}
    right = {seed: _value(claim, baseline.runs[seed], treatment.runs[seed][0]) for seed in seeds} if baseline else {}
    numbers = {seed: left[seed] - right.get(seed, 0.0) for seed in seeds}
    undefined = [seed for seed in seeds if math.isnan(numbers[seed])]
    used = [seed for seed in seeds if seed not in undefined]
    judgement = Judgement(
        claim,
        {},
        NOT_ENOUGH,
        _too_few(claim, treatment, baseline, undefined),
        seeds=tuple(used),
        treatment=tuple(left[seed] for seed in used),
        baseline=tuple(right[seed] for seed in used if baseline),
        note=_note(treatment, baseline, undefined),
    )
    if not used:
        return judgement
    e = estimate([numbers[seed] for seed in used], claim.deterministic, baseline is not None)
    verdict, reason = decide(claim.kind, e, claim.margin, claim.threshold)
    if verdict == HOLDS and treatment.diverged:
        verdict = NOT_ENOUGH
        reason = f"{reason}, but training diverged with seed {_list(treatment.diverged)}: leaving it out would flatter"
    return replace(judgement, verdict=verdict, reason=reason, estimate=e)


def _value(claim: Claim, twins: list[Run], treated: Run) -> float:
    """The statistic of one seed. The same run in two folders counts once; with two different numbers it is refused."""
    values = [claim.statistic.value(run, treated) for run in twins]
    for run, value in zip(twins[1:], values[1:], strict=True):
        if not (value == values[0] or (math.isnan(value) and math.isnan(values[0]))):
            raise AnalysisError(
                f"claim {claim.id}: seed {run.seed} is there twice with different {claim.statistic.name}: "
                f"{twins[0].path} and {run.path}"
            )
    return values[0]


def _too_few(claim: Claim, treatment: _Side, baseline: _Side | None, undefined: list[int]) -> str:
    """Why there is no number at all."""
    if undefined:
        return f"{claim.statistic.name} is undefined in every run, seed {_list(undefined)}"
    if treatment.diverged and not treatment.runs:
        return f"training diverged with seed {_list(treatment.diverged)}"
    there = [f"treatment {_list(treatment.runs)}"]
    there += [f"baseline {_list(baseline.runs)}"] if baseline else []
    return f"no seed on both sides: {'; '.join(there)}"


def _note(treatment: _Side, baseline: _Side | None, undefined: list[int]) -> str:
    """Seeds that were there and did not count."""
    parts = []
    if baseline:
        for name, one, two in (("treatment", treatment, baseline), ("baseline", baseline, treatment)):
            if alone := [seed for seed in one.runs if seed not in two.runs]:
                parts.append(f"{name} alone has seed {_list(alone)}")
        if baseline.diverged:
            parts.append(f"baseline diverged with seed {_list(baseline.diverged)}")
    if undefined:
        parts.append(f"undefined with seed {_list(undefined)}")
    return "; ".join(parts)


def _with_settings(claim: Claim, judged: list[tuple[Judgement, _Side | None, _Side | None]]) -> list[Judgement]:
    """Name the setting of each judgement: dataset, epochs, `per`, and whatever else differs within the claim."""
    treatments, baselines = ([sides[i].any_run for sides in judged if sides[i]] for i in (1, 2))
    vary = [key for key in differences(treatments) if key not in (*ALWAYS, *claim.per)]
    vary_baseline = list(differences(baselines))
    if len({run.policy for run in treatments}) > 1 and not any(key.startswith("etf.") for key in claim.per):
        vary.insert(0, POLICY)
    named = []
    for judgement, treatment, baseline in judged:
        setting = dict(judgement.setting)
        if treatment:
            shown = treatment.settings | {POLICY: treatment.any_run.policy}
            setting = {key: shown.get(key) for key in (*ALWAYS, *claim.per, *vary)}
            other = baseline.settings if baseline else {}
            differ = [key for key in vary_baseline if key in other and other[key] != shown.get(key)]
            setting |= {f"baseline {key}": other[key] for key in differ}
        named.append(replace(judgement, setting=setting))
    return sorted(named, key=_order)


def _order(judgement: Judgement) -> tuple[bool, str, int]:
    """By data set and epochs; what has no run comes last."""
    setting = judgement.setting
    return "epochs" not in setting, setting.get("dataset.name", ""), setting.get("epochs", 0)


def _list(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"
