"""Any columns of metrics.csv over epochs, per layer and policy: mean and spread over seeds."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.columns import LINEAR, log_limits
from nclab.analysis.curves import fixed_since, switches
from nclab.analysis.drawing import THICK, WIDTH, caption, depth_colours, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import setting_label
from nclab.analysis.log_axis import log_axis
from nclab.analysis.looks import looks
from nclab.analysis.metric_table import axis_name, floors, is_flat, metric_table, settled, spread_note
from nclab.analysis.panels import (
    FIXED,
    MARKS,
    PAGE,
    SWITCH_NOTE,
    ZERO,
    below_the_lowest,
    epoch_ticks,
    fixed_key,
    switch_key,
    switch_lines,
)
from nclab.analysis.runs import Run, choose, refuse_mixture

SHOWN = ("loss", "accuracy", "ncc_accuracy", "nc1", "nc2_gram", "nc3")  # of a run where nobody names metrics
MOST = 4  # panels beside one another, and policies that have a panel each


@DRAWINGS.figure(
    "curves",
    of="any runs: --metric nc1,nc2_gram,... of every layer over training, distances on a log axis",
    caption="Collapse metrics of every layer over training.",
    says=lambda table: last_values(table),
    takes=("metric", "split", "layers"),
)
def metric_curves(
    runs: list[Run],
    policies: list[str] | None = None,
    metric: tuple[str, ...] = ("nc1",),
    split: str = "train",
    layers: tuple[str, ...] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """One row of panels a metric; returns the picture and `metric_table`, the table behind it.

    Up to four policies have a panel each, where a line is a layer; of more policies a panel is a layer, and a line a
    policy. A panel of which every line is flat is a sentence.
    """
    runs = choose(runs, policies) if policies else runs
    refuse_mixture(runs)
    table = metric_table(runs, metric, split, layers)
    with style():
        return _draw(table, runs), table


def last_values(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: a row a policy and metric, a column a layer, what is drawn at the last epoch."""
    last = table[table.epoch == table.epoch.max()]
    rows: dict[tuple, dict] = {}
    for row in last.to_dict("records"):
        name = axis_name(row["metric"], row["split"], row["kind"])
        cells = rows.setdefault((row["policy"], name), {"policy": row["policy"], "metric": name})
        cells |= {"epoch": str(row["epoch"]), row["layer"]: "0" if row["floored"] else f"{row['value']:.3g}"}
    return pd.DataFrame(rows.values()).fillna("-")


def _draw(table: pd.DataFrame, runs: list[Run]) -> Figure:
    policies, layers = list(table.policy.unique()), list(table.layer.unique())
    by_policy = len(policies) <= MOST
    panel, line = ("policy", "layer") if by_policy else ("layer", "policy")
    names = policies if by_policy else layers
    colours = depth_colours(layers)
    look = {layer: {"color": colours[layer]} for layer in layers} if by_policy else looks(policies)
    columns = min(MOST, len(names))
    metrics, bands = list(table.metric.unique()), -(-len(names) // columns)
    rows = len(metrics) * bands
    flat = {(metric, name) for metric in metrics for name in names if is_flat(_part(table, metric, panel, name))}
    heights = [
        0.35 if all((metric, name) in flat for name in names[j * columns : (j + 1) * columns]) else 1.0
        for metric in metrics
        for j in range(bands)
    ]
    width = WIDTH if columns > 1 else 0.6 * WIDTH
    figure = Figure(figsize=(width, min(1.2 + (2.0 if rows == 1 else 1.6) * sum(heights), PAGE)), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False, height_ratios=heights)
    fixed = fixed_since(runs)
    for i, metric in enumerate(metrics):
        part = table[table.metric == metric]
        cells = [grid[i * bands + j // columns, j % columns] for j in range(bands * columns)]
        shown = []
        for axes, name in zip(cells, names, strict=False):
            own = _part(table, metric, panel, name)
            if i == 0:
                axes.set_title(name)
            if (metric, name) in flat:
                _sentence(axes, own, metric)
                continue
            shown.append(axes)
            for label, rows_of in own.groupby(line, sort=False):
                since = fixed.get((name, label) if by_policy else (label, name))
                _curve(axes, rows_of, since, by_policy, **look[label])
        steep = part[~part[panel].isin([name for name in names if (metric, name) in flat])]
        _axes(steep if shown else part, shown, cells[::columns], table.epoch.max())
        for axes in cells[len(names) :]:
            axes.remove()
    below_the_lowest(figure)
    marked = _switches(runs, table, dict(zip(names, grid.flat, strict=False)), colours) if by_policy else False
    keys = [key(label, **{**look[label], "ms": 3.5}) for label in (layers if by_policy else policies)]
    keys += [fixed_key()] if by_policy and fixed else []
    keys += [switch_key()] if marked else []
    keys += [key("0 in every seed", **ZERO)] if table.floored.any() else []
    legend(figure, keys)
    shown = ", ".join(
        axis_name(metric, table.split.iloc[0], table.kind[table.metric == metric].iloc[0]) for metric in metrics
    )
    notes = [SWITCH_NOTE] * marked + floors(table, runs)
    caption(figure, f"{setting_label(runs[0].config)}: {shown}; {spread_note(table)}", "; ".join(notes))
    return figure


def _part(table: pd.DataFrame, metric: str, panel: str, name: str) -> pd.DataFrame:
    return table[(table.metric == metric) & (table[panel] == name)]


def _curve(axes: Axes, rows: pd.DataFrame, since: int | None, dashed: bool, **look) -> None:
    """Mean and band; from the epoch `since` on a fixed layer, dashed with squares where a line is a layer."""
    epoch, value = rows.epoch.to_numpy(), rows.value.to_numpy()
    every = max(1, -(-len(epoch) // MARKS))
    line = {"lw": THICK, "zorder": 3, "ms": 3, "markevery": (every // 2, every)} | look
    fixed = epoch >= (np.inf if since is None else epoch[epoch <= since].max(initial=0))
    if dashed and fixed.any():
        if (until := epoch <= since).sum() > 1:
            axes.plot(epoch[until], value[until], **line)
        axes.plot(epoch[fixed], value[fixed], **line | FIXED)
    else:
        axes.plot(epoch, value, **line)
    if (rows.high > rows.low).any():
        axes.fill_between(epoch, rows.low, rows.high, color=look["color"], alpha=0.15, lw=0, zorder=2)
    none = rows.floored.to_numpy()
    if none.any():
        axes.plot(epoch[none], value[none], color=look["color"], zorder=5, **ZERO)


def drawable(run: Run, names: Iterable[str], split: str) -> tuple[str, ...]:
    """Those of these metrics of which the run has a number on a split, in their order."""
    numbers = run.metrics[(run.metrics["split"] == split) & run.metrics["value"].notna()]
    there = set(numbers["metric"])
    return tuple(name for name in names if name in there)


def _axes(part: pd.DataFrame, shown: list[Axes], first: list[Axes], last: int) -> None:
    """One y axis for all panels of a metric, one x axis for all."""
    kind, values = part.kind.iloc[0], settled(part).value
    for axes in shown:
        if kind == LINEAR:
            room = 0.05 * (values.max() - values.min() or 1)
            axes.set_ylim(values.min() - room, values.max() + room)
        else:
            log_axis(axes, *log_limits(values))
        axes.set_xlim(0, last)
        axes.set_xticks(epoch_ticks(last))
        axes.tick_params(labelleft=axes in first or axes is shown[0])
    for axes in [axes for axes in first if axes in shown] or shown[:1]:  # a sentence names its metric itself
        axes.set_ylabel(axis_name(part.metric.iloc[0], part.split.iloc[0], kind))


def _sentence(axes: Axes, rows: pd.DataFrame, metric: str) -> None:
    """What a panel says instead of a flat line."""
    values = rows.value.dropna()
    said = f"{metric} is nan" if values.empty else f"{metric} = {_range(values)}"
    layers = ", ".join(rows.layer[rows.value.notna()].unique() if len(values) else rows.layer.unique())
    axes.text(
        0.5, 0.5, f"{said}\nin {layers}\nat every epoch", ha="center", va="center", transform=axes.transAxes, fontsize=7
    )
    axes.tick_params(length=0, labelleft=False, labelbottom=False)
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)


def _range(values: pd.Series) -> str:
    ends = dict.fromkeys(f"{value:.3g}" for value in (values.min(), values.max()))
    return " to ".join(ends)


def _switches(runs: list[Run], table: pd.DataFrame, panels: dict[str, Axes], colours: dict) -> bool:
    """Lines where layers were fixed while training, with names above the first row; whether there are any."""
    during = switches(runs)
    during = during[during.epoch > 0].drop_duplicates(["policy", "seed", "stage", "epoch"])
    shown = list(table.layer.unique())
    for policy, axes in panels.items():
        own = during[during.policy == policy]
        epochs = {layer: own.epoch[own.stage == layer] for layer in shown if layer in set(own.stage)}
        of = sum(run.policy == policy for run in runs)
        column = axes.get_subplotspec().colspan.start
        others = [other for other in axes.figure.axes if other.get_subplotspec().colspan.start == column]
        switch_lines([axes], epochs, of, colours, labels=True)
        switch_lines([other for other in others if other is not axes], epochs, of, colours, labels=False)
    return not during.empty
