"""Collapse, error and margin of networks against the epoch, below learnt, fixed and nearest classifiers."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.curves import NETWORK
from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import series
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.runs import Run
from nclab.papers.etf_networks.arms import LOOKS, NEEDED, about, arms

PANELS = [  # title, column of metrics.csv, split, layer (None: the classifier's input)
    ("NC1: variability\nwithin classes (nc1)", "nc1", "train", None),
    ("NC2: class means and the\nmaximal angle (nc2_equiangular)", "nc2_equiangular", "train", None),
    ("NC3: classifier and\nclass means (nc3)", "nc3", "train", None),
    ("Least cosine margin\n(cosine_margin_min)", "cosine_margin_min", "train", None),
    ("Error, 1 − train accuracy", "accuracy", "train", NETWORK),
    ("Error, 1 − test accuracy", "accuracy", "test", NETWORK),
]
LEAST_ERROR = 1e-4  # where an error of 0 is drawn on its log axis


@DRAWINGS.figure(
    "etf_networks",
    of="networks below learnt, fixed and nearest classifiers: collapse and error against the epoch",
    caption="Networks below a classifier that is learnt, fixed to one simplex ETF, or set at every step to the simplex "
    "ETF nearest to the class means. Solid: the network's own dimension d of the last features; dashed: as many as "
    "there are classes, d = K. Lines are medians over seeds, bands reach from the least seed to the greatest: NC1 "
    "(nc1), NC2 (nc2_equiangular) and NC3 (nc3) of the classifier's input, its least cosine margin "
    "(cosine_margin_min), train and test error.",
    says=lambda table: ends(table),
    needs=NEEDED,
)
def networks_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Six panels; returns the picture and its table: arm, metric, split, epoch, median, low, high, n."""
    groups = arms(runs)
    table = pd.concat([_rows(name, group) for name, group in groups.items()], ignore_index=True)
    with style():
        return _draw(table, groups), table


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: a row an arm, the medians after the last epoch."""
    last = table[table.epoch == table.epoch.max()]
    names = last.metric.where(last.metric != "accuracy", last.split + " accuracy")
    wide = last.assign(metric=names).pivot(index="arm", columns="metric", values="median")
    wide = wide.reindex([name for name in LOOKS if name in wide.index]).map("{:.3g}".format)
    return wide.reset_index()


def _rows(name: str, runs: list[Run]) -> pd.DataFrame:
    found = []
    for _, metric, split, layer in PANELS:
        values = pd.concat([series(run, metric, split, layer) for run in runs], axis=1)
        values = values[values.index > 0]
        over = {"median": values.median(axis=1), "low": values.min(axis=1), "high": values.max(axis=1)}
        rows = pd.DataFrame({"epoch": values.index} | over | {"n": values.count(axis=1)})
        found.append(rows.assign(arm=name, metric=metric, split=split))
    return pd.concat(found)[["arm", "metric", "split", "epoch", "median", "low", "high", "n"]]


def _draw(table: pd.DataFrame, groups: dict[str, list[Run]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.5), layout="constrained")
    for i, (axes, panel) in enumerate(zip(figure.subplots(2, 3, sharex=True).flat, PANELS, strict=True)):
        title, metric, split, _ = panel
        axes.set_title(title, fontsize=7.5)
        for name in groups:
            rows = table[(table.arm == name) & (table.metric == metric) & (table.split == split)]
            _curve(axes, rows, LOOKS[name], metric == "accuracy")
        _axes(axes, int(table.epoch.max()), metric)
        if i >= 3:
            axes.set_xlabel("epoch")
    first = next(iter(groups.values()))[0]
    seeds = seeds_note(map(len, groups.values()), "median and range")
    caption(figure, about(first), f"{seeds}; d = K: a channel a class; an error of 0 is drawn at {LEAST_ERROR:g}")
    labels = {name: name.replace(", d", ", own d").replace(", K", ", d = K") for name in groups}
    legend(figure, [key(labels[name], **LOOKS[name]) for name in groups], most=3)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, look: dict, error: bool) -> None:
    middle, low, high = (rows[name].to_numpy() for name in ("median", "low", "high"))
    if error:
        middle, low, high = (np.maximum(1 - values, LEAST_ERROR) for values in (middle, high, low))
    axes.plot(rows.epoch, middle, lw=0.8 * THICK, zorder=3, **look)
    if (high > low).any():
        axes.fill_between(rows.epoch, low, high, color=look["color"], alpha=0.14, lw=0, zorder=2)


def _axes(axes: Axes, last: int, metric: str) -> None:
    axes.set_xlim(0, last)
    axes.set_xticks(range(last, 0, -max(1, round(last / 4))))  # the axis ends at a tick
    if metric == "cosine_margin_min":  # it is negative where a sample is wrong
        return
    axes.set_yscale("log")
    log_ticks(axes.yaxis)
