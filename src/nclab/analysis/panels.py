"""Panels over epochs: an accuracy on its own axis and, beside it, the error 1 - accuracy on a log axis."""

import textwrap
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nclab.analysis.columns import log_limits
from nclab.analysis.curves import NETWORK
from nclab.analysis.drawing import GREY, THICK, THIN, WIDTH, key
from nclab.analysis.log_axis import log_axis

TITLE = 0.075  # inches: a letter of a panel's title
PAGE = 8.6  # inches: no figure is higher than the text of a page
FIXED = {"ls": (0, (3.2, 1.8)), "marker": "s", "ms": 2.6, "mfc": "white", "mew": 0.7}  # the look of a fixed layer
MARKS = 5  # markers on the line of a fixed layer
LABEL = 6  # points: the size of the names of switches
ZERO = {"marker": "v", "ms": 2.6, "mfc": "white", "mew": 0.7, "ls": ""}  # an error of 0, at the floor


@dataclass
class Cell:
    """Two axes that show the same curves: as accuracy, and as error on a log axis.

    floor: where an error of 0 is drawn. zeros: whether one was.
    """

    accuracy: Axes
    error: Axes
    floor: float = 1e-9
    zeros: bool = field(default=False, init=False)

    def curve(self, rows: pd.DataFrame, fixed: int | None = None, **line) -> None:
        """Mean and band over epochs in both; `rows` as of `curves`; from the epoch `fixed` on with the look of a fixed
        layer. An error that is 0 in every seed stands at the floor, with a mark."""
        epoch, mean, std = (rows[name].to_numpy(float) for name in ("epoch", "mean", "std"))
        line = {"lw": THICK, "zorder": 3} | line
        low, high = np.clip(mean - std, 0, 1), np.clip(mean + std, 0, 1)
        pieces = (
            (self.accuracy, mean, low, high),
            (self.error, *(np.maximum(1 - values, self.floor) for values in (mean, high, low))),
        )
        for axes, y, bottom, top in pieces:
            for part, look in _parts(epoch, fixed):
                axes.plot(epoch[part], y[part], **line | look)
            if np.isfinite(std).any():
                axes.fill_between(epoch, bottom, top, color=line["color"], alpha=0.15, lw=0, zorder=2)
        if (none := mean >= 1 - 1e-12).any():
            self.error.plot(epoch[none], np.full(none.sum(), self.floor), color=line["color"], zorder=5, **ZERO)
            self.zeros = True


def _parts(epoch: np.ndarray, fixed: int | None) -> list[tuple[np.ndarray, dict]]:
    """Which points of a curve are drawn with what look: as it is until a layer is fixed, from then on as FIXED."""
    until = epoch <= (np.inf if fixed is None else fixed)
    since = epoch >= (np.inf if fixed is None else epoch[until].max(initial=0))
    every = max(1, -(-int(since.sum()) // MARKS))
    looks = [(until, {})] if until.sum() > 1 else []
    return looks + ([(since, FIXED | {"markevery": (every // 2, every)})] if since.any() else [])


class Grid:
    """A figure with a cell a row and column, to be made inside `style`; `grid[row, column]` is a cell.

    Up to two columns have accuracy and error side by side, more have them one below the other.

    Args:
        rows: Key of every row -> what its accuracy is called: {'train': 'train NCC accuracy'}; a line before that, such
            as a policy, stays a line before it.
        columns: Key of every column -> its title.
    """

    def __init__(self, rows: dict, columns: dict):
        self.beside = len(columns) <= 2
        high, wide = len(rows) * (1 if self.beside else 2), len(columns) * (2 if self.beside else 1)
        self.figure = Figure(figsize=(WIDTH, min(1.2 + (1.8 if high <= 2 else 1.4) * high, PAGE)), layout="constrained")
        grid = self.figure.subplots(high, wide, sharex=True, squeeze=False)
        self.cells: dict[tuple, Cell] = {}
        for i, (row, name) in enumerate(rows.items()):
            for j, (column, title) in enumerate(columns.items()):
                pair = grid[i, 2 * j : 2 * j + 2] if self.beside else grid[2 * i : 2 * i + 2, j]
                self.cells[row, column] = Cell(*pair)
                if self.beside or j == 0:
                    before, end, accuracy = name.rpartition("\n")
                    pair[0].set_ylabel(name, fontsize=7)
                    pair[1].set_ylabel(f"{before}{end}1 − {accuracy}", fontsize=7)
                for axes in (pair if self.beside else pair[:1]) if i == 0 else ():
                    axes.set_title(textwrap.fill(title, int(WIDTH / wide / TITLE)))
        for axes in grid[-1]:
            axes.set_xlabel("epoch")

    def __getitem__(self, place: tuple) -> Cell:
        return self.cells[place]

    def finish(self, table: pd.DataFrame) -> None:
        """Equal axes in all panels of accuracy, and in all panels of error of one row; ticks end where the axes end."""
        last, low = int(table.epoch.max()), lowest(table)
        drawn: dict[str, list[float]] = {}
        for (row, _), cell in self.cells.items():
            drawn.setdefault(row, []).extend(value for line in cell.error.lines for value in np.ravel(line.get_ydata()))
        first = next(column for _, column in self.cells)
        for (row, column), cell in self.cells.items():
            share_axis(cell.accuracy, low)
            log_axis(cell.error, *log_limits(drawn[row]))
            for axes in (cell.accuracy, cell.error):
                axes.set_xlim(0, last)
                axes.set_xticks(epoch_ticks(last))
                axes.tick_params(labelleft=self.beside or column == first)


def share_axis(axes: Axes, low: float) -> None:
    """A y axis of accuracies from `low` or a tick below it to 1."""
    step = 0.05 if low > 0.7 else 0.1 if low > 0.3 else 0.2
    ticks = [tick for tick in np.round(np.arange(0, 1 + step / 2, step), 2) if tick > low - step + 1e-9]
    axes.set_yticks(ticks)
    axes.set_ylim(ticks[0], 1 + 0.015 * (1 - ticks[0]))
    axes.spines["left"].set_bounds(ticks[0], 1)


def below_the_lowest(figure: Figure) -> None:
    """Epochs and their axis's name below the lowest panel of every column, also where the last row is not full."""
    drawn = [axes for axes in figure.axes if axes.lines or axes.collections]
    lowest = {axes.get_subplotspec().colspan.start: axes for axes in drawn}  # by rows: the last one counts
    for axes in figure.axes:
        if axes in lowest.values():
            axes.set_xlabel("epoch")
            axes.tick_params(labelbottom=True)


def epoch_ticks(last: int) -> list[int]:
    """Three to six epochs from 0 to the last one.

    >>> epoch_ticks(20), epoch_ticks(45), epoch_ticks(17)
    ([0, 5, 10, 15, 20], [0, 15, 30, 45], [0, 5, 10, 17])
    """
    parts = next((parts for parts in (4, 3, 5, 2) if last % parts == 0), None)
    if parts:
        return [last * i // parts for i in range(parts + 1)]
    step = max(1, round(last / 4 / 5) * 5 or last // 3)
    return [*(epoch for epoch in range(0, last, step) if last - epoch > step / 2), last]


def lowest(table: pd.DataFrame) -> float:
    """Lower end of an accuracy's axis, a multiple of 0.1 below all means after the start.

    The first epochs are near chance and run out of the axis: 5 % of training for the layers, a quarter for the
    network. Later dips, as at a switch, are always inside.
    """
    start = np.where(table.layer == NETWORK, 0.25, 0.05) * table.epoch.max()
    settled = table["mean"][table.epoch >= np.maximum(start, 1)]
    return max(0.0, float(np.floor(10 * settled.min() - 0.1) / 10))


def switch_lines(panels: Iterable[Axes], switched: dict[str, pd.Series], of: int, colours: dict, labels: bool) -> None:
    """Thin vertical lines at the median epoch at which runs fixed a layer; a pale band from the first run to the last.

    Args:
        panels: Axes that show these runs.
        switched: Layer -> the epochs at which runs fixed it.
        of: How many runs there are; a layer that not all of them fixed says so: 'fc4 2/3'.
        colours: Layer -> its colour.
        labels: Write the layers above the panels, for which their titles make room.
    """
    middles = {layer: float(epochs.median()) for layer, epochs in switched.items()}
    for axes in panels:
        for layer, epochs in switched.items():
            axes.axvline(middles[layer], color=colours[layer], lw=0.8, ls=(0, (1, 1)), zorder=1.5)
            if epochs.min() < epochs.max():
                axes.axvspan(epochs.min(), epochs.max(), color=colours[layer], alpha=0.1, lw=0, zorder=1)
        if labels and middles:
            texts = {
                layer: layer if len(epochs) == of else f"{layer} {len(epochs)}/{of}"
                for layer, epochs in switched.items()
            }
            for layer, x in _apart(middles, axes).items():
                axes.annotate(
                    texts[layer], (x, 1), (0, 2), axes.get_xaxis_transform(), "offset points", fontsize=LABEL,
                    rotation=90, ha="center", va="bottom", color="0.2", annotation_clip=False,
                )  # fmt: skip
            for beside in (other for other in axes.figure.axes if other.get_title()):  # titles stay in one line
                beside.set_title(beside.get_title(), pad=6 + 0.66 * LABEL * max(map(len, texts.values())))


def _apart(middles: dict[str, float], axes: Axes) -> dict[str, float]:
    """Where labels stand, at least a line of text from one another and as near to their epochs as that allows."""
    columns = axes.get_gridspec().ncols
    inches = 0.72 * axes.figure.get_figwidth() / columns
    least = 1.25 * LABEL / 72 / inches * axes.get_xlim()[1]
    names = sorted(middles, key=middles.get)
    places = [middles[name] for name in names]
    for _ in range(100):
        for i, gap in enumerate(np.diff(places)):
            if gap < least - 1e-9:
                places[i] -= (least - gap) / 2
                places[i + 1] += (least - gap) / 2
    return dict(zip(names, places, strict=True))


def fixed_key() -> Line2D:
    """The legend entry of fixed layers."""
    return key("fixed layer", **FIXED)


def zero_keys(grid: Grid) -> list[Line2D]:
    """The legend entry of errors of 0; none where there is none."""
    return [key("no error in any seed", **ZERO)] if any(cell.zeros for cell in grid.cells.values()) else []


def zero_notes(grid: Grid, floors: dict[Hashable, tuple[float, str]]) -> list[str]:
    """The line of a caption that says where errors of 0 are drawn; none where there is none.

    floors: Key of a row -> `floor_of` its split.
    """
    told = [floors[row][1] for (row, _), cell in grid.cells.items() if cell.zeros]
    return [f"errors of 0 are drawn at {' or '.join(dict.fromkeys(told))}"] if told else []


def network_key() -> Line2D:
    """The legend entry of the network's own accuracy."""
    return key("network accuracy", color="black", lw=THIN)


SWITCH_NOTE = "switch: median epoch, band from the first seed to the last"


def switch_key() -> Line2D:
    """The legend entry of switches, which SWITCH_NOTE explains in the caption."""
    return key("switch", color=GREY, lw=0.7, ls=(0, (1, 1)))
