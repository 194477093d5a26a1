"""The numbers of claims on complexity and transfer, by their definitions. Part of the judge of recomputed.py."""

import math

from recomputed_runs import Statistic, read_by_classifier
from recomputed_tail import STATISTICS


def of_input(metric, factor=1.0):
    """Of a run that ended at its training loss and whose network is there too, or that was to end at none."""

    def value(run, treated):
        stop = run.config.get("stop_at_loss")
        if stop is not None:
            loss = run.column("loss")[run.end, "network"]
            if run.summary["ended_by"] != "stop_at_loss" or loss > 2 * stop or 2 * loss < stop:
                return math.nan
        return factor * run.column(metric)[run.end, read_by_classifier(run)]

    return Statistic(value)


STATISTICS |= {
    "source_complexity": of_input("geometric_complexity"),
    "source_geometric_collapse": of_input("geometric_collapse"),
    "source_cdnv": of_input("cdnv"),
    "target_cdnv": of_input("target_cdnv"),
    "few_shot_1": of_input("few_shot_accuracy_1", 100),
    "few_shot_5": of_input("few_shot_accuracy_5", 100),
    "target_linear": of_input("target_linear_accuracy", 100),
}
