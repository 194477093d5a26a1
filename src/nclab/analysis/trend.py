"""How a number changes with depth: the slope of log10(value) on log10(depth), seed by seed.

A power law value = a depth^s is a line of slope s, in decades of the value per decade of depth: 0 where depth does
nothing, -1/3 where ten times the depth divides the value by 10^(1/3) = 2.15.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from nclab.analysis.interval import Estimate, estimate

LEAST_DEPTHS = 3  # through two points there is always a line
UNIT = "decades per decade"


@dataclass(frozen=True)
class Trend:
    """Slopes by seed, the height of their mean line, and which seeds have none, for what reason.

    All slopes are over the same `depths`, those of all seeds together: a seed that lacks one of them has no slope,
    since over another range a bent curve has another one.
    """

    depths: tuple[float, ...]
    slopes: dict[int, float]
    intercept: float  # mean over these seeds of log10(value) at depth 1
    undefined: dict[str, list[int]] = field(default_factory=dict)

    @property
    def estimate(self) -> Estimate | None:
        """Mean over seeds, sample standard deviation, Student's 95 % interval; None without any slope."""
        return estimate(list(self.slopes.values())) if self.slopes else None

    @property
    def seeds(self) -> int:
        """How many seeds there are, with and without a slope."""
        return len(self.slopes) + sum(map(len, self.undefined.values()))


def trend(values: Mapping[int, Mapping[float, float]]) -> Trend:
    """{seed: {depth: value}} -> the slopes of its seeds."""
    depths = tuple(sorted({depth for points in values.values() for depth in points}))
    lines: dict[int, tuple[float, float]] = {}
    undefined: dict[str, list[int]] = {}
    for seed, points in sorted(values.items()):
        if reason := why_undefined(points, depths):
            undefined.setdefault(reason, []).append(seed)
        else:
            lines[seed] = line(points)
    height = float(np.mean([intercept for _, intercept in lines.values()])) if lines else math.nan
    return Trend(depths, {seed: slope for seed, (slope, _) in lines.items()}, height, undefined)


def line(points: Mapping[float, float]) -> tuple[float, float]:
    """(slope, intercept) of least squares, log10(value) on log10(depth); of points for which `why_undefined` is ''."""
    from scipy.stats import linregress  # takes 0.6 s to import, which commands without a series need not wait for

    fit = linregress(np.log10([*points]), np.log10([*points.values()]))
    return float(fit.slope), float(fit.intercept)


def why_undefined(points: Mapping[float, float], depths: Collection[float]) -> str:
    """Why a seed with these points has no slope over these depths; '' where it has one."""
    if len(depths) < LEAST_DEPTHS:
        return (
            f"a slope takes at least {LEAST_DEPTHS} depths, there {'is' if len(depths) == 1 else 'are'} {len(depths)}"
        )
    for what, bad in (
        ("no number", [depth for depth in depths if depth not in points]),
        ("undefined", [depth for depth, value in points.items() if not math.isfinite(value)]),
        ("not positive", [depth for depth, value in points.items() if value <= 0]),
    ):
        if bad:
            return f"{what} at {', '.join(f'{depth:g}' for depth in sorted(bad))}"
    return ""
