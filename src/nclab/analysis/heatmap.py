"""Epoch by layer: a column of metrics.csv as a heat map, a panel a policy, with the epochs where layers were fixed."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from nclab.analysis.columns import LINEAR, log_limits
from nclab.analysis.curves import switches
from nclab.analysis.drawing import WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import setting_label
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.metric_curves import last_values
from nclab.analysis.metric_table import axis_name, floors, metric_table, settled, spread_note
from nclab.analysis.panels import PAGE, below_the_lowest, epoch_ticks
from nclab.analysis.runs import AnalysisError, Run, choose, refuse_mixture

COLUMNS = 3  # panels beside one another
UNDEFINED = "0.75"
EDGE = {"lw": 2.2, "color": "black"}, {"lw": 1.0, "color": "white"}  # of a switch: seen on light and on dark


@DRAWINGS.figure(
    "heatmap",
    of="any runs: --metric NAME of every layer and epoch as colour, a panel a policy",
    caption="A collapse metric of every layer and epoch.",
    says=last_values,
    takes=("metric", "split", "layers"),
)
def heatmap(
    runs: list[Run],
    policies: list[str] | None = None,
    metric: tuple[str, ...] = ("nc1",),
    split: str = "train",
    layers: tuple[str, ...] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """Mean over seeds, input at the bottom; returns the picture and `metric_table`, the table behind it."""
    if len(metric) != 1:
        raise AnalysisError(f"heatmap draws one --metric, got {', '.join(metric) or 'none'}; curves draws several")
    runs = choose(runs, policies) if policies else runs
    refuse_mixture(runs)
    table = metric_table(runs, metric, split, layers)
    with style():
        return _draw(table, runs), table


def _draw(table: pd.DataFrame, runs: list[Run]) -> Figure:
    policies, layers = list(table.policy.unique()), list(table.layer.unique())
    columns = min(COLUMNS, len(policies))
    rows = -(-len(policies) // columns)
    height = 0.3 + 0.13 * len(layers)
    figure = Figure(
        figsize=(WIDTH if columns > 1 else 4.6, min(1.2 + (height + 0.3) * rows, PAGE)), layout="constrained"
    )
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    colours, scale = _colours(table)
    kind, last = table.kind.iloc[0], int(table.epoch.max())
    for axes, policy in zip(grid.flat, policies, strict=False):
        axes.set_title(policy)
        mesh = _cells(axes, table[table.policy == policy], layers, colours, scale)
        axes.set_xlim(0, last)
        axes.set_xticks(epoch_ticks(last))
        axes.grid(False)
    for axes in list(grid.flat)[len(policies) :]:
        axes.remove()
    below_the_lowest(figure)
    bar = figure.colorbar(mesh, ax=list(grid.flat)[: len(policies)], aspect=30, pad=0.015, extend=_beyond(table, scale))
    bar.set_label(axis_name(table.metric.iloc[0], table.split.iloc[0], kind))
    bar.outline.set_visible(False)
    if kind != LINEAR:
        log_ticks(bar.ax.yaxis)
        bar.ax.yaxis.set_minor_locator(NullLocator())
    keys = _marks(runs, dict(zip(policies, grid.flat, strict=False)), layers)
    keys += [Patch(color=UNDEFINED, label="undefined (nan)")] if table.value.isna().any() else []
    if keys:
        legend(figure, keys)
    title = f"{setting_label(runs[0].config)}: {axis_name(table.metric.iloc[0], table.split.iloc[0], kind)}"
    caption(figure, f"{title}; {spread_note(table, band=False)}", "; ".join(floors(table, runs)))
    return figure


def _colours(table: pd.DataFrame) -> tuple[Colormap, Normalize]:
    """cividis: one hue order for all eyes, and lightness alone in grey. Dark is little, bright is much."""
    colours = colormaps["cividis"].with_extremes(bad=UNDEFINED)
    values = settled(table).value.dropna()
    if table.kind.iloc[0] == LINEAR:
        return colours, Normalize(values.min(), values.max())
    return colours, LogNorm(*log_limits(values))


def _beyond(table: pd.DataFrame, scale: Normalize) -> str:
    """Which ends of the colour bar are open: some first epochs lie beyond."""
    low, high = table.value.min() < scale.vmin, table.value.max() > scale.vmax
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[low, high]


def _cells(axes: Axes, rows: pd.DataFrame, layers: list[str], colours: Colormap, scale: Normalize):
    """A column a measured epoch, which reaches half-way to its neighbours; a row a layer."""
    values = rows.pivot(index="layer", columns="epoch", values="value").reindex(layers)
    epochs = values.columns.to_numpy(float)
    middles = (epochs[1:] + epochs[:-1]) / 2
    edges = np.array([epochs[0], *middles, epochs[-1]]) if len(epochs) > 1 else epochs[0] + np.array([-0.5, 0.5])
    masked = np.ma.masked_invalid(values.to_numpy())
    mesh = axes.pcolormesh(edges, np.arange(len(layers) + 1) - 0.5, masked, cmap=colours, norm=scale, rasterized=True)
    axes.set_yticks(range(len(layers)), layers)
    axes.tick_params(axis="y", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return mesh


def _marks(runs: list[Run], panels: dict[str, Axes], layers: list[str]) -> list:
    """A line through a layer's row at the median epoch of its switch, a square where it was fixed from the start."""
    switched = switches(runs).drop_duplicates(["policy", "seed", "stage", "epoch"])
    start = during = False
    for (policy, stage), rows in switched.groupby(["policy", "stage"]):
        if stage not in layers or policy not in panels:
            continue
        epoch, row = float(rows.epoch.median()), layers.index(stage)
        if epoch > 0:
            during = True
            for look in EDGE:
                panels[policy].plot([epoch, epoch], [row - 0.5, row + 0.5], solid_capstyle="butt", **look)
        else:
            start = True
            panels[policy].plot(
                1.02, row, "s", color="0.2", ms=3, clip_on=False, transform=panels[policy].get_yaxis_transform()
            )
    keys = [key("layer fixed at this epoch (median of the seeds)", lw=1.4, color="0.2")] if during else []
    return keys + ([key("fixed from the start", ls="", marker="s", ms=3, color="0.2")] if start else [])
