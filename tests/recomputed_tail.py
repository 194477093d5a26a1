"""The numbers of claims on long-tailed training, by their definitions. Part of the judge of recomputed.py."""

import math

import numpy as np
from recomputed_free import STATISTICS
from recomputed_runs import Statistic, read_by_classifier


def network(run, metric, split):
    return run.column(metric, split).get((run.end, "network"), math.nan)


def percent(metric):
    return Statistic(lambda run, treated: 100 * network(run, metric, "test"))


def of_input(run, metric):
    return run.column(metric).get((run.end, read_by_classifier(run)), math.nan)


def tail_beyond_head_alignment(run, treated):
    cosines = []
    while not math.isnan(value := of_input(run, f"row_cosine_{len(cosines)}")):
        cosines.append(value)
    third = max(1, len(cosines) // 3)
    return np.mean(cosines[-third:]) - np.mean(cosines[:third])


def gain(metric, over):
    return Statistic(lambda run, treated: 100 * (network(run, metric, "test") - network(run, over, "test")))


STATISTICS |= {
    "balanced_accuracy": percent("balanced_accuracy"),
    "tail_accuracy": percent("tail_accuracy"),
    "centre_cosine": Statistic(lambda run, treated: network(run, "centre_cosine", "train")),
    "tail_row_cosine": Statistic(lambda run, treated: of_input(run, "tail_row_cosine")),
    "tail_beyond_head_rows": Statistic(
        lambda run, treated: of_input(run, "tail_row_cosine") - of_input(run, "head_row_cosine")
    ),
    "row_cosine": Statistic(lambda run, treated: of_input(run, "row_cosine")),
    "tail_beyond_head_alignment": Statistic(tail_beyond_head_alignment),
    "post_hoc_rotation": gain("post_hoc_slerp_equal", "post_hoc_equal"),
    "post_hoc_projection": gain("post_hoc_proj_equal", "post_hoc_equal"),
    "post_hoc_norms": gain("post_hoc_equal", "balanced_accuracy"),
}
