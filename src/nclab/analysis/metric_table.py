"""Any columns of metrics.csv over epochs, averaged over seeds: the numbers behind the curves and the heat map."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from nclab.analysis.columns import DISTANCE, ERROR, LINEAR, SHARE, floor_of, kind_of
from nclab.analysis.curves import NETWORK
from nclab.analysis.runs import AnalysisError, Run
from nclab.interfaces.valid import unknown


def metric_table(
    runs: list[Run], metrics: Iterable[str], split: str = "train", layers: Iterable[str] | None = None
) -> pd.DataFrame:
    """A row a metric, policy, layer and epoch: metric, split, policy, layer, epoch, n, zeros, mean, std, log10_mean,
    log10_std, and what a picture shows: kind, value, low, high, floored.

    n counts the seeds with a defined value, zeros those whose value (of an accuracy: whose error) is 0.
    A share is drawn as its error 1 - value. A distance is drawn as the geometric mean, with the band of one standard
    deviation of the logarithm; what is 0 has no logarithm and stands at half of the smallest value of its column.
    Other columns are drawn as mean +- std. floored: all seeds are 0 there, and value is a floor (see `floor_of`).

    Args:
        runs: Which may be averaged: see `refuse_mixture`.
        metrics: Columns of metrics.csv.
        split: train, test or another split of the runs.
        layers: Default: those that end a step of depth, the classifier's input, else the network.

    Raises:
        AnalysisError: A column, split or layer that no run measured; the message names those there are.
    """
    tables = [_one(runs, metric, split, layers) for metric in dict.fromkeys(metrics)]
    return pd.concat(tables, ignore_index=True)


def _one(runs: list[Run], metric: str, split: str, layers: Iterable[str] | None) -> pd.DataFrame:
    rows = pd.concat([run.metrics.assign(policy=run.policy, seed=run.seed) for run in runs])
    rows = rows.astype({"split": str, "layer": str, "metric": str})
    for kind, column, wanted in (("metric", "metric", metric), ("split", "split", split)):
        there = list(dict.fromkeys(rows[column]))
        if wanted not in there:
            raise AnalysisError(unknown(f"{kind} of {'these runs' if kind == 'metric' else metric}", wanted, there))
        rows = rows[rows[column] == wanted]
    there = list(dict.fromkeys(rows.layer[rows.value.notna()]))
    if not there:
        raise AnalysisError(f"{split} {metric} is nan at every layer and epoch of these runs")
    chosen = _layers(runs, there) if layers is None else list(layers)
    for layer in chosen:
        if layer not in there:
            raise AnalysisError(unknown(f"layer with {split} {metric}", layer, there))
    rows = rows[rows.layer.isin(chosen)]
    kind = kind_of(metric)
    groups = rows.assign(zero=rows.value == (1.0 if kind == SHARE else 0.0), log=_logs(rows.value)).groupby(
        ["policy", "layer", "epoch"], sort=False
    )
    table = groups.agg(
        n=("value", "count"),
        zeros=("zero", "sum"),
        mean=("value", "mean"),
        std=("value", "std"),
        log10_mean=("log", "mean"),
        log10_std=("log", "std"),
    ).reset_index()
    orders = {
        "policy": {name: i for i, name in enumerate(dict.fromkeys(run.policy for run in runs))},
        "layer": {name: i for i, name in enumerate(chosen)},
    }
    table = table.sort_values(
        ["policy", "layer", "epoch"], key=lambda column: column.map(orders.get(column.name, lambda value: value))
    )
    table.insert(0, "split", split)
    table.insert(0, "metric", metric)
    return _drawn(table, kind, runs, split)


def _layers(runs: list[Run], there: list[str]) -> list[str]:
    """Those that end a step of depth and the classifier's input, in network order; else all that are there."""
    known = [layer for run in runs for layer in run.layers]
    usual = [layer["layer"] for layer in known if layer["stage"] is not None or layer["role"] == "classifier_input"]
    chosen = [layer for layer in dict.fromkeys(usual) if layer in there]
    return chosen or ([NETWORK] if NETWORK in there else there)


def _logs(values: pd.Series) -> pd.Series:
    """log10, of 0 that of half of the smallest positive value; negative values have none."""
    least = values[values > 0].min()
    return np.log10(values.where(values != 0, least / 2).where(values >= 0))


def _drawn(table: pd.DataFrame, kind: str, runs: list[Run], split: str) -> pd.DataFrame:
    table = table.assign(kind=kind, floored=False)
    if kind == LINEAR or (kind == DISTANCE and table.log10_mean.isna().all()):
        spread = table["std"].fillna(0)
        return table.assign(
            kind=LINEAR, value=table["mean"], low=table["mean"] - spread, high=table["mean"] + spread, floor=np.nan
        )
    if kind == DISTANCE:
        spread = table.log10_std.fillna(0)
        value, low, high = (10 ** (table.log10_mean + sign * spread) for sign in (0, -1, 1))
        return table.assign(value=value, low=low, high=high, floored=(table.zeros == table.n) & (table.n > 0))
    error = 1 - table["mean"] if kind == SHARE else table["mean"]
    floor, _ = floor_of(runs, split, error)
    spread = table["std"].fillna(0)
    value, low, high = (np.maximum(error + sign * spread, floor).where(error.notna()) for sign in (0, -1, 1))
    return table.assign(value=value, low=low, high=high, floored=(error <= 1e-12) & error.notna())


def settled(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that axes and colour scales are made for: without the first 5 % of training, at least epoch 0.

    An untrained network may be a thousand times as far from collapse as any trained one; it runs out of the axis.
    """
    rows = table[table.epoch >= max(1.0, 0.05 * table.epoch.max())]
    return rows if rows.value.notna().any() else table


def floors(table: pd.DataFrame, runs: list[Run]) -> list[str]:
    """The line of a caption that says where values of 0 are drawn; none where there is none."""
    told = []
    for metric in table.metric[table.floored].unique():
        rows = table[table.metric == metric]
        kind, split = rows.kind.iloc[0], rows.split.iloc[0]
        error = 1 - rows["mean"] if kind == SHARE else rows["mean"]
        told.append(floor_of(runs, split, error)[1] if kind in (SHARE, ERROR) else f"half of the smallest {metric}")
    return [f"0 is drawn at {' or '.join(dict.fromkeys(told))}"] if told else []


def axis_name(metric: str, split: str, kind: str) -> str:
    """'train nc1', '1 − train ncc_accuracy': a column by its name, since there are two of NC1 and six of NC2."""
    return f"1 − {split} {metric}" if kind == SHARE else f"{split} {metric}"


def spread_note(table: pd.DataFrame, band: bool = True) -> str:
    """'one seed', or what the drawn mean (and its band) is, of how many seeds."""
    if (most := int(table.n.max())) <= 1:
        return "one seed"
    kinds = set(table.kind)
    words = [f"geometric mean{' ×/÷ std of the logarithm' * band}"] if DISTANCE in kinds else []
    words += [f"mean{' ± std' * band}"] if kinds - {DISTANCE} else []
    return f"{' or '.join(words)} of {most} seeds"


def is_flat(rows: pd.DataFrame) -> bool:
    """Whether no curve of these rows changes to the eye, by more than a thousandth; what is nan does not."""
    for _, curve in rows.groupby(["policy", "layer"], sort=False):
        value = curve.value.dropna()
        if len(value) and value.max() - value.min() > 1e-3 * max(abs(value.max()), 1e-12):
            return False
    return True
