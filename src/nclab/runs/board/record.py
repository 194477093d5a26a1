"""A run as the board holds it: its settings, the last of its numbers, and its curves packed for the browser."""

import base64
import fnmatch
import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nclab.analysis.class_plane import PREFIX, points, scaled
from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import classifier_input
from nclab.analysis.runs import AnalysisError, Run
from nclab.runs.diff import one_run

# What is drawn unless metrics are named, of classifiers and of networks that predict values.
SHOWN = ("loss", "accuracy", "balanced_accuracy", "ncc_accuracy", "nc1", "nc2_gram", "nc3", "nc4_mismatch")
SHOWN += ("effective_depth", "r2", "nrc1", "nrc2", "nrc3")
MOST_EPOCHS = 60  # of a curve: more do not show at the size of the page
DIGITS = 4


@dataclass(frozen=True)
class Record:
    """What the folder of a run holds for the board."""

    run: Run | None = None  # None where its configuration cannot be read, or is not there yet
    packed: str = ""  # its curves: JSON, gzip, base64; empty where nothing was measured
    last: dict[str, float | None] = field(default_factory=dict)  # 'test accuracy', 'nc1'
    measured: frozenset[str] = frozenset()  # the names of its metrics
    broken: str = ""  # why a file of it cannot be read


def read(folder: Path, metrics: tuple[str, ...]) -> Record:
    """The run in a folder, finished or not; `metrics` are names or patterns such as nc2_*, none: SHOWN. A file that
    cannot be read is named in the record, not raised."""
    if not (folder / "config.yaml").is_file():
        return Record()  # submitted to Slurm, and not begun
    run = None
    try:
        run = one_run(folder)
        if not run.finished and not (folder / "metrics.csv").exists():
            return Record(run)
        return _record(run, Run(run.path, run.config), metrics or SHOWN)
    except AnalysisError as error:
        if not folder.is_dir():
            return Record()  # removed in between
        return Record(run, broken=str(error).removeprefix(f"{folder}/"))


def _record(run: Run, whole: Run, metrics: tuple[str, ...]) -> Record:
    """`whole` is the same run, to be forgotten with all that it reads; `run` stays in memory."""
    rows = whole.metrics
    epochs = np.sort(rows["epoch"].unique())
    kept = thinned(epochs)
    series = series_of(rows, metrics, kept)
    last = series_of(rows, ("accuracy", "nc1"), epochs[-1:])
    where = {"test accuracy": ("accuracy", "test", NETWORK), "nc1": ("nc1", "train", features(whole))}
    numbers = {name: last[key][1][-1] if key in last else None for name, key in where.items()}
    curves = _packed(whole, series, kept, len(epochs)) if series else ""
    return Record(run, curves, numbers, frozenset(rows["metric"].cat.categories))


def features(run: Run) -> str | None:
    """The layer that the classifier reads; None in a network without a classifier."""
    try:
        return classifier_input(run)
    except AnalysisError:
        return None


Series = dict[tuple[str, str, str], tuple[np.ndarray, list[float | None]]]  # (metric, split, layer) -> epochs, values


def series_of(rows: pd.DataFrame, metrics: tuple[str, ...], kept: np.ndarray) -> Series:
    """The curves of these metrics at the kept epochs, in the order in which metrics.csv has them."""
    # By codes, without pandas' own grouping: that takes most of the time of a page of thousands of runs.
    columns = [rows[name].array for name in ("metric", "split", "layer")]
    codes = np.stack([column.codes for column in columns], dtype="int64")  # (3, rows)
    names = [column.categories.tolist() for column in columns]
    wanted = np.array([any(fnmatch.fnmatchcase(name, one) for one in metrics) for name in names[0]], bool)
    there = np.flatnonzero(wanted[codes[0]] & np.isin(rows["epoch"].to_numpy(), kept))
    if not len(there):
        return {}
    codes, epochs = codes[:, there], rows["epoch"].to_numpy()[there]
    values = rounded(rows["value"].to_numpy()[there])
    together = np.ravel_multi_index(tuple(codes), [len(name) for name in names])
    order = np.lexsort((epochs, together))
    parts = np.split(order, np.flatnonzero(np.diff(together[order])) + 1)
    found = {}
    for part in sorted(parts, key=lambda part: part[0]):
        metric, split, layer = (name[code] for name, code in zip(names, codes[:, part[0]].tolist(), strict=True))
        found[metric, split, layer] = (epochs[part], [values[i] for i in part.tolist()])
    return found


def _packed(run: Run, series: Series, kept: np.ndarray, measured: int) -> str:
    """Layers in network order, epochs, the series by metric, split and layer, and where layers were fixed."""
    nested: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for (metric, split, layer), (epochs, values) in series.items():
        whole = values
        if len(epochs) < len(kept):  # null where it was not measured
            by_epoch = dict(zip(epochs.tolist(), values, strict=True))
            whole = [by_epoch.get(epoch) for epoch in kept.tolist()]
        nested.setdefault(metric, {}).setdefault(split, {})[layer] = whole
    content = {
        "layers": list(dict.fromkeys(layer for _, _, layer in series)),
        "features": features(run),
        "epochs": kept.tolist(),
        "measured": measured,
        "series": nested,
        "switches": [
            [event.get("epoch"), event.get("layer") or event.get("site")]
            for event in run.events
            if event.get("event") == "switch"
        ],
        "plane": _plane(run, kept),
    }
    return packed(json.dumps(content, separators=(",", ":"), allow_nan=False))


def packed(text: str) -> str:
    """gzip and base64, as a browser unpacks it; the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def thinned(epochs: np.ndarray) -> np.ndarray:
    """At most MOST_EPOCHS of them, evenly spaced, the first and the last always."""
    if len(epochs) <= MOST_EPOCHS:
        return epochs
    return epochs[np.linspace(0, len(epochs) - 1, MOST_EPOCHS).round().astype(int)]


def rounded(values: np.ndarray) -> list[float | None]:
    """The numbers with four digits; None where one is not finite.

    >>> rounded(np.array([0.123456, 98765.4, float("nan")]))
    [0.1235, 98765, None]
    """
    finite = np.isfinite(values)
    size = np.abs(np.where(finite & (values != 0), values, 1.0))
    power = 10.0 ** np.clip(DIGITS - 1 - np.floor(np.log10(size)), 0, 22)  # exact up to 22: so quotients print short
    numbers = (np.where(finite, values, 0.0) * power).round() / power
    short = [int(number) if number.is_integer() and abs(number) >= 1 else number for number in numbers.tolist()]
    return short if finite.all() else [number if there else None for number, there in zip(short, finite, strict=True)]


def _plane(run: Run, epochs: np.ndarray) -> dict[str, Any] | None:
    """Of the suite projection, by kept epoch and class: the mean, the row of the classifier and the samples, each a
    point [x, y] in units of the mean length; None in a run that does not measure it."""
    if not any(name.startswith(PREFIX) for name in run.metrics["metric"].cat.categories):
        return None
    table = scaled(points(run))
    table = table[table["epoch"].isin(epochs)].dropna()
    found: dict[str, Any] = {"epochs": sorted(table["epoch"].unique().tolist())}
    for kind in ("mean", "row", "sample"):
        own = table[table["kind"] == kind]
        by_epoch = {epoch: _by_class(part, kind == "sample") for epoch, part in own.groupby("epoch")}
        found[kind] = [by_epoch.get(epoch, []) for epoch in found["epochs"]]
    return found if found["epochs"] else None


def _by_class(part: pd.DataFrame, several: bool) -> list:
    """One epoch: a point a class, or with `several` a list of them."""
    points_of = [own[["x", "y"]].round(3).to_numpy().tolist() for _, own in part.groupby("label")]
    return points_of if several else [of_class[0] for of_class in points_of]
