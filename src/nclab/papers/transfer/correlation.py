"""Rank correlations over the settings of a sweep, with an interval over class splits and seeds."""

import numpy as np
import pandas as pd

from nclab.analysis.drawings import DRAWINGS
from nclab.analysis.interval import estimate
from nclab.analysis.labels import dataset_label
from nclab.analysis.runs import Run
from nclab.analysis.statistics import STATISTICS
from nclab.papers.transfer import numbers
from nclab.papers.transfer.settings import BASE, KNOBS, NEEDED, SPLIT, Setting, of_knob, settings_of

LEAST = 4  # settings of a rank correlation: of three there are four values, and 1 comes by chance once in six times
RESAMPLES = 2000
PAPER = ("loss.l2", "optimizer.lr", "batch_size")  # the knobs of the paper
OF = (numbers.source_complexity, numbers.source_geometric_collapse)
WITH = {  # statistic -> the sign that the paper's claim has with complexity
    numbers.source_cdnv: 1,
    numbers.target_cdnv: 1,
    numbers.few_shot_1: -1,
    numbers.few_shot_5: -1,
    numbers.target_linear: -1,
}


@DRAWINGS.table("transfer_correlations", of="networks on source classes: rank correlations of complexity with collapse "
                "and transfer over the settings of a sweep", needs=NEEDED)  # fmt: skip
def correlations(runs: list[Run], policies: list[str] | None = None) -> tuple[pd.DataFrame, None]:
    """A row a dataset, sweep and pair of numbers: Spearman's rank correlation over settings, the mean over class splits
    of the mean over seeds; Student's 95 % interval over splits (low, high); that of a bootstrap of splits and seeds
    within them, which of three splits is little more than their range; least and greatest split; and by Student's
    interval what it says of the claimed sign."""
    rows = []
    for dataset in dict.fromkeys(dataset_label(run.config) for run in runs):
        settings = settings_of([run for run in runs if dataset_label(run.config) == dataset])
        for sweep, own in sweeps(settings).items():
            for x in OF:
                rows += [{"dataset": dataset, "sweep": sweep} | row(own, x, y, sign) for y, sign in WITH.items()]
    return pd.DataFrame(rows), None


def sweeps(settings: dict[Setting, list[Run]]) -> dict[str, dict[Setting, list[Run]]]:
    """The sweep of each knob, of the paper's three, and of all four, with the base: those of LEAST settings."""
    found = {KNOBS[knob]: of_knob(settings, knob) for knob in KNOBS}
    found["the three of the paper"] = {at: runs for at, runs in settings.items() if at[0] in (BASE, *PAPER)}
    found["all"] = settings
    return {name: own for name, own in found.items() if len(own) >= LEAST}


def row(settings: dict[Setting, list[Run]], x, y, sign: int) -> dict:
    """The correlation of two statistics over settings."""
    by_cluster = clusters(settings, x, y)
    splits = {split: np.mean(list(own.values())) for split, own in by_cluster.items()}
    low, high = over_splits([float(mean) for mean in splits.values()])
    boot_low, boot_high = interval(by_cluster)
    says = "undecided" if low <= 0 <= high or np.isnan(low) else "as claimed" if sign * low > 0 else "the opposite"
    return {
        "of": x.__name__,
        "with": y.__name__,
        "claimed": "+" if sign > 0 else "−",
        "rho": round(float(np.mean([*splits.values()])), 3) if splits else np.nan,
        "low": round(low, 3),
        "high": round(high, 3),
        "bootstrap_low": round(boot_low, 3),
        "bootstrap_high": round(boot_high, 3),
        "least_split": round(min(splits.values(), default=np.nan), 3),
        "greatest_split": round(max(splits.values(), default=np.nan), 3),
        "says": says,
        "settings": len(settings),
        "splits": len(by_cluster),
        "seeds": max((len(own) for own in by_cluster.values()), default=0),
    }


def clusters(settings: dict[Setting, list[Run]], x, y) -> dict[object, dict[int, float]]:
    """{class split: {seed: Spearman's rho over settings}}, of those that have a finite number in every setting."""
    from scipy.stats import spearmanr

    points: dict[tuple, dict[Setting, tuple[float, float]]] = {}
    for at, runs in settings.items():
        for run in runs:
            pair = (STATISTICS[x.__name__].value(run, run), STATISTICS[y.__name__].value(run, run))
            points.setdefault((run.settings.get(SPLIT), run.seed), {})[at] = pair
    found: dict[object, dict[int, float]] = {}
    for (split, seed), own in sorted(points.items(), key=str):
        values = np.array(list(own.values()))  # (settings, 2)
        if len(own) == len(settings) and np.isfinite(values).all() and (np.ptp(values, axis=0) > 0).all():
            found.setdefault(split, {})[seed] = float(spearmanr(values[:, 0], values[:, 1]).statistic)
    return found


def over_splits(means: list[float]) -> tuple[float, float]:
    """Student's 95 % interval, cut at -1 and 1; all of it for fewer than two splits, and for a few equal ones."""
    found = estimate(means) if means else None
    return (max(-1.0, found.low), min(1.0, found.high)) if found else (np.nan, np.nan)


def interval(by_split: dict[object, dict[int, float]], resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % of the means of resampled splits, within each of resampled seeds; nan of one split of one seed."""
    groups = [np.array(list(own.values())) for own in by_split.values()]
    if sum(map(len, groups)) < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(0)
    means = []
    for _ in range(resamples):
        chosen = (groups[i] for i in rng.integers(len(groups), size=len(groups)))
        means.append(np.mean([own[rng.integers(len(own), size=len(own))].mean() for own in chosen]))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
