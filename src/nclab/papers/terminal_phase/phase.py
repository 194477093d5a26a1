"""The terminal phase of a run: where it begins, and how a number changes in it. Torch-free."""

import math
from dataclasses import dataclass

import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import series
from nclab.analysis.runs import Run
from nclab.analysis.trend import LEAST_DEPTHS, line

FULL, NEARLY = 1.0, 0.996  # train accuracies at which the phase begins, see `terminal_phase`
LATEST = 0.75  # share of training after which a first epoch of FULL is too late for a phase to be seen


@dataclass(frozen=True)
class Phase:
    """The terminal phase of training: from `start`, the first measured epoch whose train accuracy reaches `level`."""

    start: int
    level: float

    @property
    def label(self) -> str:
        """'100 %' or '99.6 %'."""
        return f"{100 * self.level:g} %"


def terminal_phase(run: Run) -> Phase | None:
    """From the first measured epoch of 100 % train accuracy. Of a run that has none in the first three quarters of
    training it is that of 99.6 %, the level of Papyan, Han, Donoho 2020 where 100 % is not reached; None of a run that
    reaches neither."""
    accuracy = series(run, "accuracy", layer=NETWORK)
    reached = {level: accuracy.index[(accuracy >= level) & (accuracy.index > 0)] for level in (FULL, NEARLY)}
    if len(reached[FULL]) and reached[FULL][0] <= LATEST * run.end:
        return Phase(int(reached[FULL][0]), FULL)
    return Phase(int(reached[NEARLY][0]), NEARLY) if len(reached[NEARLY]) else None


def in_phase(run: Run, metric: str, split: str = "train", layer: str | None = None) -> pd.Series:
    """`series` from the start of the terminal phase on; empty where there is none."""
    phase = terminal_phase(run)
    values = series(run, metric, split, layer)
    return values[values.index >= phase.start] if phase else values[:0]


def slope(points: dict[float, float]) -> float:
    """Slope of log10(value) on log10(key); nan of fewer than three points, and where one is not above 0."""
    if len(points) < LEAST_DEPTHS or not all(math.isfinite(value) and value > 0 for value in points.values()):
        return math.nan
    return line(points)[0]
