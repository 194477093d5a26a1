"""Minority collapse: the smallest angle between rows, and accuracies, against the imbalance factor."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import Run, refuse_mixture
from nclab.papers.long_tail.methods import CE, NEEDED, about, method
from nclab.papers.long_tail.numbers import by_class, of_input, of_network

GROUPS = {
    "head": {"color": "#0072B2", "marker": "o", "ls": "-"},
    "tail": {"color": "#D55E00", "marker": "s", "ls": "-"},
}
PANELS = {
    "row_cosine": "Largest cosine between\nrows of the group",
    "mean_cosine": "Largest cosine between\ncentred class means",
    "accuracy": "Test accuracy\nof the group",
}


@DRAWINGS.figure(
    "long_tail_minority",
    of="cross-entropy against the imbalance factor: largest cosines of head and tail classes, accuracy",
    caption="Cross-entropy after the last epoch against the imbalance factor: the largest cosine between two rows of "
    "the classifier (minority collapse where that of the tail goes to 1), the same of centred class means, and test "
    "accuracy, of the third of the classes with most (head) and fewest (tail) train images. Medians over seeds, bands "
    "are the range; dotted: -1/(C-1), the value at collapse.",
    says=lambda table: medians(table),
    needs=NEEDED,
)
def minority_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Three panels; returns the picture and its table: group, metric, imbalance, median, low, high, n."""
    groups: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.settings["dataset.imbalance"] or 1):
        if method(run) == CE:
            groups.setdefault(f"{run.settings['dataset.imbalance'] or 1:g}", []).append(run)
    for group in groups.values():
        refuse_mixture(group)
    rows = [row for factor, group in groups.items() for row in _rows(float(factor), group)]
    table = pd.DataFrame(rows)
    with style():
        return _draw(table, groups), table


def medians(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: a row a group and metric, a column an imbalance factor."""
    wide = table.pivot(index=["group", "metric"], columns="imbalance", values="median").map("{:.3f}".format)
    return wide.rename(columns="{:g}:1".format).reset_index()


def _rows(factor: float, group: list[Run]) -> list[dict]:
    rows = []
    for name in GROUPS:
        for metric in PANELS:
            read = of_network if metric == "accuracy" else of_input
            own = np.array([read(run, f"{name}_{metric}") for run in group])
            spread = {"median": np.median(own), "low": own.min(), "high": own.max(), "n": len(own)}
            rows.append({"group": name, "metric": metric, "imbalance": factor, **spread})
    return rows


def _draw(table: pd.DataFrame, groups: dict[str, list[Run]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    first = next(iter(groups.values()))[0]
    classes = len(by_class(first, "row_cosine"))
    for axes, (metric, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        axes.set_title(title, fontsize=8)
        for name, look in GROUPS.items():
            rows = table[(table.group == name) & (table.metric == metric)]
            axes.plot(rows.imbalance, rows["median"], lw=THICK, ms=4, mfc="white", mew=0.9, zorder=3, **look)
            axes.fill_between(rows.imbalance, rows.low, rows.high, color=look["color"], alpha=0.15, lw=0, zorder=2)
        if metric != "accuracy":
            axes.axhline(-1 / (classes - 1), color="0.4", lw=0.8, ls=":", zorder=1)
        axes.set_xscale("log")
        factors = sorted(set(table.imbalance))
        axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("imbalance factor")
    seeds = seeds_note(map(len, groups.values()), "median and range")
    caption(figure, f"cross-entropy, {about(first, imbalance=False)}", seeds)
    names = {"head": "head classes", "tail": "tail classes"}
    keys = [key(names[name], ms=4, mfc="white", mew=0.9, **look) for name, look in GROUPS.items()]
    legend(figure, [*keys, key("−1/(C−1)", color="0.4", ls=":", lw=0.9)])
    return figure
