"""Forgetting, accuracy and geometry at every size of the buffer, as a table."""

from collections.abc import Callable

import pandas as pd

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.labels import dataset_label
from nclab.analysis.runs import Run
from nclab.papers.continual.buffer_axis import SCENARIOS, by_buffer, over_seeds
from nclab.papers.continual.numbers import least_train_accuracy
from nclab.papers.continual.tasks import (
    HEADS,
    NEEDED,
    PROBE,
    at_task_ends,
    final,
    forgetting,
    is_joint,
    matrix,
    scenario,
)

LAST = {  # column of the table -> of metrics.csv, at the end of the last task, with its digits
    "norm_ratio": ("memory_norm_ratio", 3),
    "past_rank": ("past_rank", 0),
    "seen_rank": ("seen_rank", 0),
}


@DRAWINGS.table("forgetting_table", of="runs over tasks: forgetting, accuracy, least train accuracy, norm ratio and "
                "rank of the means", needs=NEEDED)  # fmt: skip
def forgetting_table(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a dataset, scenario and buffer: median [least, greatest] over seeds of shallow and deep forgetting
    (points), of the accuracy after the last task of network and probe (percent, mean over tasks), of the least train
    accuracy on a task at its end (percent), of the buffer's norm ratio and of the ranks of the class means; seeds."""
    rows = []
    tasks = [run for run in runs if not is_joint(run)]
    for dataset, incremental in dict.fromkeys((dataset_label(run.config), scenario(run)) for run in tasks):
        own = [run for run in tasks if (dataset_label(run.config), scenario(run)) == (dataset, incremental)]
        for buffer, group in by_buffer(own).items():
            rows.append(
                {
                    "dataset": dataset,
                    "heads": SCENARIOS[incremental],
                    "buffer_percent": f"{100 * buffer:g}",
                    "shallow": _text(group, lambda run: forgetting(matrix(run, HEADS))),
                    "deep": _text(group, lambda run: forgetting(matrix(run, PROBE))),
                    "accuracy": _text(group, lambda run: final(matrix(run, HEADS))),
                    "probe_accuracy": _text(group, lambda run: final(matrix(run, PROBE))),
                    "least_train_accuracy": _text(group, lambda run: least_train_accuracy(run, run)),
                    **{
                        name: _text(group, lambda run, c=column: float(at_task_ends(run, c).iloc[-1]), digits)
                        for name, (column, digits) in LAST.items()
                    },
                    "seeds": len(group),
                }
            )
    return pd.DataFrame(rows), None


def _text(runs: list[Run], value: Callable[[Run], float], digits: int = 1) -> str:
    """'98.1 [97.9, 98.3]': median, least, greatest; a dash where it is undefined."""
    found = over_seeds(runs, value)
    if not found["n"]:
        return "–"
    middle, low, high = (f"{found[name]:.{digits}f}" for name in ("median", "low", "high"))
    return middle if low == high else f"{middle} [{low}, {high}]"
