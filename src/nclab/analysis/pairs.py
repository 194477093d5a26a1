"""Pairs of runs: which runs differ in their seed alone, which two of them belong together, and the number of each.

A key of the configuration is *free* in a run where it has no say in the number that the claim is about: see `is_free`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from nclab.analysis.interval import rounding_sd
from nclab.analysis.labels import meaningless
from nclab.analysis.ledger import Claim
from nclab.analysis.runs import MAY_DIFFER, AnalysisError, Run
from nclab.analysis.statistics import images
from nclab.config.keys import IGNORE_MEASURES


@dataclass(frozen=True)
class Side:
    """Runs that differ in seed, machine and experiment name alone, by seed; `diverged` are seeds without a number.

    Of a series they differ in what it goes along as well: `depths` are all its values, also of runs that diverged, and
    `lost` are those that a diverged seed lacks.
    """

    runs: dict[int, list[Run]]
    diverged: tuple[int, ...]
    any_run: Run
    depths: tuple[float, ...] = ()
    lost: dict[int, tuple[float, ...]] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        return self.any_run.settings

    def only(self, seeds: Iterable[int]) -> "Side":
        """This side without all other seeds."""
        kept = set(seeds)
        return replace(
            self,
            runs={seed: runs for seed, runs in self.runs.items() if seed in kept},
            diverged=tuple(seed for seed in self.diverged if seed in kept),
            lost={seed: depths for seed, depths in self.lost.items() if seed in kept},
        )


def sides(claim: Claim, runs: list[Run]) -> list[Side]:
    """The runs grouped by all that may not differ, sorted by data set and epochs."""
    groups: dict[frozenset, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.config["dataset"]["name"], run.config["epochs"], str(run.path))):
        groups.setdefault(frozenset((k, repr(v)) for k, v in comparable(claim, run).items()), []).append(run)
    found = []
    for group in groups.values():
        by_seed: dict[int, list[Run]] = {}
        for run in sorted((run for run in group if run.finished), key=lambda run: run.seed):
            by_seed.setdefault(run.seed, []).append(run)
        places = {
            finished: {_place(claim, run) for run in group if run.finished == finished} for finished in (True, False)
        }
        lost: dict[int, list[float]] = {}
        for seed, depth in sorted(places[False] - places[True]):
            lost.setdefault(seed, []).append(depth)
        depths = sorted({depth for both in places.values() for _, depth in both}) if claim.along else []
        gone = {seed: tuple(values) for seed, values in lost.items()} if claim.along else {}
        found.append(Side(by_seed, tuple(lost), group[0], tuple(depths), gone))
    return found


def first_seeds(stated: int | None, treatment: Side, baseline: Side | None) -> tuple[Side, Side | None, list[int]]:
    """Both sides with the first `stated` seeds that either has, diverged ones included, and the seeds beyond.

    A verdict is given by the number of seeds that was stated before: adding seeds until there is one errs more often
    than it says. Which seeds count is decided by their numbers alone, so that one that diverged is not replaced.
    """
    there = [side for side in (treatment, baseline) if side]
    seeds = sorted({seed for side in there for seed in (*side.runs, *side.diverged)})
    if stated is None or len(seeds) <= stated:
        return treatment, baseline, []
    return treatment.only(seeds[:stated]), baseline and baseline.only(seeds[:stated]), seeds[stated:]


def _place(claim: Claim, run: Run) -> tuple[int, float]:
    """Which number a run is for: its seed, and of a series where it stands (else 0)."""
    return run.seed, run.settings[claim.along] if claim.along else 0


def is_free(claim: Claim, run: Run, key: str) -> bool:
    """Whether a key has no say in the number of this run.

    Measuring changes no weight: final accuracies and parameters do not depend on `metrics.*`, unless a policy decides
    by what was measured.
    """
    return key in meaningless(run.config) or _has_no_say(claim, run, key)


def may_pair(claim: Claim, treatment: Run, baseline: Run) -> bool:
    """Equal in every key that both have; a key that one alone has is of the policy, or free in the other."""
    one, two = (
        {key: value for key, value in comparable(claim, run).items() if key not in claim.named}
        for run in (treatment, baseline)
    )
    for key in {**one, **two}:
        if key in one and key in two:
            if one[key] != two[key]:
                return False
        elif not (key.startswith("etf.") or is_free(claim, treatment if key in two else baseline, key)):
            return False
    return True


def comparable(claim: Claim, run: Run) -> dict[str, Any]:
    """Its settings without the keys that have no say in its number."""
    return {key: value for key, value in run.settings.items() if not _has_no_say(claim, run, key)}


def _has_no_say(claim: Claim, run: Run, key: str) -> bool:
    if key.startswith("metrics.") and not claim.statistic.measured and not _decides_by_measures(run):
        return True
    return key in claim.free or bool(MAY_DIFFER.match(key) and key != "etf.name")


def _decides_by_measures(run: Run) -> bool:
    return run.config["etf"]["name"] not in IGNORE_MEASURES


class Numbers:
    """The numbers of a claim in one setting, seed by seed, and why a seed has none."""

    def __init__(self, claim: Claim, treatment: Side, baseline: Side | None):
        self.claim, self.treatment, self.baseline = claim, treatment, baseline
        self.left: dict[int, float] = {}
        self.right: dict[int, float] = {}
        self.read: list[Run] = []  # the runs behind the numbers
        self.broken: list[str] = []
        self.others: list[Side] = []  # further baselines, none with a number for any seed
        self.beyond: list[int] = []  # seeds beyond the number that the claim states
        self.twins: list[str] = []  # seeds with two different numbers
        self.full: list[int] = []  # seeds that leave the number no room
        self.missing: dict[str, list[int]] = {"nothing was fixed": [], f"{claim.statistic.name} is undefined": []}
        self.differ: list[int] = []  # seeds whose two sides did not fix the same layers at the same epochs
        for seed in treatment.runs:
            if baseline is None or seed in baseline.runs:
                self._add(seed)

    def _add(self, seed: int) -> None:
        treated, left = self._value(self.treatment.runs[seed], None)
        plain, right = self._value(self.baseline.runs[seed], treated) if self.baseline and treated else (None, 0.0)
        if treated is None or (self.baseline and plain is None):
            return
        if plain and _decides_by_measures(treated) and not treated.switches:
            # it is its own baseline: such a pair says nothing about what would have been fixed
            self.missing["nothing was fixed"].append(seed)
        elif math.isnan(left - right) and self.claim.statistic.full and self.claim.statistic.full(treated):
            self.full.append(seed)
        elif math.isnan(left - right):
            self.missing[f"{self.claim.statistic.name} is undefined"].append(seed)
        else:
            self.left[seed], self.right[seed] = left, right
            self.read += [treated, *([plain] if plain else [])]
            if plain and _decides_by_measures(treated) and _decides_by_measures(plain):
                self.differ += [seed] * (treated.switches != plain.switches)

    def _value(self, twins: list[Run], treated: Run | None) -> tuple[Run | None, float]:
        """A run and its number. The same run in two folders counts once; with two numbers, or none, it does not."""
        found = []
        for run in twins:
            try:
                _ = _decides_by_measures(run) and run.switches  # they will be asked for: can they be read?
                found.append((run, self.claim.statistic.value(run, treated or run)))
            except AnalysisError as error:
                self.broken.append(str(error))
        if not found:
            return None, math.nan
        first, value = found[0]
        for run, other in found[1:]:
            if not (other == value or (math.isnan(other) and math.isnan(value))):
                self.twins.append(
                    f"seed {run.seed} is there twice with different {self.claim.statistic.name}: "
                    f"{first.path} and {run.path}"
                )
                return None, math.nan
        return first, value

    @property
    def tried(self) -> set[int]:
        """Seeds with which all that is needed was run, whether they have a number or not."""
        there = [{*side.runs, *side.diverged} for side in (self.treatment, self.baseline) if side]
        return set.intersection(*there)

    @property
    def mute(self) -> bool:
        """Whether every seed is there on both sides and the statistic, or the policy, gives none a number."""
        silent = {seed for seeds in self.missing.values() for seed in seeds}
        return bool(silent) and silent == self.tried and not (self.broken or self.twins)

    @property
    def values(self) -> list[float]:
        """One a seed: the differences of pairs, the numbers themselves where nothing is compared; of a claim on the
        spread the differences of their distances from the median over seeds (Brown and Forsythe 1974)."""
        left, right = np.array([*self.left.values()]), np.array([self.right[seed] for seed in self.left])
        if self.claim.spread:
            left, right = (np.abs(side - np.median(side)) for side in (left, right))
        return (left - right).tolist()

    @property
    def scale(self) -> float:
        """How large the numbers are: what is far below this is their rounding."""
        return max(map(abs, [*self.left.values(), *self.right.values()]), default=0.0)

    @cached_property
    def images(self) -> int | None:
        """How many images an accuracy is a count of; None where that is not known, or the number is no accuracy."""
        split = self.claim.statistic.split
        return images(self.read, split) if split else None

    @property
    def floor(self) -> float | None:
        """What rounding to whole images makes of the spread; None where that is not known."""
        return rounding_sd(self.images, self.baseline is not None) if self.images else None

    @property
    def flatters(self) -> str:
        """What would flatter a claim that holds by being left out; '' if there is nothing."""
        lost = self.treatment.diverged
        return f"training diverged with seed {seed_list(lost)}" if lost else ""

    def note(self) -> list[str]:
        """Seeds that were there and did not count, and what else is to be known of those that did."""
        parts = []
        if self.baseline:
            both = {"treatment": (self.treatment, self.baseline), "baseline": (self.baseline, self.treatment)}
            for name, (one, two) in both.items():
                if alone := [seed for seed in one.runs if seed not in two.runs]:
                    parts.append(f"{name} alone has seed {seed_list(alone)}")
            if self.baseline.diverged:
                parts.append(f"baseline diverged with seed {seed_list(self.baseline.diverged)}")
        parts += [f"{what} with seed {seed_list(seeds)}" for what, seeds in self.missing.items() if seeds]
        if self.others:
            parts.append(f"no seed counts with {len(self.others)} other baselines")
        if self.full:
            parts.append(f"{self.claim.statistic.name} has no room with seed {seed_list(self.full)}")
        if self.differ:
            parts.append(f"the baseline fixed other layers, or at other epochs, with seed {seed_list(self.differ)}")
        if self.beyond:
            parts.append(f"seed {seed_list(self.beyond)} is beyond the {self.claim.seeds} that the claim states")
        return parts + [f"left out: {error}" for error in self.broken]


def seed_list(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"
