"""Accuracy on every task after every task: of the network, A, and of a probe of its features, A*."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from nclab.analysis.drawing import WIDTH, caption, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import Run
from nclab.papers.continual.buffer_axis import about, by_buffer, in_words
from nclab.papers.continual.tasks import HEADS, NEEDED, PROBE, matrix

SMALL = 0.05  # the buffer between none and all that is shown: the one nearest to it
TITLES = {HEADS: "network, A", PROBE: "probe, A*"}


@DRAWINGS.figure(
    "task_matrices",
    of="runs over tasks: accuracy on every task after every task, of the network and of a probe",
    caption="Test accuracy in percent on task j after task i: above of the network (A), below of a linear probe that "
    "is fitted to the features of all tasks seen (A*); without a buffer, with a small one and with all samples. Means "
    "over seeds.",
    says=lambda table: in_words(table[table.after == table.after.max()]),
    needs=NEEDED,
)
def matrices_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """A column a buffer; returns the picture and its table: of, buffer, after, task, mean (in percent), n."""
    groups = by_buffer(runs)
    rows = []
    for of in TITLES:
        for buffer in chosen(list(groups)):
            each = np.stack([100 * matrix(run, of) for run in groups[buffer]])
            mean = each.mean(0)
            for i, j in np.ndindex(mean.shape):
                cell = {"of": of, "buffer": buffer, "after": i + 1, "task": j + 1, "mean": mean[i, j], "n": len(each)}
                rows += [cell] * (j <= i)
    table = pd.DataFrame(rows)
    with style():
        return _draw(table, groups), table


def chosen(shares: list[float]) -> list[float]:
    """The least, the one nearest to SMALL and the greatest, each once."""
    between = sorted(shares[1:-1], key=lambda share: abs(np.log(max(share, 1e-9) / SMALL)))[:1]
    return list(dict.fromkeys([shares[0], *between, shares[-1]]))


def _draw(table: pd.DataFrame, groups: dict[float, list[Run]]) -> Figure:
    buffers = list(dict.fromkeys(table.buffer))
    figure = Figure(figsize=(0.6 + (WIDTH - 0.6) * len(buffers) / 3, 4.7), layout="constrained")
    grid = figure.subplots(2, len(buffers), squeeze=False)
    for line, (of, title) in zip(grid, TITLES.items(), strict=True):
        line[0].set_ylabel("after task")
        for axes, buffer in zip(line, buffers, strict=True):
            rows = table[(table.of == of) & (table.buffer == buffer)]
            mesh = _cells(axes, rows.pivot(index="after", columns="task", values="mean").to_numpy())
            axes.set_title(f"{title}, buffer {100 * buffer:g} %")
    for axes in grid[-1]:
        axes.set_xlabel("test samples of task")
    bar = figure.colorbar(mesh, ax=list(grid.flat), aspect=35, pad=0.015)
    bar.set_label("test accuracy (%)")
    bar.outline.set_visible(False)
    what, seeds = about(groups)
    caption(figure, what, seeds.replace("median and range", "mean"))
    return figure


def _cells(axes: Axes, values: np.ndarray):
    scale, count = Normalize(0, 100), len(values)
    mesh = axes.imshow(values, cmap=colormaps["cividis"], norm=scale)
    for i, j in np.ndindex(values.shape):
        if not np.isnan(values[i, j]):
            axes.text(j, i, f"{values[i, j]:.0f}", ha="center", va="center", fontsize=6.5,
                      color="white" if values[i, j] < 55 else "black")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(count), [str(i + 1) for i in range(count)])
        axis.set_tick_params(length=0)
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)
    return mesh
