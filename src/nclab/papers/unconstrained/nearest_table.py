"""The grid of learning rates from which each classifier on free features gets its own (arXiv 2411.01248)."""

import numpy as np
import pandas as pd

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.runs import Run
from nclab.papers.unconstrained.nearest_figure import NEEDED, arms, by_rate
from nclab.papers.unconstrained.nearest_numbers import last_log_nc1, last_log_nc1_trace_ratio, steps_to_train_accuracy


@DRAWINGS.table("nearest_rates", of="free features below learnt, fixed and nearest classifiers: a row a rate",
                needs=NEEDED)  # fmt: skip
def nearest_rates(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a classifier and learning rate: geometric means of nc1 and nc1_trace_ratio after the last step, mean steps
    to 100 % train accuracy, seeds that got there, seeds. NC1 is nan where a run ended without a number."""
    rows = []
    for name, of_arm in arms(runs).items():
        for rate, group in sorted(by_rate(of_arm).items()):
            last = {"nc1_last": last_log_nc1, "nc1_trace_ratio_last": last_log_nc1_trace_ratio}
            steps = np.array([steps_to_train_accuracy(run, run) for run in group])
            there = steps <= group[0].config["epochs"]
            rows.append(
                {
                    "classifier": name,
                    "lr": rate,
                    **{key: float(f"{10 ** np.mean([of(run, run) for run in group]):.3g}") for key, of in last.items()},
                    "steps_to_accuracy": round(float(steps[there].mean()), 1) if there.any() else np.nan,
                    "seeds_there": int(there.sum()),
                    "seeds": len(group),
                }
            )
    return pd.DataFrame(rows), None
