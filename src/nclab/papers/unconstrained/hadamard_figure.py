"""Singular values against time: gradient descent on matrices over the flow in closed form."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.drawing import WIDTH, caption, depth_colours, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.unconstrained.hadamard_runs import DIRECTIONS, Group, flow_beside, groups, numbers, singular, times

SHOWN = ("hadamard", "random")
POINTS = 24  # of gradient descent on a curve
NEEDS = Needs(
    "models of free features that start in a Hadamard basis, or in random ones, and measure the suite hadamard",
    models=frozenset({"hadamard"}),
    suites=frozenset({"hadamard"}),
)


@DRAWINGS.figure(
    "hadamard_singular_values",
    of="model=hadamard: singular values of gradient descent and of the flow in closed form",
    caption="Two linear layers on free features, one a class, plain gradient descent on cross-entropy. Lines: the flow "
    "ds/dt = (2/K) s (1 − sigma(s)) from the singular values at the start. Points: singular values of the logits that "
    "gradient descent on the matrices reaches. Top: from a Hadamard start, where the flow is exact. Bottom: the same "
    "singular values in random directions, where it does not apply.",
    needs=NEEDS,
)
def hadamard_singular_values(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """A column a number of classes, a row a kind of directions, of the first seed; the table has directions, classes,
    i, time, descent, flow. Where directions turn, `descent` is sorted like the flow at the end."""
    shown = [g for g in groups(runs) if g.directions in SHOWN and not g.face]
    if not shown:
        raise AnalysisError(
            f"hadamard_singular_values draws runs of model.face=0 with model.directions {' or '.join(SHOWN)}, got none"
        )
    table = pd.concat([_points(group) for group in shown], ignore_index=True)
    with style():
        return _draw(table, shown), table


def _points(group: Group) -> pd.DataFrame:
    run = group.runs[0]
    found = numbers(run)
    exact = flow_beside(run, found)
    if group.directions == "hadamard":
        descent = singular(found).to_numpy()
    else:  # the largest beside the largest
        descent = np.empty_like(exact)
        descent[:, np.argsort(-exact[-1])] = singular(found, "singular_value").to_numpy()
    time = times(run, found.index)
    return pd.concat(
        pd.DataFrame({"directions": group.directions, "classes": group.classes, "i": i, "time": time,
                      "descent": descent[:, i], "flow": exact[:, i]})
        for i in range(group.classes)
    )  # fmt: skip


def _draw(table: pd.DataFrame, shown: list[Group]) -> Figure:
    counts = sorted({group.classes for group in shown})
    rows = [name for name in SHOWN if name in {group.directions for group in shown}]
    figure = Figure(figsize=(WIDTH, 0.6 + 1.9 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(counts), squeeze=False, sharex=True)
    for name, line in zip(rows, panels, strict=True):
        for count, axes in zip(counts, line, strict=True):
            _panel(axes, table[(table.directions == name) & (table.classes == count)])
            axes.set_title(f"K = {count}, {DIRECTIONS[name]}")
        line[0].set_ylabel("singular values of the logits")
    for axes in panels[-1]:
        axes.set_xlabel("time of gradient flow t")
    seed = shown[0].runs[0].seed
    caption(figure, f"Two linear layers, one free feature a class, dimension K, gradient descent; seed {seed}")
    legend(
        figure,
        [
            key("flow in closed form", color="0.3"),
            key("gradient descent", color="0.3", ls="", marker="o", ms=3),
            key("s_0, the direction of all ones", color="0.3", ls="--"),
        ],
    )
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    rows = rows[rows.time > 0]
    end = rows.groupby("i").flow.last()
    colours = depth_colours(end.drop(0).sort_values().index)
    for i, own in rows.groupby("i"):
        colour = colours.get(i, "0.3")
        axes.plot(own.time, own.flow, color=colour, ls="-" if i else "--", lw=0.9, zorder=2)
        few = own.iloc[np.unique(np.searchsorted(own.time, np.geomspace(own.time.iloc[0], own.time.iloc[-1], POINTS)))]
        axes.plot(few.time, few.descent, color=colour, ls="", marker="o", ms=2, mew=0, zorder=3)
    time_axis(axes, rows.time)
    axes.set_ylim(bottom=0)


def time_axis(axes: Axes, times: pd.Series) -> None:
    """A logarithmic axis that ends at decades."""
    axes.set_xscale("log")
    axes.set_xlim(*(10.0 ** pick(np.log10(end)) for pick, end in ((np.floor, times.min()), (np.ceil, times.max()))))
