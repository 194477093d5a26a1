"""Alignment of class means and rows, length of rows and test accuracy, class by class from head to tail."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, seeds_note, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import Run
from nclab.papers.long_tail.methods import CE, CONTROL, NEEDED, about, methods
from nclab.papers.long_tail.numbers import by_class

PANELS = {
    "row_cosine": "Cosine of centred class\nmean and row",
    "row_norm": "Length of the row over\nthe mean length",
    "class_accuracy": "Test accuracy\nof the class",
}
BALANCED = "cross-entropy, balanced"
LOOKS = {
    BALANCED: {"color": "0.55", "marker": "D", "ls": (0, (1, 1))},
    CE: {"color": "black", "marker": "o", "ls": "-"},
    "logit adjustment": {"color": "#E69F00", "marker": "v", "ls": (0, (5, 1.5))},
    "reg": {"color": "#0072B2", "marker": "s", "ls": "-"},
    "slerp": {"color": "#D55E00", "marker": "^", "ls": "-"},
    "slerp, equal norms": {"color": "#D55E00", "marker": "^", "ls": (0, (3, 1.5))},
    "proj": {"color": "#009E73", "marker": "P", "ls": "-"},
    "proj, equal norms": {"color": "#009E73", "marker": "P", "ls": (0, (3, 1.5))},
    CONTROL: {"color": "#CC79A7", "marker": "X", "ls": (0, (3, 1.5))},
}


@DRAWINGS.figure(
    "long_tail_classes",
    of="long-tailed trainings: alignment of class means and rows, class by class",
    caption="From the head class to the rarest one, after the last epoch: cosine of the centred class mean and the "
    "centred row of the classifier (train split; 1 at collapse), length of the row over the mean length of all rows, "
    "and test accuracy of the class. Medians over seeds; reg, slerp and proj turn the rows to the class means while "
    "training, equal norms alone gives them one length and no other direction.",
    says=lambda table: ends(table),
    needs=NEEDED,
)
def class_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Three panels of the methods in LOOKS; returns the picture and its table: method, metric, class, median, low,
    high, n."""
    tail = methods([run for run in runs if run.settings.get("dataset.imbalance") != 1])
    even = methods([run for run in runs if run.settings.get("dataset.imbalance") == 1])
    groups = {BALANCED: even[CE]} if CE in even else {}
    groups |= {name: group for name, group in tail.items() if name in LOOKS}
    table = pd.concat([_rows(name, group) for name, group in groups.items()], ignore_index=True)
    with style():
        return _draw(table, groups), table


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: first and last class of every method."""
    first, last = (
        table[table["class"] == c].set_index(["method", "metric"])["median"] for c in (0, table["class"].max())
    )
    cells = first.map("{:.2f}".format) + " to " + last.map("{:.2f}".format)
    return cells.unstack()[list(PANELS)].loc[list(dict.fromkeys(table.method))].reset_index()


def _rows(name: str, group: list[Run]) -> pd.DataFrame:
    found = []
    for metric in PANELS:
        values = np.stack([by_class(run, metric) for run in group])  # (seeds, C)
        over = {"median": np.median(values, 0), "low": values.min(0), "high": values.max(0)}
        rows = pd.DataFrame({"class": range(values.shape[1])} | over | {"n": len(group)})
        found.append(rows.assign(method=name, metric=metric))
    return pd.concat(found)[["method", "metric", "class", "median", "low", "high", "n"]]


def _draw(table: pd.DataFrame, groups: dict[str, list[Run]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        axes.set_title(title, fontsize=8)
        for name in groups:
            rows, look = table[(table.method == name) & (table.metric == metric)], LOOKS[name]
            axes.plot(rows["class"], rows["median"], lw=0.75 * THICK, ms=3.2, mfc="white", mew=0.8, zorder=3, **look)
            axes.fill_between(rows["class"], rows.low, rows.high, color=look["color"], alpha=0.1, lw=0, zorder=2)
        last = int(table["class"].max())
        axes.set_xlim(-0.2, last + 0.2)
        axes.set_xticks(range(last, -1, -max(1, last // 9)))
        axes.set_xlabel("class, head to tail")
        if metric != "row_norm":
            axes.set_ylim(top=1.02)
    tailed = [group[0] for name, group in groups.items() if name != BALANCED]
    seeds = seeds_note(map(len, groups.values()), "median and range")
    caption(figure, about(*tailed[:1] or groups[BALANCED][:1]), seeds)
    legend(figure, [key(name, ms=3.2, mfc="white", mew=0.8, **LOOKS[name]) for name in groups], most=5)
    return figure
