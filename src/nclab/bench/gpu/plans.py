"""How long the plans of all wings would take on this device, from the cost of each kind of run in them."""

import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from nclab.bench.gpu.row import FAILED, NO_GPU, NOT_TIMED, Aim, Line, Row, reason
from nclab.bench.gpu.run_cost import Cost, cost_of, key_of, measurements, steps_guessed
from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.config.schema import RunConfig

SECONDS, STARTING = 110, 15  # of the line; of what it is given, for its process and its end
WINGS = sorted(file.parent.name for file in (CONF / "paper").glob("*/plan.yaml"))
MOST_HOURS = {"gpu_hour": 1.0, "paper": None}  # profile -> aim
AIMS = {
    (wing, profile): Aim(f"{wing}, profile {profile}, one run after another", "h", most=most)
    for wing in WINGS
    for profile, most in MOST_HOURS.items()
}


@dataclass(frozen=True)
class Runs:
    """The runs of a plan in a profile, each once."""

    configs: list[RunConfig]

    @property
    def text(self) -> str:
        epochs, measured = sum(c.epochs for c in self.configs), sum(map(measurements, self.configs))
        return f"{len(self.configs):,} runs, {epochs:,} epochs, {measured:,} measurements"

    @cached_property
    def keys(self) -> list[str]:
        """Of each run."""
        return [*map(key_of, self.configs)]

    @cached_property
    def guessed(self) -> dict[str, float]:
        """Key -> the share that it has in the training steps of all, about."""
        steps: dict[str, float] = {}
        for key, config in zip(self.keys, self.configs, strict=True):
            steps[key] = steps.get(key, 0) + config.epochs * steps_guessed(config)
        return {key: own / sum(steps.values()) for key, own in steps.items()}


def runs_of_all() -> dict[tuple[str, str], Runs]:
    """Of every wing and profile in AIMS."""
    plans = {wing: Plan(CONF, wing) for wing, _ in AIMS}  # one a wing: profiles share what they compose
    found = {}
    for wing, profile in AIMS:
        parts = plans[wing].resolve([], profile)
        found[wing, profile] = Runs([*{config.folder: config for part in parts for config in part.configs}.values()])
    return found


@dataclass
class Costs:
    """Of each key of runs: what they cost, or why one could not be timed. Keys that the time did not suffice for are in
    neither."""

    of: dict[str, Cost] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def timed(runs: Iterable[Runs], device: str, end: float) -> Iterator[Costs]:
    """The cost of each key, those with the largest share of a plan first, until the clock says `end`: the same Costs
    again and again, with one key more each time."""
    kinds: dict[str, RunConfig] = {}
    most: dict[str, float] = {}
    for plan in runs:
        kinds |= dict(zip(plan.keys, plan.configs, strict=True))
        for key, share in plan.guessed.items():
            most[key] = max(share, most.get(key, 0))
    costs = Costs()
    for key in sorted(kinds, key=lambda key: -most[key]):
        if time.monotonic() >= end:
            break
        try:
            costs.of[key] = cost_of(kinds[key], device)
        except Exception as error:  # of one kind of run: its plans have failed, the others can be told
            traceback.print_exc()
            costs.failed[key] = f"{kinds[key].model.label} on {kinds[key].dataset.name}: {reason(error)}"
        yield costs


def extrapolated(aim: Aim, runs: Runs, costs: Costs) -> Row:
    """Hours of all runs; those of keys that were not timed are taken to be as dear, a step, as the rest."""
    shares = runs.guessed
    if failed := [costs.failed[key] for key in shares if key in costs.failed]:
        return aim.unmeasured(FAILED, failed[0])
    known = sum(share for key, share in shares.items() if key in costs.of)
    if not known:
        return aim.unmeasured(NOT_TIMED, f"{runs.text}; the time was over before one of them was timed")
    pairs = zip(runs.keys, runs.configs, strict=True)
    spent = sum(costs.of[key].run(config) for key, config in pairs if key in costs.of)
    return aim.row(spent / known / 3600, f"{runs.text}; {known:.0%} of the steps are of timed kinds")


def measure(device: str, seconds: float = SECONDS) -> Iterator[list[Row]]:
    """All rows after each kind of run that was timed, and at the end."""
    end = time.monotonic() + seconds - STARTING
    runs, costs = runs_of_all(), Costs()

    def rows(costs: Costs) -> list[Row]:
        return [extrapolated(aim, runs[named], costs) for named, aim in AIMS.items()]

    for costs in timed(runs.values(), device, end):
        yield rows(costs)
    yield rows(costs)


def counted() -> list[Row]:
    """What can be told without a device: how many runs there are."""
    runs = runs_of_all()
    return [aim.unmeasured(NO_GPU, runs[named].text) for named, aim in AIMS.items()]


LINE = Line("plans", SECONDS, tuple(AIMS.values()), measure, counted)
