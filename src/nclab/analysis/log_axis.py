"""Logarithmic axes, alike in all figures: which numbers stand on them depends on how many decades they span."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, LogLocator, MaxNLocator, NullFormatter

NARROW = 0.75  # decades, below which no two of 1, 2, 5 times a power of ten are sure to lie inside
FEW = 2.0  # decades, from which on powers of ten are enough
MANY = 6.0  # decades, from which on marks between the powers of ten run into one another
PLAIN = (1e-4, 1e5)  # numbers that are written out: 0.0002, 50000


def log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic y axis from `low` to `high` with the ticks of `log_ticks`."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    log_ticks(axes.yaxis)


def log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis whose limits are set: decades; below FEW 1, 2, 5; below NARROW round numbers.

    Minor ticks have no numbers. Powers of ten are written as such where the numbers would be long.
    """
    low, high = sorted(axis.get_view_interval())
    decades = float(np.log10(high / low))
    if decades < NARROW:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < FEW else (1.0,), numticks=9))
    plain = PLAIN[0] <= low and high <= PLAIN[1] and decades < 4
    powers = LogFormatterSciNotation(minor_thresholds=(np.inf, np.inf))  # it would leave out every second number
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}") if plain else powers)
    axis.set_minor_locator(LogLocator(subs=range(2, 10) if decades < MANY else (1.0,), numticks=20))
    axis.set_minor_formatter(NullFormatter())
