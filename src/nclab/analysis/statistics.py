"""The numbers that claims are about: each a function of one finished run, with its unit.

A statistic is called as value(run, treated). `treated` is the run of the same pair whose maps were fixed (the run
itself where nothing is paired): 'the layers before the ETFs' are those of the treated run, also in its baseline.
It returns nan where the run has no such number; the seed then does not count and the verdict says so.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nclab.analysis.runs import Run

Value = Callable[[Run, Run], float]


@dataclass(frozen=True)
class Statistic:
    """A named number of a run. `unit` is that of differences, margins and thresholds; `margin` is the default one."""

    name: str
    unit: str
    value: Value
    margin: float | None = None
    margin_reason: str = ""

    @property
    def description(self) -> str:
        """First paragraph of the function's docstring, on one line."""
        return " ".join((self.value.__doc__ or "").split("\n\n")[0].split())


STATISTICS: dict[str, Statistic] = {}
HALF_A_POINT = (
    "0.5 points is 1.5 times the binomial standard error of one accuracy on 10,000 test images at 88 % "
    "(0.32 points): less than that, two networks cannot be told apart by one test split."
)


def statistic(unit: str, margin: float | None = None, margin_reason: str = "") -> Callable[[Value], Value]:
    """Register a function as a statistic under its own name."""

    def add(value: Value) -> Value:
        STATISTICS[value.__name__] = Statistic(value.__name__, unit, value, margin, margin_reason)
        return value

    return add


@statistic("points", 0.5, HALF_A_POINT)
def test_accuracy(run: Run, treated: Run) -> float:
    """Accuracy on the test split after the last epoch, in percent."""
    return _percent(run.result("final.test.accuracy"))


@statistic("points", 0.5, "0.5 points, as for the test accuracy: the claim names both in one breath.")
def train_accuracy(run: Run, treated: Run) -> float:
    """Accuracy on the train split after the last epoch, in percent, in evaluation mode."""
    return _percent(run.result("final.train.accuracy"))


@statistic("%")
def saved_share(run: Run, treated: Run) -> float:
    """Share of all parameters that are not learnable at the end, 100 (1 - learnable / total), in percent.

    total counts the parameters of the same network before any map was fixed, as in the summary tables.
    """
    return 100.0 * (1.0 - run.result("parameters_learnable") / run.result("parameters_total"))


@statistic("rho")
def ncc_rank_correlation(run: Run, treated: Run) -> float:
    """Spearman's rank correlation rho between the place of a stage in the network and its train NCC accuracy after the
    last epoch: 1 where every stage separates better than the one before, -1 where worse.

    Preferred to the share of adjacent rises because near the ceiling neighbours swap by chance (0.998 and 0.997):
    of five stages a swap of neighbours lowers rho from 1 to 0.9, but the share from 1 to 0.75. Ties share their mean
    rank; nan where all stages are equal, since a constant has no rank correlation.
    """
    ncc = _train_ncc(run, run.stages).reindex([run.config["epochs"]]).iloc[0]
    if ncc.isna().any() or ncc.nunique() < 2:
        return math.nan
    return round(float(np.corrcoef(np.arange(len(ncc)), ncc.rank())[0, 1]), 12)


@statistic("layers")
def layers_beyond_effective_depth(run: Run, treated: Run) -> float:
    """Stages after the effective depth: depth - effective depth, and 0 where there is no effective depth.

    A network no stage of which separates its train split has no effective depth, hence no layer beyond it; nan would
    leave exactly the runs out that speak against the claim.
    """
    depth = run.result("final.effective_depth")
    return 0.0 if depth is None else float(len(run.stages) - depth)


@statistic("points")
def ncc_before_etf(run: Run, treated: Run) -> float:
    """Train NCC accuracy, in percent after the last epoch, of the last learnable stage before the ETFs."""
    layers = layers_before_etf(treated)[-1:]
    return _mean(_train_ncc(run, layers).reindex([run.config["epochs"]]))


@statistic("points")
def early_ncc(run: Run, treated: Run) -> float:
    """Train NCC accuracy in percent, mean over the first quarter of training and the stages before the ETFs.

    The mean over the measured epochs e with 1 <= e <= epochs / 4 is the area under the curve by unit of time. Epoch 0
    is left out: what an untrained network separates says nothing about the speed of training.
    """
    ncc = _train_ncc(run, layers_before_etf(treated))
    return _mean(ncc[(ncc.index >= 1) & (ncc.index <= run.config["epochs"] / 4)])


def layers_before_etf(run: Run) -> list[str]:
    """Stages before the first one with a fixed map, input to output; none where nothing was fixed."""
    fixed = {event.get("site") for event in run.events if event.get("event") == "switch"}
    stages = [layer for layer in run.layers if layer["stage"] is not None]
    first = next((i for i, layer in enumerate(stages) if fixed & set(layer["stage"])), 0)
    return [layer["layer"] for layer in stages[:first]]


def _train_ncc(run: Run, layers: list[str]) -> pd.DataFrame:
    """Train NCC accuracy in percent: a row an epoch, a column a layer; nan where it was not measured."""
    rows = run.metrics
    rows = rows[(rows.split == "train") & (rows.metric == "ncc_accuracy") & rows.layer.isin(layers)]
    table = rows.astype({"layer": str}).pivot(index="epoch", columns="layer", values="value")
    return 100.0 * table.reindex(columns=layers)


def _mean(table: pd.DataFrame) -> float:
    return float(table.to_numpy().mean()) if table.size else math.nan


def _percent(share: float | None) -> float:
    return math.nan if share is None else 100.0 * share
