"""Accuracy against learnable parameters: a point a policy, and the front that no other policy beats in both."""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from nclab.analysis.drawing import WIDTH, caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import setting_label
from nclab.analysis.looks import kind_look
from nclab.analysis.placing import place_labels
from nclab.analysis.runs import AnalysisError, Run, choose, differences
from nclab.analysis.summary import CLASSIFIERS
from nclab.analysis.tables import readable, summary_table

SPLITS = ("train", "test")
LABEL = 6.5  # points
STEP = 0.008  # of the range of parameters, between points with equally many


@DRAWINGS.figure(
    "pareto",
    of="any classifiers of one dataset: accuracy against learnable parameters, and the Pareto front",
    caption="Train and test accuracy against the number of learnable parameters; the line is the Pareto front.",
    says=lambda table: readable(table.drop(columns=["label", "train_front", "test_front"])),
    needs=CLASSIFIERS,
)
def pareto(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """A point a policy, and of networks of several sizes a point each; mean and sample standard deviation over seeds.

    The table is `summary_table` with the columns label, train_front and test_front: whether no other point has at most
    as many learnable parameters and at least this mean accuracy, one of them better.
    """
    runs = choose(runs, policies) if policies else runs
    sizes = [name for name in differences(runs) if name.startswith("model.")]
    if others := [name for name in differences(runs) if name not in sizes]:
        values = ", ".join(map(str, differences(runs)[others[0]]))
        raise AnalysisError(
            f"points that are compared must not differ in {others[0]} = {values}; choose, e.g. with --dataset, "
            f"--epochs or --where {others[0]}=VALUE"
        )
    table = summary_table(runs, sizes)
    table.insert(0, "label", _labels(table, sizes))
    for split in SPLITS:
        table[f"{split}_front"] = front(table.learnable, table[f"{split}_accuracy"])
    with style():
        return _draw(table, runs, sizes), table


def front(cost: pd.Series, gain: pd.Series) -> list[bool]:
    """Whether each point is on the Pareto front: none costs at most as much and gains at least as much, one of both
    strictly.

    >>> front(pd.Series([1, 2, 3, 3]), pd.Series([0.5, 0.9, 0.8, 0.95]))
    [True, True, False, True]
    """
    points = list(zip(cost, gain, strict=True))
    return [
        bool(np.isfinite(g))
        and not any(other <= c and better >= g and (other < c or better > g) for other, better in points)
        for c, g in points
    ]


def _labels(table: pd.DataFrame, sizes: list[str]) -> list[str]:
    """The policy, and of a network of another size than most what is other: 'baseline, depth 3'."""
    usual = {name: table[name].mode()[0] for name in sizes}
    return [
        ", ".join([row["policy"], *(f"{name.split('.')[1]} {row[name]}" for name in sizes if row[name] != usual[name])])
        for row in table.to_dict("records")
    ]


def _draw(table: pd.DataFrame, runs: list[Run], sizes: list[str]) -> Figure:
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    grid = figure.subplots(2, 1, sharex=True)
    drawn = [_points(axes, table, split) for axes, split in zip(grid, SPLITS, strict=True)]
    grid[1].set_xlabel("learnable parameters")
    keys = [key("Pareto front (filled)", lw=1.0, color="0.55", marker="o", ms=4)]
    keys += [key("mean and std over seeds", lw=0.8, color="0.3", marker="o", ms=4, mfc="white")]
    legend(figure, keys)
    note = "points of equally many parameters stand side by side" if table.learnable.duplicated().any() else ""
    title = setting_label(runs[0].config, tuple(sizes))
    caption(figure, f"{title}: accuracy and learnable parameters; {seeds_note(table.seeds)}", note)
    for axes, lines in zip(grid, drawn, strict=True):
        points = [line.get_xydata()[0] for line in axes.lines if line.get_gid() == "point"]
        colours = [kind_look(policy)["color"] for policy in table.policy]
        place_labels(axes, points, [*table.label], LABEL, lines, colours)
    return figure


def _aside(learnable: pd.Series) -> pd.Series:
    """Steps to the side, so that the spreads of points with equally many parameters are all seen."""
    groups = learnable.groupby(learnable)
    return groups.cumcount() - (groups.transform("count") - 1) / 2


def _points(axes: Axes, table: pd.DataFrame, split: str) -> list:
    """The points with their spread, and the front; returns the lines, from point to point."""
    lines, step = [], STEP * (table.learnable_max.max() - table.learnable_min.min())
    for row, aside in zip(table.to_dict("records"), _aside(table.learnable), strict=True):
        x, y, std = row["learnable"], 100 * row[f"{split}_accuracy"], 100 * row[f"{split}_accuracy_std"]
        spread = 0.0 if np.isnan(std) else std
        across = (row["learnable_min"], y), (row["learnable_max"], y)
        x += step * aside
        lines += [((x, y - spread), (x, min(y + spread, 100.0))), across]
        look = kind_look(row["policy"])
        for ends in lines[-2:]:
            axes.plot(*zip(*ends, strict=True), color=look["color"], lw=0.8, zorder=3)
        face = look["color"] if row[f"{split}_front"] else "white"
        axes.plot(x, y, ls="", ms=5, mew=0.9, mfc=face, mec=look["color"], marker=look["marker"], zorder=4, gid="point")
    best = table[table[f"{split}_front"]].sort_values("learnable")
    corners = [*zip(best.learnable, 100 * best[f"{split}_accuracy"], strict=True)]
    axes.plot(*zip(*corners, strict=True), color="0.55", lw=1.0, drawstyle="steps-post", zorder=2, gid="front")
    for (x, y), (right, top) in pairwise(corners):
        lines += [((x, y), (right, y)), ((right, y), (right, top))]
    axes.set_ylabel(f"{split} accuracy (%)")
    axes.margins(x=0.12, y=0.12)
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, 100 + 0.06 * (100 - low)))
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= 100 + 1e-6])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return lines
