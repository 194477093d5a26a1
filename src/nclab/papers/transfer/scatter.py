"""Complexity against collapse and few-shot accuracy, a point a run, a column a class split."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nclab.analysis.drawing import WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.runs import Run
from nclab.analysis.statistics import STATISTICS
from nclab.papers.transfer import numbers
from nclab.papers.transfer.settings import (
    BASE,
    COLOURS,
    KNOBS,
    MARKERS,
    NEEDED,
    SPLIT,
    Setting,
    about,
    counted,
    name_of,
    settings_of,
    splits_of,
)

ROWS = {  # statistic -> what its axis is called
    numbers.source_cdnv: "source CDNV",
    numbers.target_cdnv: "held-out CDNV",
    numbers.few_shot_5: "5-shot accuracy (%)",
}
MOST = 4  # class splits that have a column


@DRAWINGS.figure(
    "transfer_scatter",
    of="networks on source classes: complexity against collapse and few-shot accuracy, a point a run",
    caption="Geometric complexity of the classifier's input on the source classes against CDNV of the source classes, "
    "CDNV of the held-out classes, and 5-shot accuracy on the held-out classes, where trainings end at the stated "
    "loss; runs whose network is not at it, within a factor of two, are left out. A column a class split, a point a "
    "run. Colours and marks say which key was moved off the base setting; lines join the means of a sweep's settings.",
    says=lambda table: means(table),
    needs=NEEDED,
)
def scatter_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Three rows of panels; returns the picture and its table: setting, knob, value, split, seed and the numbers."""
    groups = settings_of(runs)
    table = pd.DataFrame([_point(at, run) for at, group in groups.items() for run in group])
    with style():
        return _draw(table, groups), table


def means(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: a row a setting, the means over class splits and seeds."""
    names = [numbers.source_complexity.__name__, *(y.__name__ for y in ROWS)]
    return table.groupby("setting", sort=False)[names].mean().map("{:.3g}".format).reset_index()


def _point(at: Setting, run: Run) -> dict:
    values = {f.__name__: STATISTICS[f.__name__].value(run, run) for f in (numbers.source_complexity, *ROWS)}
    return {
        "setting": name_of(at),
        "knob": at[0],
        "value": at[1],
        "split": run.settings.get(SPLIT),
        "seed": run.seed,
    } | values


def _draw(table: pd.DataFrame, groups: dict[Setting, list[Run]]) -> Figure:
    first = next(iter(groups.values()))[0]
    splits = splits_of([run for group in groups.values() for run in group])[:MOST]
    x, knobs = numbers.source_complexity.__name__, [name for name in (BASE, *KNOBS) if name in set(table.knob)]
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    grid = figure.subplots(len(ROWS), len(splits), sharex=True, squeeze=False)
    for i, (y, title) in enumerate(ROWS.items()):
        for j, split in enumerate(splits):
            axes, own = grid[i][j], table[table.split == split]
            for knob in knobs:
                _sweep(axes, own, knob, x, y.__name__)
            axes.set_xscale("log")
            if y is not numbers.few_shot_5:
                axes.set_yscale("log")
                log_ticks(axes.yaxis)
            else:
                axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            if i == 0:
                axes.set_title(f"class split {split}", fontsize=8)
            if i == len(ROWS) - 1:
                axes.set_xlabel("geometric complexity")
            if j == 0:
                axes.set_ylabel(title)
    for axes in grid.flat:
        log_ticks(axes.xaxis)
    caption(figure, about(first), f"a point a run: {counted(groups)}; lines join means over seeds")
    labels = {BASE: "base setting"} | {knob: f"{KNOBS[knob]} swept" for knob in KNOBS}
    legend(
        figure, [key(labels[name], color=COLOURS[name], marker=MARKERS[name], ms=5, lw=0.8) for name in knobs], most=5
    )
    return figure


def _sweep(axes, own: pd.DataFrame, knob: str, x: str, y: str) -> None:
    """The runs of a knob, and the line through the means of its settings, the base among them."""
    rows = own[own.knob == knob]
    size = 7 if knob == BASE else 3
    look = {"color": COLOURS[knob], "marker": MARKERS[knob]}
    axes.plot(
        rows[x], rows[y], ls="", ms=size, mec="white", mew=0.3, alpha=0.75, zorder=4 if knob == BASE else 3, **look
    )
    if knob != BASE:
        line = own[own.knob.isin([BASE, knob])].groupby("setting")[[x, y]].mean().sort_values(x)
        axes.plot(line[x], line[y], lw=0.8, color=COLOURS[knob], alpha=0.8, zorder=2)
