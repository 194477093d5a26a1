"""The numbers that the claims on the nearest simplex ETF are about (Markou et al. 2024, arXiv 2411.01248).

A run is full batch: an epoch is a gradient step. Steps are counted to the first measured epoch; a run that does not get
there counts as one step more than it has, which is too few.
"""

import math

import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import series
from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic

COLLAPSED = 0.01  # NC1 (nc1) from which on features count as collapsed
CLOSER = 1.0  # nc1_trace_ratio from which on they vary less within classes than between them


def at_input(run: Run, metric: str) -> pd.Series:
    """A metric of the train split by measured epoch, of the network where it is one, else of the classifier's input.
    Raises AnalysisError where it was not measured."""
    return series(run, metric, layer=NETWORK if metric in ("loss", "accuracy") else None)


def first_step(run: Run, reached: pd.Series) -> float:
    """The first epoch of a series of truths by epoch; one more than the run has where none is true."""
    there = reached.index[reached]
    return float(there[0]) if len(there) else float(run.config["epochs"] + 1)


@statistic("steps", measured=True)
def steps_to_train_accuracy(run: Run, treated: Run) -> float:
    """Steps until the train accuracy is 100 %; those of the whole run and one where it never is."""
    return first_step(run, at_input(run, "accuracy") == 1)


@statistic("steps", measured=True)
def steps_to_collapse(run: Run, treated: Run) -> float:
    """Steps until NC1 (nc1) is 0.01 or less; those of the whole run and one where it never is."""
    return first_step(run, at_input(run, "nc1") <= COLLAPSED)


@statistic("steps", measured=True)
def steps_to_trace_collapse(run: Run, treated: Run) -> float:
    """Steps until the variance within classes is no larger than that between them (nc1_trace_ratio at 1 or less), over
    all dimensions; those of the whole run and one where it never is."""
    return first_step(run, at_input(run, "nc1_trace_ratio") <= CLOSER)


def last_log(run: Run, metric: str) -> float:
    """log10 of a metric at the classifier's input after the last step; nan of what is not above 0."""
    value = float(at_input(run, metric).get(run.end, math.nan))
    return math.log10(value) if value > 0 else math.nan


@statistic("decades", measured=True)
def last_log_nc1(run: Run, treated: Run) -> float:
    """log10 of NC1 (nc1) at the classifier's input after the last step."""
    return last_log(run, "nc1")


@statistic("decades", measured=True)
def last_log_nc1_trace_ratio(run: Run, treated: Run) -> float:
    """log10 of the variance within classes over that between (nc1_trace_ratio) after the last step."""
    return last_log(run, "nc1_trace_ratio")


@statistic("decades", measured=True)
def last_log_nc3(run: Run, treated: Run) -> float:
    """log10 of the distance of classifier and class means (nc3) after the last step."""
    return last_log(run, "nc3")


@statistic("cosine", measured=True)
def last_cosine_margin(run: Run, treated: Run) -> float:
    """Least cosine margin of all samples (cosine_margin_min) after the last step; C/(C-1) at collapse."""
    return float(at_input(run, "cosine_margin_min").get(run.end, math.nan))
