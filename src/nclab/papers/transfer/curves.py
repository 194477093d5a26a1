"""Complexity, collapse and transfer against the epoch, one curve a setting."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.curves import NETWORK
from nclab.analysis.drawing import THICK, WIDTH, caption, depth_colours, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import series
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.runs import Run
from nclab.papers.transfer.settings import NEEDED, Setting, about, counted, name_of, settings_of

PANELS = {  # column of metrics.csv on train -> title
    "geometric_complexity": "Geometric complexity\n(geometric_complexity)",
    "geometric_collapse": "Geometric collapse\n(geometric_collapse)",
    "cdnv": "Source CDNV\n(cdnv)",
    "loss": "Train loss",
    "target_cdnv": "Held-out CDNV\n(target_cdnv)",
    "few_shot_accuracy_5": "Error of 5 shots, held-out\n(1 − few_shot_accuracy_5)",
}
ERROR = "few_shot_accuracy_5"


@DRAWINGS.figure(
    "transfer_curves",
    of="networks on source classes: complexity, collapse and few-shot error by epoch, a curve a setting",
    caption="Training on source classes, a curve a setting of the swept key, against the epoch: geometric complexity "
    "and geometric collapse of the classifier's input, CDNV of the source classes, train loss, CDNV and 5-shot error "
    "of the held-out classes. Lines are medians over class splits and seeds, as far as all of them train; a mark with "
    "its range stands where trainings end, at the median epoch and value.",
    says=lambda table: ends(table),
    needs=NEEDED,
)
def curves_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Six panels; returns the picture and its table: setting, metric, epoch, median, low, high, n. Rows of the end have
    the median of the last epochs as their epoch, and `end` true."""
    groups = settings_of(runs)
    table = pd.concat([_rows(at, group) for at, group in groups.items()], ignore_index=True)
    with style():
        return _draw(table, groups), table


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: a row a setting, the medians where trainings end."""
    last = table[table.end]
    wide = last.pivot(index="setting", columns="metric", values="median")[list(PANELS)]
    order = list(dict.fromkeys(table.setting))
    return wide.loc[order].map("{:.3g}".format).reset_index()


def _rows(at: Setting, runs: list[Run]) -> pd.DataFrame:
    found = []
    for metric in PANELS:
        values = pd.concat([_values(run, metric) for run in runs], axis=1)
        whole = values.dropna()
        lasts = np.array([values[column].dropna().iloc[-1] for column in values])
        over = {"median": whole.median(axis=1), "low": whole.min(axis=1), "high": whole.max(axis=1)}
        rows = pd.DataFrame({"epoch": whole.index.astype(float)} | over | {"end": False})
        end = {"epoch": float(np.median([run.end for run in runs])), "median": np.median(lasts), "low": lasts.min()}
        rows = pd.concat([rows, pd.DataFrame([end | {"high": lasts.max(), "end": True}])], ignore_index=True)
        found.append(rows.assign(setting=name_of(at), metric=metric, n=len(runs)))
    return pd.concat(found)[["setting", "metric", "epoch", "median", "low", "high", "end", "n"]]


def _values(run: Run, metric: str) -> pd.Series:
    """Of one run by epoch, without the untrained network."""
    own = series(run, metric, layer=NETWORK if metric == "loss" else None)
    own = own[own.index > 0].rename(str(run.path))
    return 1 - own if metric == ERROR else own


def _draw(table: pd.DataFrame, groups: dict[Setting, list[Run]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    names = [name_of(at) for at in groups]
    colours = depth_colours(names)
    marks = dict(zip(names, "osD^vP*X", strict=False))
    for i, (axes, (metric, title)) in enumerate(zip(figure.subplots(2, 3).flat, PANELS.items(), strict=True)):
        axes.set_title(title, fontsize=7.5)
        for name in names:
            own = table[(table.setting == name) & (table.metric == metric)]
            _curve(axes, own, colours[name], marks[name])
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            log_ticks(axis)
        if i >= 3:
            axes.set_xlabel("epoch")
    first = next(iter(groups.values()))[0]
    stop = first.config.get("stop_at_loss")
    until = f"until the training loss is {stop:g}" if stop is not None else f"{first.config['epochs']} epochs"
    caption(figure, f"{about(first)}, {until}", f"median and range of {counted(groups)}")
    legend(figure, [key(name, color=colours[name], marker=marks[name], ms=4) for name in names], most=4)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, colour: tuple, mark: str) -> None:
    line, end = rows[~rows.end], rows[rows.end].iloc[0]
    x, y = [*line.epoch, end.epoch], [*line["median"], end["median"]]
    if len(line) and line.epoch.iloc[-1] >= end.epoch:
        x, y = x[:-1], y[:-1]
    axes.plot(x, y, lw=0.8 * THICK, color=colour, zorder=3)
    axes.plot([end.epoch] * 2, [end.low, end.high], lw=0.8, color=colour, zorder=3)
    axes.plot(end.epoch, end["median"], ls="", marker=mark, ms=4.5, color=colour, mec="white", mew=0.5, zorder=4)
