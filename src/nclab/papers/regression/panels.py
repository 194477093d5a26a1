"""What the panels of this wing share: a curve with its spread, an axis of epochs, and what legend and caption say."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nclab.analysis.drawing import THICK, key
from nclab.analysis.needs import Needs
from nclab.papers.regression.variants import Variant

MEASURED = Needs(
    "networks that measure the suite regression_collapse", accuracy=False, suites=frozenset({"regression_collapse"})
)


def band(axes: Axes, rows: pd.DataFrame, look: dict, against: str = "epoch", **line) -> None:
    """The mean over seeds against the epoch or another column, between the least and the greatest seed."""
    rows = rows.dropna(subset="mean")
    axes.plot(
        rows[against], rows["mean"], **{"color": look["color"], "ls": look["ls"], "lw": THICK, "zorder": 3} | line
    )
    axes.fill_between(rows[against], rows.low, rows.high, color=look["color"], alpha=0.16, lw=0, zorder=2)


def epochs(axes: Axes, last: int, label: str = "epoch") -> None:
    """An axis from 0 to the last epoch, which ends at a tick."""
    axes.set_xlim(0, last)
    axes.set_xticks(np.linspace(0, last, 5 if last < 10_000 else 3).round())
    axes.set_xlabel(label)


def keys(variants: list[Variant], marker: bool = False) -> list:
    """Legend entries."""
    return [
        key(
            v.label, color=v.look["color"], ls=v.look["ls"], **({"marker": v.look["marker"], "ms": 4} if marker else {})
        )
        for v in variants
    ]


def band_note(variants: list[Variant]) -> str:
    """'mean of 5 seeds, band from least to greatest'."""
    counts = sorted({len(v.runs) for v in variants})
    if counts == [1]:
        return "one seed"
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"mean of {seeds} seeds, band from least to greatest"
