"""The picture of neural collapse: features, class means and classifier rows of three classes in the plane of the means,
at chosen epochs and as an animation (Papyan, Han, Donoho 2020)."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.class_plane import points, scaled
from nclab.analysis.curves import NETWORK
from nclab.analysis.drawing import WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import series
from nclab.analysis.needs import Needs
from nclab.analysis.runs import AnalysisError, Run
from nclab.papers.terminal_phase.phase import terminal_phase
from nclab.papers.terminal_phase.variants import about, variants_of

COLOURS = ["#0072B2", "#D55E00", "#009E73"]  # of the three classes
MARKS = ["o", "s", "^"]
PANELS = 6
SIDES = (-1.75, 1.75, -1.5, 2.0)  # of a panel, in lengths of a class mean
FRAMES_PER_SECOND = 6
FILM_INCHES, FILM_DPI = 3.2, 90


@DRAWINGS.figure(
    "class_plane",
    of="trainings that measure the suite projection: three classes in the plane of their means",
    caption="Classes 0, 1 and 2 in the plane of their class means: features of train samples (small), class means "
    "(large, filled), rows of the classifier (crosses) and the simplex ETF (grey). Features and means are in units of "
    "the mean length of the three centred means, rows likewise in theirs. One seed; the animation, a GIF beside the "
    "picture, shows every measured epoch.",
    needs=Needs("classifiers that measure the suite projection", suites=frozenset({"projection"})),
    beside=lambda table, out: film(table, out),
)
def plane_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Six panels from the untrained network to the last epoch, of the lowest seed; returns the picture and the numbers
    of every measured epoch: epoch, kind (sample, mean, row), label, number, x, y (in these units), accuracy."""
    variants = variants_of(runs)
    if len(variants) > 1:
        raise AnalysisError(f"class_plane draws one kind of training, got {', '.join(v.label for v in variants)}")
    run = min(variants[0].runs, key=lambda run: run.seed)
    table = scaled(points(run))
    accuracy = series(run, "accuracy", layer=NETWORK)
    title = f"{about(variants)}; {variants[0].label}; seed {run.seed}"
    table = table.assign(accuracy=table.epoch.map(accuracy))
    phase = terminal_phase(run)
    chosen = chosen_epochs(sorted(table.epoch.unique()), phase.start if phase else None)
    with style():
        return _draw(table, chosen, phase.start if phase else None, title), table


def chosen_epochs(epochs: list[int], start: int | None) -> list[int]:
    """Six of the measured epochs: the first, the last, the start of the terminal phase, and what lies between them."""
    middle = start if start is not None else epochs[len(epochs) // 2]
    wanted = [epochs[0], epochs[min(1, len(epochs) - 1)], middle / 2, middle, (middle + epochs[-1]) / 2, epochs[-1]]
    chosen = {min(epochs, key=lambda epoch: (abs(epoch - w), epoch)) for w in wanted}
    while len(chosen) < min(PANELS, len(epochs)):  # the epoch that is furthest from all chosen ones
        chosen.add(max(epochs, key=lambda epoch: (min(abs(epoch - c) for c in chosen), -epoch)))
    return sorted(chosen)


def film(table: pd.DataFrame, out: Path) -> Path:
    """Write OUT.gif, every measured epoch a frame, the last for two seconds; returns its path."""
    epochs = sorted(table.epoch.unique())
    frames = epochs + [epochs[-1]] * (2 * FRAMES_PER_SECOND)
    with style():
        figure = Figure(figsize=(FILM_INCHES, FILM_INCHES + 0.25), dpi=FILM_DPI)
        axes = figure.add_axes((0.02, 0.02, 0.96, 0.88))

        def frame(epoch: int) -> list:
            axes.clear()
            _panel(axes, table[table.epoch == epoch])
            accuracy = table.accuracy[table.epoch == epoch].iloc[0]
            axes.set_title(f"epoch {epoch}, train accuracy {100 * accuracy:.1f} %")
            return []

        path = Path(f"{out}.gif")
        path.parent.mkdir(parents=True, exist_ok=True)
        animation = FuncAnimation(figure, frame, frames, init_func=list)
        animation.save(path, PillowWriter(fps=FRAMES_PER_SECOND), dpi=FILM_DPI)
    path.write_bytes(_few_colours(path.read_bytes()))
    return path


def _few_colours(gif: bytes) -> bytes:
    """The same animation with 32 colours, a third of the bytes."""
    from PIL import Image, ImageSequence

    with Image.open(io.BytesIO(gif)) as image:
        frames = [f.convert("RGB").quantize(32) for f in ImageSequence.Iterator(image)]
        spent = [f.info.get("duration", 0) for f in ImageSequence.Iterator(image)]
    target = io.BytesIO()
    frames[0].save(target, "GIF", save_all=True, append_images=frames[1:], duration=spent, loop=0, optimize=True)
    return target.getvalue()


def _draw(table: pd.DataFrame, chosen: list[int], start: int | None, title: str) -> Figure:
    columns = 3
    figure = Figure(figsize=(WIDTH, 5.1 if len(chosen) > columns else 3.0), layout="constrained")
    grid = figure.subplots(-(-len(chosen) // columns), columns, squeeze=False)
    for axes, epoch in zip(grid.flat, chosen, strict=False):
        part = table[table.epoch == epoch]
        _panel(axes, part)
        what = "TPT begins" if epoch == start else "train accuracy"
        axes.set_title(f"epoch {epoch}, {what}: {100 * part.accuracy.iloc[0]:.1f} %", fontsize=7.5)
    for axes in list(grid.flat)[len(chosen) :]:
        axes.remove()
    caption(figure, title)
    keys = [key(f"class {c}", color=colour, marker=mark, ls="") for c, (colour, mark) in _looks().items()]
    keys += [
        key("feature", color="0.35", marker="o", ms=2.5, ls="", alpha=0.6),
        key("class mean", color="0.35", marker="o", ms=7, ls="", mec="black"),
        key("row of W", color="0.35", marker="x", ms=6, mew=1.8, ls="-", lw=1.2),
        key("simplex ETF", color="0.6", ls="-", lw=0.9),
    ]
    legend(figure, keys, most=7)
    return figure


def _looks() -> dict[int, tuple[str, str]]:
    return dict(enumerate(zip(COLOURS, MARKS, strict=True)))


def _panel(axes: Axes, part: pd.DataFrame) -> None:
    """One epoch. Features beyond the panel are drawn on its edge."""
    left, right, low, high = SIDES
    corners = np.deg2rad(90 + 120 * np.arange(4))
    axes.plot(np.cos(corners), np.sin(corners), color="0.75", lw=0.9, zorder=1)
    for angle in corners[:3]:
        axes.plot([0, np.cos(angle)], [0, np.sin(angle)], color="0.75", lw=0.9, zorder=1)
    for label, (colour, mark) in _looks().items():
        own = part[part.label == label]
        sample, mean, row = (own[own.kind == kind] for kind in ("sample", "mean", "row"))
        x, y = sample.x.clip(left, right), sample.y.clip(low, high)
        axes.plot(x, y, mark, color=colour, ms=2.8, alpha=0.55, mew=0, ls="", zorder=2, clip_on=False)
        axes.plot([0, *row.x], [0, *row.y], color=colour, lw=1.1, zorder=3)
        axes.plot(row.x, row.y, "x", color=colour, ms=6.5, mew=1.8, zorder=5)
        axes.plot(mean.x, mean.y, mark, color=colour, ms=7.5, mec="black", mew=0.7, zorder=4)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color("0.8")
