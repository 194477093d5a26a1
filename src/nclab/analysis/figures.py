"""The figures: NCC accuracy of every layer and the network's accuracy over training, one column a policy."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator

from nclab.analysis.curves import NETWORK, curves, fixed_since, switches
from nclab.analysis.runs import AnalysisError, Run, choose, refuse_mixture

WIDTH = 7.0  # inches: the text width of a journal page, so that font sizes are what is printed
MARK = 0.055  # height of a line of switch marks, as a share of the panel
DASHES = (0, (3.2, 1.8))


def style():
    """Context in which all figures are drawn and saved."""
    return mpl.rc_context(
        {
            "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
            "font.size": 8,
            "axes.titlesize": 8.5,
            "axes.labelsize": 8,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "legend.fontsize": 7.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "0.9",
            "grid.linewidth": 0.5,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "lines.dash_capstyle": "butt",
            "pdf.fonttype": 42,  # embedded TrueType, which journals ask for
            "savefig.dpi": 200,
        }
    )


def figure1(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Baseline against 1, 2, 3 ... fixed last layers; returns the picture and the table behind it."""
    names = [run.policy for run in runs if run.policy == "baseline" or run.policy.startswith("last ")]
    return _compare(runs, policies or list(dict.fromkeys(names)), "baseline, last k ETF", marks=False)


def figure2(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Baseline against Adaptive-ETF, with a mark for every layer fixed in every seed."""
    names = [run.policy for run in runs if run.policy in ("baseline", "Adaptive-ETF")]
    return _compare(runs, policies or list(dict.fromkeys(names)), "baseline, Adaptive-ETF", marks=True)


def save_figure(figure: Figure, table: pd.DataFrame, out: Path | str) -> list[Path]:
    """Write OUT.pdf, OUT.png and the table behind them OUT.csv; the same runs give the same bytes."""
    paths = [Path(f"{out}.{ending}") for ending in ("pdf", "png", "csv")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with style():
        figure.savefig(paths[0], metadata={"CreationDate": None})
        figure.savefig(paths[1])
    table.to_csv(paths[2], index=False)
    return paths


def _compare(runs: list[Run], policies: list[str], usual: str, marks: bool) -> tuple[Figure, pd.DataFrame]:
    if not policies:
        there = ", ".join(dict.fromkeys(run.policy for run in runs))
        raise AnalysisError(f"no run of the policies of this figure ({usual}); there are: {there}")
    runs = choose(runs, policies)
    refuse_mixture(runs)
    table = curves(runs)
    layers = [layer for layer in table.layer.unique() if layer != NETWORK]
    switched = switches(runs, layers)
    with style():
        return _draw(table, layers, switched, fixed_since(switched, runs), _caption(runs), marks), table


def _draw(
    table: pd.DataFrame,
    layers: list[str],
    switched: pd.DataFrame,
    fixed: dict[tuple[str, str], int],
    caption: str,
    marks: bool,
) -> Figure:
    policies = list(table.policy.unique())
    colours = dict(zip(layers, mpl.colormaps["viridis"](np.linspace(0.0, 0.86, len(layers))), strict=True))
    colours[NETWORK] = "black"
    during = switched[switched.epoch > 0]  # what is fixed before training shows as dashed from the start
    marked = [layer for layer in reversed(layers) if marks and layer in set(during.layer)]
    figure = Figure(figsize=(WIDTH, 4.1), layout="constrained")
    grid = figure.subplots(2, len(policies), sharex=True, sharey=True, squeeze=False)
    for row, split in zip(grid, ("train", "test"), strict=True):
        row[0].set_ylabel(f"{split} accuracy")
        for axes, policy in zip(row, policies, strict=True):
            panel = table[(table.policy == policy) & (table.split == split)]
            for name in [*layers, NETWORK]:
                _curve(axes, panel[panel.layer == name], colours[name], fixed.get((policy, name)), name == NETWORK)
            for i, layer in enumerate(marked):
                epochs = during.epoch[(during.policy == policy) & (during.layer == layer)]
                _marks(axes, epochs, (i + 0.75) * MARK, colours[layer])
    for axes, policy in zip(grid[0], policies, strict=True):
        axes.set_title(policy)
    for axes in grid[1]:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    low, high = _lowest(table), 1.01
    strip = MARK * (len(marked) + 0.5) if marked else 0  # below the curves, a line of marks a layer
    grid[0, 0].set_ylim(low - (high - low) * strip / (1 - strip), high)
    grid[0, 0].yaxis.set_major_locator(MultipleLocator(0.05 if high < low + 0.3 else 0.1 if high < low + 0.7 else 0.2))
    grid[0, 0].set_xlim(0, table.epoch.max())
    _legend(figure, layers, colours, any(policy in policies for policy, _ in fixed), bool(marked))
    figure.suptitle(caption, fontsize=7.5, color="0.35")
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, colour, fixed: int | None, network: bool) -> None:
    """Mean and band of one layer; dashed from the epoch on in which every seed has fixed it."""
    epoch, mean, std = (rows[name].to_numpy() for name in ("epoch", "mean", "std"))
    # The network's thin black line lies on top of the last layer's light one: where they coincide, both are seen.
    line = {"color": colour, "lw": 0.7 if network else 1.3, "zorder": 4 if network else 3}
    until = epoch <= (np.inf if fixed is None else fixed)
    since = epoch >= (np.inf if fixed is None else epoch[until].max(initial=0))
    if until.sum() > 1:
        axes.plot(epoch[until], mean[until], **line)
    if since.any():
        axes.plot(epoch[since], mean[since], ls=DASHES, **line)
    if np.isfinite(std).any():
        low, high = np.clip(mean - std, 0, 1), np.clip(mean + std, 0, 1)
        axes.fill_between(epoch, low, high, color=colour, alpha=0.18, lw=0, zorder=2)


def _marks(axes: Axes, epochs: pd.Series, height: float, colour) -> None:
    """A tick a switch at `height` (share of the axes); seeds that coincide are counted beside their tick."""
    where = axes.get_xaxis_transform()
    axes.plot(epochs, np.full(len(epochs), height), "|", ms=4, mew=1.2, color=colour, transform=where)
    for epoch, count in epochs.value_counts().items():
        if count > 1:
            axes.annotate(f"×{count}", (epoch, height), (2, 0), where, "offset points", fontsize=5.5, va="center")


def _legend(figure: Figure, layers: list[str], colours: dict, fixed: bool, marked: bool) -> None:
    lines = [Line2D([], [], color=colours[layer], lw=1.3, label=layer) for layer in layers]
    lines.append(Line2D([], [], color="black", lw=0.7, label=NETWORK))
    if fixed:
        lines.append(Line2D([], [], color="0.4", ls=DASHES, label="fixed layer"))
    if marked:
        lines.append(Line2D([], [], color="0.4", ls="", marker="|", ms=4, mew=1.2, label="switch"))
    columns = -(-len(lines) // -(-len(lines) // 9))  # rows of at most 9, equally long
    by_row = [line for i in range(columns) for line in lines[i::columns]]  # matplotlib fills column by column
    figure.legend(handles=by_row, loc="outside lower center", ncols=columns, handlelength=2, columnspacing=1.1)


def _lowest(table: pd.DataFrame) -> float:
    """Lower end of the y axis, a multiple of 0.1 below all means after the start.

    The first epochs are near chance and run out of the axis: 5 % of training for the layers, a quarter for the
    network. Later dips, as at a switch, are always inside.
    """
    start = np.where(table.layer == NETWORK, 0.25, 0.05) * table.epoch.max()
    settled = table["mean"][table.epoch >= np.maximum(start, 1)]
    return max(0.0, float(np.floor(10 * settled.min() - 0.1) / 10))


def _caption(runs: list[Run]) -> str:
    counts = sorted(pd.Series([run.policy for run in runs]).value_counts().unique())
    seeds = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    spread = "one seed" if counts == [1] else f"mean ± std of {seeds} seeds"
    names = f"{runs[0].config['dataset']['name']}, {runs[0].config['model']['name']}"
    return f"{names}: NCC accuracy of each layer, accuracy of the network; {spread}"
