"""Balanced accuracy and that of head, middle and tail classes, method by method."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nclab.analysis.drawing import WIDTH, caption, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import Run
from nclab.papers.long_tail.methods import CE, NEEDED, about, methods
from nclab.papers.long_tail.numbers import of_network

PANELS = {
    "balanced_accuracy": "Balanced\naccuracy (%)",
    "head_accuracy": "Head\naccuracy (%)",
    "middle_accuracy": "Middle\naccuracy (%)",
    "tail_accuracy": "Tail\naccuracy (%)",
}
COLOUR = {"baseline": "0.35", "fixed ETF": "#D55E00", "centres": "#0072B2", "align": "#009E73", "weights": "#CC79A7"}


@DRAWINGS.figure(
    "long_tail",
    of="long-tailed trainings: balanced, head, middle and tail accuracy by method",
    caption="Test accuracy after the last epoch, a row a method: the mean over all classes, and over the classes with "
    "most (head), middling and fewest (tail) train images, a third each. Marks are medians over seeds, small points "
    "single seeds, lines the range; the dotted line is the median of cross-entropy.",
    says=lambda table: wide(table),
    needs=NEEDED,
)
def accuracy_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Four panels; returns the picture and its table: method, metric, median, low, high, n, values in percent."""
    groups = methods(runs)
    values = {
        (name, metric): np.array([100 * of_network(run, metric) for run in group])
        for name, group in groups.items()
        for metric in PANELS
    }
    rows = [
        {"method": name, "metric": metric, "median": np.median(own), "low": own.min(), "high": own.max(), "n": len(own)}
        for (name, metric), own in values.items()
    ]
    with style():
        return _draw(groups, values), pd.DataFrame(rows)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: a row a method."""
    cells = table.pivot(index="method", columns="metric", values="median")[list(PANELS)]
    order = list(dict.fromkeys(table.method))
    return cells.loc[order].map("{:.2f}".format).reset_index()


def colour(name: str) -> str:
    """Of a method, by its kind."""
    kind = (
        "fixed ETF" if name.startswith("fixed")
        else "centres" if name.startswith(("AL", "CAL"))
        else "align" if name.startswith(("reg", "slerp", "proj"))
        else "weights" if name == "logit adjustment" or name.startswith(("class-balanced", "equal"))
        else "baseline"
    )  # fmt: skip
    return COLOUR[kind]


def _draw(groups: dict[str, list[Run]], values: dict[tuple[str, str], np.ndarray]) -> Figure:
    names = list(groups)
    figure = Figure(figsize=(WIDTH, 1.25 + 0.2 * len(names)), layout="constrained")
    grid = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (metric, title) in zip(grid, PANELS.items(), strict=True):
        axes.set_title(title, fontsize=8)
        for y, name in enumerate(names):
            own, tint = values[name, metric], colour(name)
            axes.plot([own.min(), own.max()], [y, y], color=tint, lw=0.9, zorder=2)
            axes.plot(own, np.full(len(own), y), ls="", marker=".", ms=2.5, color=tint, alpha=0.6, zorder=3)
            axes.plot(np.median(own), y, marker="o", ms=4.5, mfc="white", mew=1.1, color=tint, zorder=4)
        if CE in groups:
            axes.axvline(np.median(values[CE, metric]), color="0.5", lw=0.7, ls=":", zorder=1)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.tick_params(axis="y", length=0)
    grid[0].set_yticks(range(len(names)), names)
    grid[0].set_ylim(len(names) - 0.5, -0.5)
    first = next(iter(groups.values()))[0]
    caption(figure, about(first), seeds_note(map(len, groups.values()), "median and range"))
    return figure
