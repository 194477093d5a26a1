"""How features of the buffer differ from those of all earlier samples, and where these lie, against its size."""

import math

import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.drawing import WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.runs import Run
from nclab.papers.continual.buffer_axis import about, buffer_axis, by_buffer, curve, in_words, over_seeds
from nclab.papers.continual.tasks import NEEDED, at_task_ends

ORANGE, BLUE, GREEN = "#D55E00", "#0072B2", "#009E73"
SOLID, DASHED, DOTTED = "-", (0, (3.2, 1.8)), (0, (1, 1.5))
ALL = {"color": BLUE, "marker": "s", "ls": DASHED}
HELD = ("samples in the buffer", {"color": ORANGE, "marker": "o", "ls": SOLID})
CONTROL = ("as many outside the buffer", {"color": "black", "marker": "^", "ls": DOTTED})
PANELS = [  # title, log axis, {column: (label, look)}
    (
        "NC1: variability within\nclasses of earlier tasks (nc1)",
        True,
        {
            "memory_nc1": HELD,
            "control_nc1": CONTROL,
            "past_nc1": ("all earlier samples", ALL),
        },
    ),
    (
        "Length of the class means,\nover that of all earlier samples",
        False,
        {"memory_norm_ratio": HELD, "control_norm_ratio": CONTROL},
    ),
    (
        "Signal to noise between\nclasses of earlier tasks",
        True,
        {
            "past_snr": ("all earlier samples", ALL),
            "past_snr_in_span": ("their parts in S", {"color": GREEN, "marker": "v", "ls": DOTTED}),
            "past_snr_orthogonal": ("their parts orthogonal to S", {"color": "black", "marker": "D", "ls": SOLID}),
        },
    ),
    (
        "Share in the span of\npresent class means, S",
        False,
        {
            "past_mean_in_span": ("share of means in S", {"color": GREEN, "marker": "v", "ls": DOTTED}),
            "past_spread_in_span": ("share of spread in S", {"color": "0.4", "marker": "x", "ls": DASHED}),
        },
    ),
]
COLUMNS = [column for _, _, columns in PANELS for column in columns]


@DRAWINGS.figure(
    "buffer_collapse",
    of="runs over tasks: collapse of the replay buffer and of all earlier samples against its size",
    caption="Features of the classes of earlier tasks at the classifier's input, after the last task. NC1 (nc1) of "
    "those in the buffer, of as many of every class outside it, and of all train samples; the length of the centred "
    "class means of the first two over that of all; mean "
    "over pairs of classes of the squared distance of their means over their variances, of the features, of their "
    "parts in S, the span of the centred class means of the present task, and orthogonal to it; the share of means and "
    "of spread in S. Lines are medians over seeds, bands reach from the least seed to the greatest.",
    says=lambda table: in_words(table.pivot(index="buffer", columns="column", values="median").reset_index()),
    needs=NEEDED,
)
def buffer_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Four panels; returns the picture and its table: column, buffer, median, low, high, n."""
    groups = by_buffer(runs)
    table = pd.DataFrame(
        [
            {"column": column, "buffer": buffer, **over_seeds(group, lambda run, c=column: _last(run, c))}
            for column in COLUMNS
            for buffer, group in groups.items()
        ]
    )
    with style():
        return _draw(table, groups), table


def _last(run: Run, column: str) -> float:
    """nan for a 0, which has no place on a log axis: a buffer of one sample a class has no variability."""
    return float(at_task_ends(run, column).iloc[-1]) or math.nan


def _draw(table: pd.DataFrame, groups: dict[float, list[Run]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    shares = list(groups)
    smallest = min((s for s in shares if s > 0), default=1.0)
    keys = {}
    for i, (axes, (title, log, columns)) in enumerate(zip(figure.subplots(2, 2).flat, PANELS, strict=True)):
        axes.set_title(title)
        for column, (label, look) in columns.items():
            curve(axes, table[table.column == column], smallest, **look)
            keys[label] = key(label, ms=3.5, **look)
        if log:
            axes.set_yscale("log")
            log_ticks(axes.yaxis)
        elif "memory_norm_ratio" in columns:
            axes.axhline(1, color="0.6", lw=0.6)
        else:
            axes.set_ylim(0, 1)
        buffer_axis(axes, shares)
        axes.set_xlabel("" if i < 2 else axes.get_xlabel())
    caption(figure, *about(groups))
    legend(figure, list(keys.values()), most=3)
    return figure
