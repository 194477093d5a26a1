"""One look for all figures: sizes, colours, the legend, and how a picture is saved."""

import textwrap
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

WIDTH = 7.0  # inches: the text width of a journal page, so that font sizes are what is printed
THICK, THIN = 1.3, 0.7
GREY = "0.4"
LETTER, HANDLE = 0.058, 0.42  # inches: a letter of a legend or title, and what stands before a legend's words


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


def depth_colours(names: Iterable[str]) -> dict[str, tuple]:
    """Viridis from dark (input) to light (output); its yellow end is too pale on paper."""
    names = list(names)
    return dict(zip(names, mpl.colormaps["viridis"](np.linspace(0.0, 0.86, len(names))), strict=True))


def key(label: str, **line) -> Line2D:
    """A legend entry."""
    return Line2D([], [], **{"color": GREY, "lw": THICK, "label": label} | line)


def legend(figure: Figure, keys: list[Line2D], most: int = 9) -> None:
    """Below the panels, in rows equally long, of at most `most` entries and no wider than the figure."""
    for rows in range(-(-len(keys) // most), len(keys) + 1):
        columns = -(-len(keys) // rows)
        widths = [max(len(entry.get_label()) for entry in keys[i::columns]) for i in range(columns)]
        if sum(widths) * LETTER + columns * HANDLE <= figure.get_figwidth():
            break
    by_row = [entry for i in range(columns) for entry in keys[i::columns]]  # matplotlib fills column by column
    figure.legend(handles=by_row, loc="outside lower center", ncols=columns, handlelength=2, columnspacing=1.1)


def caption(figure: Figure, *lines: str) -> None:
    """The title above the panels: every line broken where the figure ends."""
    most = int(figure.get_figwidth() / LETTER)
    figure.suptitle("\n".join(part for line in lines for part in textwrap.wrap(line, most)), fontsize=7.5, color="0.35")


def seeds_note(counts: Iterable[int], drawn: str = "mean ± std") -> str:
    """'one seed' or 'mean ± std of 2 to 3 seeds', from the number of seeds of every curve and what is drawn of them."""
    least, most = min(counts := list(counts)), max(counts)
    if most == 1:
        return "one seed"
    return f"{drawn} of {most if least == most else f'{least} to {most}'} seeds"


def as_png(figure: Figure) -> bytes:
    """The picture alone."""
    with style():
        figure.savefig(png := BytesIO(), format="png")
    return png.getvalue()


def save_figure(figure: Figure, table: pd.DataFrame, out: Path | str) -> list[Path]:
    """Write OUT.pdf, OUT.png and the table behind them OUT.csv; the same runs give the same bytes."""
    paths = [Path(f"{out}.{ending}") for ending in ("pdf", "png", "csv")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with style():
        figure.savefig(paths[0], metadata={"CreationDate": None})
        figure.savefig(paths[1])
    table.to_csv(paths[2], index=False)
    return paths
