"""How a column of metrics.csv is drawn: distances on a log axis, accuracies as the error that is left, others as is.

On a log axis a value of 0 has no place. It is drawn at a floor below all others and marked, never left out.
"""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from nclab.analysis.runs import Run
from nclab.analysis.statistics import images

DISTANCE, SHARE, ERROR, LINEAR = "distance", "share", "error", "linear"
# 0 at collapse, and no bound below that would be met.
OF_DISTANCE = re.compile(
    r"(past_|memory_|control_)?nc[123](_\w+)?|nc5|n?cdnv|nrc\d|d?nc3_gram|gnc\d|classifier_bias_collapse|geometric_collapse|.*(loss|_distance|_penalty)"
    r"|nll|brier|ece|learning_rate|objective"
)
OF_SHARE = re.compile(r"(.*_)?accuracy|neco_auroc")  # 1 at best: counts of samples by samples
OF_ERROR = re.compile(r"nc4_mismatch|.*_error")  # 0 at best: likewise


def kind_of(metric: str) -> str:
    """How a column is drawn.

    distance: on a log axis, seeds averaged as logarithms. share: as the error 1 - value on a log axis. error: on a log
    axis. linear: as it is.

    >>> [kind_of(name) for name in ("nc1", "ncc_accuracy", "nc4_mismatch", "rank", "nc2_weight_gram", "cdnv")]
    ['distance', 'share', 'error', 'linear', 'distance', 'distance']
    """
    kinds = {SHARE: OF_SHARE, ERROR: OF_ERROR, DISTANCE: OF_DISTANCE}
    return next((kind for kind, names in kinds.items() if names.fullmatch(metric)), LINEAR)


def floor_of(runs: Iterable[Run], split: str, values: Iterable[float]) -> tuple[float, str]:
    """Where a mean error of 0 is drawn, and how a caption says it: at half of the smallest error that could be.

    That is 1 / (2 n), where n counts the samples of the split once for every seed.

    Where the runs do not tell n, or tell one that is too small for the errors that are there, it is half of the
    smallest of these.

    Args:
        runs: Those that are drawn.
        split: The split of the errors.
        values: The mean errors that are drawn.
    """
    runs = list(runs)
    seeds = len({run.seed for run in runs})
    values = np.asarray(list(values), float)
    least = float(values[np.isfinite(values) & (values > 0)].min(initial=1.0))
    n = images(runs, split)
    if n and least > 0.99 / (n * seeds):
        return 1 / (2 * n * seeds), f"1/(2n), n = {n:,} {split} samples" + (f" × {seeds} seeds" if seeds > 1 else "")
    return least / 2, f"half of the smallest {split} error"


def floors_of(runs: Iterable[Run], table: pd.DataFrame, splits: Iterable[str]) -> dict[str, tuple[float, str]]:
    """`floor_of` the errors 1 - mean of each split in a table of accuracies."""
    runs = list(runs)
    return {split: floor_of(runs, split, 1 - table["mean"][table.split == split]) for split in splits}


def log_limits(values: pd.Series | np.ndarray) -> tuple[float, float]:
    """The ends of a log axis that holds these positive values: the next of 1, 2, 5 times a power of ten outwards.

    >>> log_limits(np.array([0.013, 0.4]))
    (0.01, 0.5)
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 0.1, 1.0
    low, high = _step(values.min(), up=False), _step(values.max(), up=True)
    return (low, high) if high > low else (low / 2, high * 2)


def _step(value: float, up: bool) -> float:
    decade = int(np.floor(np.log10(value)))
    steps = [float(f"{m}e{e}") for e in (decade - 1, decade, decade + 1) for m in (1, 2, 5)]
    near = 1e-9 * value
    return min(s for s in steps if s >= value - near) if up else max(s for s in steps if s <= value + near)
