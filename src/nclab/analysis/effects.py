"""The picture of a claim: one line a setting with mean, 95 % interval and every seed."""

import io
import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nclab.analysis.drawing import style
from nclab.analysis.judgement import Judgement
from nclab.analysis.labels import statistic_label
from nclab.analysis.ledger import Claim
from nclab.analysis.verdict import CEILING, FAILS, HOLDS, NOT_ENOUGH, SMALLER

WIDTH = 4.6  # inches: narrow enough to be read on a phone
# Verdicts differ in shape as well as in colour (Okabe and Ito's blue, vermilion, green and purple).
MARKERS = {
    HOLDS: {"marker": "o", "color": "#0072B2"},
    FAILS: {"marker": "X", "color": "#D55E00"},
    SMALLER: {"marker": "v", "color": "#009E73"},
    CEILING: {"marker": "s", "color": "#CC79A7"},
    NOT_ENOUGH: {"marker": "o", "color": "0.35", "markerfacecolor": "white"},
}
LEGEND = (
    "● holds, ✖ fails, ▼ smaller than the margin, ■ ceiling, ○ not enough runs; ticks: seeds; line: 95 % interval, or "
    "least to greatest of a claim about every seed; arrows: it goes on; dashed: what decides"
)


def draw_effects(claim: Claim, judgements: list[Judgement]) -> bytes | None:
    """PNG of the judgements of one claim that have a number; None if none has. The same numbers give the same bytes."""
    shown = [judgement for judgement in judgements if judgement.estimate]
    if not shown:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, 0.62 + 0.42 * len(shown)), layout="constrained")
        axes = figure.subplots()
        lines = guides(claim, shown)
        low, high = _limits(shown, [value for value, _ in lines])
        for value, ends in lines:
            solid = claim.rule.paired and value == 0
            axes.plot([value] * 2, ends, color="0.45", lw=0.8, ls="-" if solid else (0, (4, 2)), zorder=1)
        for row, judgement in enumerate(shown):
            _line(axes, judgement, -row, low, high)
        axes.set(xlim=(low, high), ylim=_height(shown), yticks=[])
        axes.set_xlabel(axis_label(claim))
        axes.spines["left"].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def decisive(claim: Claim, margin: float | None) -> list[float]:
    """The values at which the verdict turns with this margin, and 0 of a difference."""
    margin = margin or 0.0
    return {
        "not_lower": [-margin, 0.0],
        "higher": [0.0, margin],
        "lower": [-margin, 0.0],
        "equivalent": [-margin, 0.0, margin],
        "at_least": [claim.threshold],
        "at_most": [claim.threshold],
        "every_seed_at_least": [claim.threshold],
        "every_seed_at_most": [claim.threshold],
        "equals": [claim.threshold - margin, claim.threshold + margin],
    }[claim.kind]


def guides(claim: Claim, shown: list[Judgement]) -> list[tuple[float, tuple[float, float]]]:
    """(value, ends of its vertical line) of all that is decisive: through the picture where every setting has it, else
    beside its own setting, as the margin may differ from one to another. Setting i is drawn at the height -i."""
    rows = [decisive(claim, judgement.margin) for judgement in shown]
    through = [value for value in rows[0] if all(value in row for row in rows)]
    own = [(value, (-i - 0.3, -i + 0.3)) for i, row in enumerate(rows) for value in row if value not in through]
    return [(value, _height(shown)) for value in through] + own


def _height(shown: list[Judgement]) -> tuple[float, float]:
    return -len(shown) + 0.55, 0.75


def axis_label(claim: Claim) -> str:
    """'test accuracy, treatment − baseline (points)'; 'nc1_trace_ratio last, slope along model.blocks (decades per
    decade)'."""
    sides = ", treatment − baseline" if claim.rule.paired else ""
    slope = f", slope along {claim.along}" if claim.along else ""
    return f"{statistic_label(claim.statistic.name)}{sides}{slope}" + (f" ({claim.unit})" if claim.unit else "")


def extent(judgement: Judgement) -> tuple[float, float]:
    """The ends of the line: the interval, or least and greatest number where every seed is judged."""
    e = judgement.estimate
    return (e.low, e.high) if judgement.claim.rule.interval else (e.least, e.greatest)


def _limits(shown: list[Judgement], lines: list[float]) -> tuple[float, float]:
    """Seeds and decisive values are inside, intervals as far as twice their span: those of two seeds are 9 sd wide."""
    points = [*lines, *(value for judgement in shown for value in judgement.estimate.values)]
    low, high = min(points), max(points)
    span = high - low or 1.0
    ends = [end for judgement in shown for end in extent(judgement) if low - span <= end <= high + span]
    low, high = min([low, *ends]), max([high, *ends])
    return low - 0.06 * span, high + 0.06 * span


def _line(axes: Axes, judgement: Judgement, height: float, low: float, high: float) -> None:
    e, look = judgement.estimate, MARKERS[judgement.verdict]
    first, last = extent(judgement)
    if math.isfinite(first):
        axes.plot([max(first, low), min(last, high)], [height] * 2, color=look["color"], lw=1.4, zorder=2)
        beyond = ((first < low, low, "<"), (last > high, high, ">"))
        for is_beyond, at, arrow in beyond:
            if is_beyond:
                axes.plot(at, height, arrow, color=look["color"], ms=5, clip_on=False, zorder=3)
    axes.plot(e.values, [height] * e.n, "|", color=look["color"], ms=7, mew=0.9, zorder=3)
    axes.plot(e.mean, height, ls="", ms=6, mew=1.2, zorder=4, **look)
    where = axes.get_yaxis_transform()
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}  # the lines behind stop at the words
    axes.annotate(judgement.where, (0, height), (2, 7), where, "offset points", fontsize=7, color="0.2", bbox=ground)
