"""The numbers that claims on complexity, collapse and transfer are about (arXiv 2405.15706), after the last epoch.

A run with a loss to stop at (`stop_at_loss`) that did not come down to it, or whose network is at another training loss
after all, has none of them: it is not comparable with the others.
"""

import math

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import at_end, classifier_input, needed
from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic


def of_features(run: Run, metric: str) -> float:
    """A column of the classifier's input on the train split; nan of a run that is not at its loss."""
    return needed(run, at_end(run), classifier_input(run), metric) if is_matched(run) else math.nan


WITHIN = 2.0  # factor


def is_matched(run: Run) -> bool:
    """Whether training ended at its `stop_at_loss` and the network is there, or there was none to stop at.

    With `stop_loss=running` training stops by the mean loss of the last epoch's batches, while the weights move; the
    network after it may be at another train loss L. With `evaluated` L is at most the stop, and one epoch may lead far
    below. So stop / 2 <= L <= 2 stop is asked for. The factors, WITHIN and its inverse, were chosen after the first
    runs of profile cpu, which stopped by the running loss, were seen.
    """
    stop = run.config.get("stop_at_loss")
    if stop is None:
        return True
    return run.result("ended_by") == "stop_at_loss" and stop / WITHIN <= train_loss(run) <= WITHIN * stop


def train_loss(run: Run) -> float:
    """Mean loss over the train split in evaluation, after the last epoch (loss)."""
    return needed(run, at_end(run), NETWORK, "loss")


@statistic("units", measured=True, positive=True)
def source_complexity(run: Run, treated: Run) -> float:
    """Geometric complexity of the classifier's input on the source classes (geometric_complexity)."""
    return of_features(run, "geometric_complexity")


@statistic("units", measured=True, positive=True)
def source_geometric_collapse(run: Run, treated: Run) -> float:
    """Geometric collapse on the source classes: complexity over distances of class means (geometric_collapse)."""
    return of_features(run, "geometric_collapse")


@statistic("CDNV", measured=True, positive=True)
def source_cdnv(run: Run, treated: Run) -> float:
    """Class-distance normalised variance of the source classes (cdnv)."""
    return of_features(run, "cdnv")


@statistic("CDNV", measured=True, positive=True)
def target_cdnv(run: Run, treated: Run) -> float:
    """Class-distance normalised variance of the held-out classes (target_cdnv)."""
    return of_features(run, "target_cdnv")


@statistic("points", measured=True, positive=True)
def few_shot_5(run: Run, treated: Run) -> float:
    """5-shot accuracy on the held-out classes by the nearest class mean, in percent (few_shot_accuracy_5)."""
    return 100 * of_features(run, "few_shot_accuracy_5")


@statistic("points", measured=True, positive=True)
def few_shot_1(run: Run, treated: Run) -> float:
    """1-shot accuracy on the held-out classes by the nearest class mean, in percent (few_shot_accuracy_1)."""
    return 100 * of_features(run, "few_shot_accuracy_1")


@statistic("points", measured=True, positive=True)
def target_linear(run: Run, treated: Run) -> float:
    """Accuracy of a linear probe on the held-out classes, in percent (target_linear_accuracy)."""
    return 100 * of_features(run, "target_linear_accuracy")


@statistic("nats", measured=True, positive=True)
def last_running_loss(run: Run, treated: Run) -> float:
    """Mean training loss of the last epoch's batches (running_loss), by which stop_loss=running ends a training."""
    return needed(run, at_end(run), NETWORK, "running_loss")


@statistic("nats", measured=True, positive=True)
def last_train_loss(run: Run, treated: Run) -> float:
    """Loss of the last weights over the train split, in evaluation (loss): that of the network that is measured."""
    return train_loss(run)
