"""What a run over tasks leaves: the accuracy on every task after every task, of the network and of a probe."""

import re

import numpy as np
import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import classifier_input, series
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run

NEEDED = Needs("runs that measure the suites seen_probe and past", suites=frozenset({"seen_probe", "past"}))
HEADS, PROBE = "accuracy", "seen_probe_accuracy"  # of the network, A; of the probe, A*
TASK = re.compile(r"task(\d+)")


def is_joint(run: Run) -> bool:
    """Whether it is trained on all classes at once."""
    return run.config["phases"]["name"] == "single"


def scenario(run: Run) -> str:
    """class, task or domain (phases.incremental)."""
    return run.config["phases"]["incremental"]


def share(run: Run) -> float:
    """The share of earlier samples that is replayed, 0 to 1. Raises AnalysisError for a buffer of so many samples."""
    sampler = run.config["sampler"]
    if sampler["name"] != "replay":
        return 0.0
    if sampler["share"] is None:
        raise AnalysisError(f"{run.path}: expected sampler.share, got a buffer of sampler.size={sampler['size']}")
    return float(sampler["share"])


def ends(run: Run) -> list[int]:
    """The epoch at which each task ends. Raises AnalysisError for a run without tasks."""
    splits = run.metrics.split.astype(str).unique()
    count = sum(TASK.fullmatch(split) is not None for split in splits)
    if not count:
        raise AnalysisError(f"{run.path / 'metrics.csv'}: expected splits task1, task2, ..., got {', '.join(splits)}")
    each = run.config["epochs"] // count
    return [each * (i + 1) for i in range(count)]


def at_task_ends(run: Run, metric: str, split: str = "train", layer: str | None = None) -> pd.Series:
    """A column at the end of every task, by the number of the task. Raises AnalysisError where it was not measured."""
    values, epochs = series(run, metric, split, layer), ends(run)
    if absent := [epoch for epoch in epochs if epoch not in values.index]:
        raise AnalysisError(
            f"{run.path / 'metrics.csv'}: no {metric} at epoch {absent[0]}, the end of a task; expected metrics.every "
            f"that divides {epochs[0]}"
        )
    return pd.Series(values.loc[epochs].to_numpy(), index=range(1, len(epochs) + 1))


def matrix(run: Run, metric: str) -> np.ndarray:
    """(T, T): row i, column j holds the accuracy on the test samples of task j after task i, of HEADS or PROBE."""
    layer = NETWORK if metric == HEADS else classifier_input(run)
    count = len(ends(run))
    return np.stack([at_task_ends(run, metric, f"task{j + 1}", layer).to_numpy() for j in range(count)], axis=1)


def forgetting(accuracy: np.ndarray) -> float:
    """Mean over all tasks j but the last of A_jj - A_Tj, in points: shallow forgetting of A, deep forgetting of A*."""
    return float(100 * (np.diag(accuracy) - accuracy[-1])[:-1].mean())


def final(accuracy: np.ndarray) -> float:
    """Mean over tasks of the accuracy after the last one, in percent."""
    return float(100 * accuracy[-1].mean())
