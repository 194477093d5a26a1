"""Curves against the size of the buffer: which runs are one point, and an axis that is logarithmic and has 0."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from nclab.analysis.drawing import THICK, seeds_note
from nclab.analysis.labels import dataset_label
from nclab.analysis.runs import AnalysisError, Run, refuse_mixture
from nclab.papers.continual.tasks import ends, is_joint, scenario, share

SCENARIOS = {"class": "one head", "task": "a head a task", "domain": "domains that share one head"}
BELOW = 3.0  # 0 stands so much below the smallest buffer


def by_buffer(runs: list[Run]) -> dict[float, list[Run]]:
    """The runs over tasks by the share that is replayed, rising. Raises AnalysisError where there are none, where those
    of one share differ in more than their seed, or shares in the scenario."""
    groups: dict[float, list[Run]] = {}
    for run in runs:
        if not is_joint(run):
            groups.setdefault(share(run), []).append(run)
    if not groups:
        raise AnalysisError(f"expected runs with phases=tasks, got {len(runs)} of phases=single")
    for group in groups.values():
        refuse_mixture(group)
    found = sorted({scenario(run) for group in groups.values() for run in group})
    if len(found) > 1:
        raise AnalysisError(f"expected runs of one phases.incremental, got {', '.join(found)}; --where")
    return dict(sorted(groups.items()))


def over_seeds(runs: list[Run], value: Callable[[Run], float]) -> dict[str, float]:
    """median, low, high and n over the seeds of which the number is defined."""
    values = np.array([value(run) for run in runs], float)
    values = values[~np.isnan(values)]
    if not len(values):
        return {"median": np.nan, "low": np.nan, "high": np.nan, "n": 0}
    return {"median": float(np.median(values)), "low": values.min(), "high": values.max(), "n": len(values)}


def place(buffer: pd.Series, smallest: float) -> np.ndarray:
    """Where shares stand on the axis, in percent; 0 has a place below the smallest."""
    return np.where(buffer > 0, 100 * buffer, 100 * smallest / BELOW)


def curve(axes: Axes, rows: pd.DataFrame, smallest: float, marker: str, **look) -> None:
    """Median and range of rows (buffer, median, low, high)."""
    rows = rows[rows.n > 0].sort_values("buffer")
    x = place(rows.buffer, smallest)
    axes.plot(x, rows["median"], marker=marker, ms=3.5, lw=0.8 * THICK, zorder=3, **look)
    axes.fill_between(x, rows.low, rows.high, color=look["color"], alpha=0.16, lw=0, zorder=2)


def buffer_axis(axes: Axes, shares: list[float]) -> None:
    """Log axis in percent that ends at the least and the greatest share."""
    smallest = min((s for s in shares if s > 0), default=1.0)
    places = place(pd.Series(shares), smallest)
    axes.set_xscale("log")
    axes.set_xlim(places.min() / 1.15, places.max() * 1.15)
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * s:g}" for s in shares]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("buffer, % of the samples of earlier tasks")
    if 0 in shares:
        axes.axvline(100 * smallest / BELOW**0.5, color="0.8", lw=0.6, ls=":")  # where the axis is no longer a log axis


def about(groups: dict[float, list[Run]]) -> tuple[str, str]:
    """'MNIST, 2,000 train images, MLP of 3 layers and width 100, 5 tasks, 50 epochs, one head', and of the seeds."""
    run = next(iter(groups.values()))[0]
    model, size = run.config["model"], run.config["dataset"].get("train_size")
    network = {
        "mlp": lambda: f"MLP of {model['depth']} layers and width {model['width']}",
        "cnn": lambda: f"CNN of {len(model['channels'])} stages and {model['channels'][-1]} channels",
        "resnet": lambda: f"ResNet{model['depth']} of width {model['width']}",
    }.get(model["name"], lambda: model["name"])()
    tasks = len(ends(run))
    parts = [
        dataset_label(run.config),
        f"{size:,} train images" if size else "",
        network,
        f"{tasks} tasks of {run.config['epochs'] // tasks} epochs, {SCENARIOS[scenario(run)]}",
        f"rate {run.config['optimizer']['lr']:g}",
    ]
    return ", ".join(filter(None, parts)), seeds_note(map(len, groups.values()), "median and range")


def in_words(table: pd.DataFrame) -> pd.DataFrame:
    """For a terminal: three digits of every number."""
    return table.map(lambda value: value if isinstance(value, str) else f"{value:.3g}")
