"""Where the class means span fewer dimensions than elsewhere, NC1 is another number: marks and notes that say so."""

import math
import textwrap
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nclab.analysis.last_layer import At
from nclab.system.words import first_of


def lowest_rank(ends: Iterable[At], layer: str) -> float:
    """The lowest `rank` of a layer in runs, given what each measured at its end; nan if none measured it."""
    known = [at[layer, "rank"] for at in ends if (layer, "rank") in at]
    return min(known, default=math.nan)


def is_low(rows: pd.DataFrame) -> pd.Series:
    """Which rows have a `rank` below the highest of these rows, which is C - 1 wherever the network is wide enough."""
    return rows["rank"] < rows["rank"].max()


def hollow(axes: Axes, x: pd.Series, y: pd.Series, low: pd.Series, color, marker: str = "o", **line) -> None:
    """Draw the points of low rank again, hollow: they stand beside the others and are not comparable with them."""
    if low.any():
        at = low.to_numpy()
        look = line | {"ls": "", "zorder": 5, "markerfacecolor": "white", "markeredgecolor": color, "mew": 0.8}
        axes.plot(np.asarray(x)[at], np.asarray(y)[at], marker=marker, **look)


def low_ranks(rows: pd.DataFrame, metric: str) -> list[str]:
    """The lines of a caption that name the points of low rank; none if there are none.

    rows: of one metric, with variant, blocks, layer and rank."""
    found = []
    for variant, part in rows.groupby("variant", sort=False):
        low = part[is_low(part)]
        if len(low):
            places = [f"{row.layer} of {row.blocks} blocks" for row in low.itertuples()]
            ranks = " to ".join(dict.fromkeys(f"{r:.0f}" for r in (low["rank"].min(), low["rank"].max())))
            found.append(f"{variant}: {first_of(places, most=3)} (rank {ranks} of {part['rank'].max():.0f})")
    if not found:
        return []
    return textwrap.wrap(f"hollow: class means span fewer dimensions, {metric} not comparable: {'; '.join(found)}", 130)
