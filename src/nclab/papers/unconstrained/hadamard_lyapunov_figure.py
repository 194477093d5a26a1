"""The Lyapunov function, the turning of the singular vectors and the loss against time, by directions at the start."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.drawing import THICK, WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.unconstrained.hadamard_figure import NEEDS, time_axis
from nclab.papers.unconstrained.hadamard_runs import DIRECTIONS, Group, groups

PANELS = {
    "lyapunov": "Lyapunov function:\n1 − (K−1) V",
    "leakage": "leakage: share of logits\noff the starting frames",
    "loss": "cross-entropy",
}
LOOKS = {
    "hadamard": {"color": "#0072B2", "ls": "-", "marker": "o"},
    "aligned": {"color": "#009E73", "ls": (0, (5, 1.2)), "marker": "^"},
    "random": {"color": "#D55E00", "ls": (0, (1, 1)), "marker": "s"},
}
LOWEST = 1e-16  # of a leakage that is drawn: it may be exactly 0


@DRAWINGS.figure(
    "hadamard_lyapunov",
    of="model=hadamard: Lyapunov function, leakage and loss by directions at the start",
    caption="Two linear layers on free features, one a class, plain gradient descent, by the singular vectors at the "
    "start; the singular values are the same. Top: distance of V = −log E / |s|_1 from its bound, 1 − (K−1) V, which "
    "collapse alone brings to 0 in the limit; one random frame lies under Hadamard. Middle: share of the logits off "
    "the diagonal of the starting frames (leakage), 0 as long as no singular vector turns. Bottom: cross-entropy. The "
    "band goes from the least to the greatest seed.",
    needs=NEEDS,
)
def hadamard_lyapunov(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """A column a number of classes; the table has metric, directions, classes, epoch, time, mean, low, high, n, the
    metric lyapunov as it is and not in units of its bound."""
    shown = [group for group in groups(runs) if not group.face]
    if not shown:
        raise AnalysisError("hadamard_lyapunov draws runs of model.face=0, got none")
    table = pd.concat(
        [
            group.over_seeds(metric).assign(metric=metric, directions=group.directions, classes=group.classes)
            for group in shown
            for metric in PANELS
        ],
        ignore_index=True,
    )
    with style():
        return _draw(table, shown), table


def _draw(table: pd.DataFrame, shown: list[Group]) -> Figure:
    counts = sorted({group.classes for group in shown})
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    panels = figure.subplots(len(PANELS), len(counts), squeeze=False, sharex=True, sharey="row")
    for metric, line in zip(PANELS, panels, strict=True):
        for count, axes in zip(counts, line, strict=True):
            _panel(axes, table[(table.metric == metric) & (table.classes == count)], metric, count)
        line[0].set_ylabel(PANELS[metric])
    for count, top, bottom in zip(counts, panels[0], panels[-1], strict=True):
        top.set_title(f"K = {count}")
        bottom.set_xlabel("time of gradient flow t")
    seeds = {len(group.runs) for group in shown}
    of = f"mean of {' or '.join(map(str, sorted(seeds)))} seeds, band from least to greatest"
    caption(figure, f"Two linear layers, one free feature a class, gradient descent; {of}")
    there = [name for name in DIRECTIONS if name in {group.directions for group in shown}]
    legend(figure, [key(DIRECTIONS[name], ms=3, **LOOKS[name]) for name in there])
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, metric: str, count: int) -> None:
    rows = rows[rows.time > 0]
    for i, name in enumerate(LOOKS):
        own = rows[rows.directions == name]
        mean, low, high = (own[column] for column in ("mean", "low", "high"))
        if metric == "lyapunov":
            mean, low, high = (1 - (count - 1) * column for column in (mean, high, low))
        elif metric == "leakage":
            mean, low, high = (column.clip(lower=LOWEST) for column in (mean, low, high))
        every = max(1, len(own) // 6)
        marks = (i * every // len(LOOKS), every)  # beside one another where the lines are one
        axes.plot(own.time, mean, lw=THICK, ms=3, markevery=marks, **LOOKS[name])
        axes.fill_between(own.time, low, high, color=LOOKS[name]["color"], alpha=0.16, lw=0)
    axes.set_yscale("log")
    time_axis(axes, rows.time)
