"""Shallow and deep forgetting, and the error after the last task, against the size of the buffer."""

import pandas as pd
from matplotlib.figure import Figure

from nclab.analysis.curves import NETWORK
from nclab.analysis.drawing import WIDTH, caption, key, legend, style
from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.last_layer import at_end, classifier_input, needed
from nclab.analysis.log_axis import log_ticks
from nclab.analysis.runs import Run, refuse_mixture
from nclab.papers.continual.buffer_axis import about, buffer_axis, by_buffer, curve, in_words, over_seeds
from nclab.papers.continual.tasks import HEADS, NEEDED, PROBE, final, forgetting, is_joint, matrix, scenario

LOOKS = {  # Okabe and Ito's colours
    HEADS: {"color": "#D55E00", "marker": "o", "ls": "-"},
    PROBE: {"color": "#0072B2", "marker": "s", "ls": (0, (3.2, 1.8))},
}
NAMES = {HEADS: "the network's head (shallow)", PROBE: "a linear probe of its features (deep)"}
LEAST_ERROR = 1e-4  # where an error of 0 is drawn on its log axis


@DRAWINGS.figure(
    "forgetting",
    of="runs over tasks: shallow and deep forgetting against the size of the replay buffer",
    caption="Forgetting against the size of the replay buffer. Left: mean over all tasks but the last of the test "
    "accuracy on a task at its end minus that at the end of the run, of the network (shallow) and of a linear probe "
    "that is fitted to the features of all tasks seen (deep). Right: error after the last task, mean over tasks; grey "
    "lines: the same network trained on all classes at once for as many epochs. Lines are medians over seeds, bands "
    "reach from the least seed to the greatest.",
    says=lambda table: in_words(table[["quantity", "of", "buffer", "median", "low", "high", "n"]]),
    needs=NEEDED,
)
def forgetting_figure(runs: list[Run], policies: list[str] | None = None) -> tuple[Figure, pd.DataFrame]:
    """Two panels; returns the picture and its table: quantity, of, buffer (nan: joint training), median, low, high, n;
    forgetting in points, errors as shares."""
    groups = by_buffer(runs)
    one_head = scenario(next(iter(groups.values()))[0]) == "class"
    joint = [run for run in runs if is_joint(run) and one_head]  # it tells all classes apart, heads and domains do not
    refuse_mixture(joint)
    rows = []
    for of in (HEADS, PROBE):
        for buffer, group in groups.items():
            found = over_seeds(group, lambda run, of=of: forgetting(matrix(run, of)))
            rows.append({"quantity": "forgetting", "of": of, "buffer": buffer, **found})
            found = over_seeds(group, lambda run, of=of: 1 - final(matrix(run, of)) / 100)
            rows.append({"quantity": "error", "of": of, "buffer": buffer, **found})
        if joint:
            found = over_seeds(joint, lambda run, of=of: 1 - _test(run, of))
            rows.append({"quantity": "error", "of": of, "buffer": float("nan"), **found})
    table = pd.DataFrame(rows)
    with style():
        return _draw(table, groups), table


def _test(run: Run, of: str) -> float:
    """After the last epoch, on the whole test split."""
    return needed(run, at_end(run, "test"), NETWORK if of == HEADS else classifier_input(run), of, "test")


def _draw(table: pd.DataFrame, groups: dict[float, list[Run]]) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.75), layout="constrained")
    left, right = figure.subplots(1, 2)
    shares = list(groups)
    smallest = min((s for s in shares if s > 0), default=1.0)
    for axes, quantity in ((left, "forgetting"), (right, "error")):
        for of, look in LOOKS.items():
            rows = table[(table.quantity == quantity) & (table.of == of)].copy()
            joint = rows[rows.buffer.isna()]
            rows = rows[rows.buffer.notna()]
            if quantity == "error":
                rows[["median", "low", "high"]] = rows[["median", "low", "high"]].clip(lower=LEAST_ERROR)
                for value in joint["median"].clip(lower=LEAST_ERROR):
                    axes.axhline(value, color="0.45", ls=look["ls"], lw=1.0, zorder=1)
            curve(axes, rows, smallest, **look)
        buffer_axis(axes, shares)
    left.set_title("Forgetting of earlier tasks (points)")
    left.axhline(0, color="0.6", lw=0.6)
    right.set_title("Error after the last task, 1 − test accuracy")
    right.set_yscale("log")
    log_ticks(right.yaxis)
    caption(figure, *about(groups))
    keys = [key(NAMES[of], **look, ms=3.5) for of, look in LOOKS.items()]
    if table.buffer.isna().any():
        keys.append(key("joint training", color="0.45", lw=1.0))
    legend(figure, keys, most=3)
    return figure
