"""Runs of model=hadamard: their time of gradient flow, their numbers, and the flow from the same start. Torch-free."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nclab.analysis.curves import NETWORK
from nclab.analysis.runs import AnalysisError, Run, refuse_mixture
from nclab.theory.hadamard import flow

DIRECTIONS = {"hadamard": "Hadamard", "aligned": "one random frame", "random": "two random frames"}


def numbers(run: Run) -> pd.DataFrame:
    """Columns of the suite and the loss (`loss`) of the train split, one row a measured epoch. Raises AnalysisError
    where the suite was not measured."""
    rows = run.metrics
    rows = rows[(rows.split == "train") & (rows.layer == NETWORK)].astype({"metric": str})
    table = rows.pivot(index="epoch", columns="metric", values="value").sort_index()
    if "leakage" not in table:
        raise AnalysisError(f"{run.path / 'metrics.csv'}: no leakage; expected hadamard in metrics.suite")
    return table


def classes(run: Run) -> int:
    return int(run.settings["dataset.classes"])


def face(run: Run) -> list[int]:
    """The i whose s_i start on the face, or beside it."""
    return list(range(1, 1 + int(run.settings["model.face"])))


def singular(table: pd.DataFrame, stem: str = "s") -> pd.DataFrame:
    """The columns stem_0 ... stem_{K-1} of `numbers`, in that order, named 0 ... K-1."""
    names = [f"{stem}_{i}" for i in range(sum(name.startswith(f"{stem}_") for name in table))]
    return table[names].set_axis(range(len(names)), axis=1)


def times(run: Run, epochs: pd.Index) -> np.ndarray:
    """Time of gradient flow after each of the epochs: the sum of the learning rates of all steps until then.

    Raises AnalysisError for a schedule other than log_time and constant, and for momentum.
    """
    settings = run.settings
    schedule, momentum = settings["schedule.name"], settings.get("optimizer.momentum", 0)
    if schedule not in ("log_time", "constant") or settings["optimizer.name"] != "sgd" or momentum:
        raise AnalysisError(
            f"{run.path}: the time of gradient flow is that of optimizer=sgd without momentum under schedule=log_time "
            f"or constant; got {settings['optimizer.name']}, momentum {momentum}, {schedule}"
        )
    steps = settings.get("sampler.repeats", 1)  # one feature a class: a batch is the whole split
    e = np.asarray(epochs, dtype=np.float64)
    gamma = settings["schedule.gamma"] if schedule == "log_time" else 1.0
    passed = e if gamma == 1 else np.expm1(e * np.log(gamma)) / (gamma - 1)
    return settings["optimizer.lr"] * steps * passed


def flow_beside(run: Run, table: pd.DataFrame) -> np.ndarray:
    """What the flow of singular values makes of the start of the run, (epochs, K): its s_i at the measured epochs."""
    s = singular(table).iloc[0].clip(lower=0).to_numpy(copy=True)
    s[[i for i in face(run) if not run.settings["model.beside"]]] = 0  # rounding of L^T Z R apart
    return flow(s, np.log1p(times(run, table.index)))


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    classes: int
    directions: str
    face: int
    beside: float
    runs: list[Run]

    def over_seeds(self, metric: str) -> pd.DataFrame:
        """time, mean, low, high, n of a column at the measured epochs; low and high are the least and the greatest."""
        tables = [numbers(run)[metric] for run in self.runs]
        both = pd.concat(tables, axis=1)
        found = {"mean": both.mean(axis=1), "low": both.min(axis=1), "high": both.max(axis=1), "n": both.count(axis=1)}
        return pd.DataFrame(found).assign(time=times(self.runs[0], both.index)).reset_index(names="epoch")


def groups(runs: list[Run]) -> list[Group]:
    """By number of classes, directions in their usual order, face and its distance. Raises AnalysisError where the runs
    of a group differ in more than their seed."""
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        s = run.settings
        key = classes(run), s["model.directions"], int(s["model.face"]), float(s["model.beside"])
        found.setdefault(key, []).append(run)
    for own in found.values():
        refuse_mixture(own)
    order = list(DIRECTIONS)
    keys = sorted(found, key=lambda key: (key[0], order.index(key[1]), *key[2:]))
    return [Group(*key, sorted(found[key], key=lambda run: run.seed)) for key in keys]
