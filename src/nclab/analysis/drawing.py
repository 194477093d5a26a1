"""One look for all figures: sizes, colours, the curve with its band, the legend, and how a picture is saved."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator

from nclab.analysis.curves import NETWORK

WIDTH = 7.0  # inches: the text width of a journal page, so that font sizes are what is printed
THICK, THIN = 1.3, 0.7
DASHES = (0, (3.2, 1.8))
GREY = "0.4"


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


def panels(rows: int, titles: list[str], caption: str) -> tuple[Figure, np.ndarray]:
    """An empty figure, rows x one column a title, all panels on the same axes; to be called inside `style`."""
    figure = Figure(figsize=(WIDTH, 0.9 + 1.6 * rows), layout="constrained")
    grid = figure.subplots(rows, len(titles), sharex=True, sharey=True, squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    figure.suptitle(caption, fontsize=7.5, color="0.35")
    return figure, grid


def limits(axes: Axes, table: pd.DataFrame, low: float, strip: float = 0.0) -> None:
    """Epochs on x, accuracies from `low` to 1 on y; the lowest `strip` (a share of the panel) stays free of curves."""
    high = 1.01
    axes.set_ylim(low - (high - low) * strip / (1 - strip), high)
    axes.yaxis.set_major_locator(MultipleLocator(0.05 if high < low + 0.3 else 0.1 if high < low + 0.7 else 0.2))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_xlim(0, table.epoch.max())


def lowest(table: pd.DataFrame) -> float:
    """Lower end of the y axis, a multiple of 0.1 below all means after the start.

    The first epochs are near chance and run out of the axis: 5 % of training for the layers, a quarter for the
    network. Later dips, as at a switch, are always inside.
    """
    start = np.where(table.layer == NETWORK, 0.25, 0.05) * table.epoch.max()
    settled = table["mean"][table.epoch >= np.maximum(start, 1)]
    return max(0.0, float(np.floor(10 * settled.min() - 0.1) / 10))


def curve(axes: Axes, rows: pd.DataFrame, fixed: int | None = None, **line) -> None:
    """Mean and band over epochs; dashed from the epoch `fixed` on; `line` is passed to matplotlib."""
    epoch, mean, std = (rows[name].to_numpy() for name in ("epoch", "mean", "std"))
    until = epoch <= (np.inf if fixed is None else fixed)
    since = epoch >= (np.inf if fixed is None else epoch[until].max(initial=0))
    line = {"lw": THICK, "zorder": 3} | line
    if until.sum() > 1:
        axes.plot(epoch[until], mean[until], **line)
    if since.any():
        axes.plot(epoch[since], mean[since], **line | {"ls": DASHES})
    if np.isfinite(std).any():
        low, high = np.clip(mean - std, 0, 1), np.clip(mean + std, 0, 1)
        axes.fill_between(epoch, low, high, color=line["color"], alpha=0.18, lw=0, zorder=2)


def depth_colours(names: Iterable[str]) -> dict[str, tuple]:
    """Viridis from dark (input) to light (output); its yellow end is too pale on paper."""
    names = list(names)
    return dict(zip(names, mpl.colormaps["viridis"](np.linspace(0.0, 0.86, len(names))), strict=True))


def key(label: str, **line) -> Line2D:
    """A legend entry."""
    return Line2D([], [], **{"color": GREY, "lw": THICK, "label": label} | line)


def legend(figure: Figure, keys: list[Line2D], most: int = 9) -> None:
    """Below the panels, in rows of at most `most` entries, equally long."""
    columns = -(-len(keys) // -(-len(keys) // most))
    by_row = [entry for i in range(columns) for entry in keys[i::columns]]  # matplotlib fills column by column
    figure.legend(handles=by_row, loc="outside lower center", ncols=columns, handlelength=2, columnspacing=1.1)


def seeds_note(counts: Iterable[int]) -> str:
    """'one seed' or 'mean ± std of 2 to 3 seeds', from the number of seeds of every curve."""
    least, most = min(counts := list(counts)), max(counts)
    if most == 1:
        return "one seed"
    return f"mean ± std of {most if least == most else f'{least} to {most}'} seeds"


def save_figure(figure: Figure, table: pd.DataFrame, out: Path | str) -> list[Path]:
    """Write OUT.pdf, OUT.png and the table behind them OUT.csv; the same runs give the same bytes."""
    paths = [Path(f"{out}.{ending}") for ending in ("pdf", "png", "csv")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with style():
        figure.savefig(paths[0], metadata={"CreationDate": None})
        figure.savefig(paths[1])
    table.to_csv(paths[2], index=False)
    return paths
