"""The numbers that claims on long-tailed training are about."""

import math

import numpy as np

from nclab.analysis.curves import NETWORK
from nclab.analysis.last_layer import at_end, classifier_input, needed
from nclab.analysis.runs import Run
from nclab.analysis.statistics import statistic


def of_network(run: Run, metric: str, split: str = "test") -> float:
    """A number of the whole network after the last epoch."""
    return needed(run, at_end(run, split), NETWORK, metric, split)


def of_input(run: Run, metric: str) -> float:
    """A number of the classifier's input on the train split after the last epoch."""
    return needed(run, at_end(run), classifier_input(run), metric)


def by_class(run: Run, metric: str) -> np.ndarray:
    """`metric_c` of every class c after the last epoch, (C,): of the classifier's input on the train split, but
    class_accuracy of the test split."""
    network = metric == "class_accuracy"
    at, layer = at_end(run, "test" if network else "train"), NETWORK if network else classifier_input(run)
    found = []
    while (layer, f"{metric}_{len(found)}") in at:
        found.append(at[layer, f"{metric}_{len(found)}"])
    return np.array(found)


def third(values: np.ndarray) -> int:
    """How many classes head and tail have."""
    return max(1, len(values) // 3)


@statistic("points", measured=True)
def balanced_accuracy(run: Run, treated: Run) -> float:
    """Mean of the test accuracies of all classes after the last epoch (balanced_accuracy), in percent."""
    return 100 * of_network(run, "balanced_accuracy")


@statistic("points", measured=True)
def tail_accuracy(run: Run, treated: Run) -> float:
    """Mean of the test accuracies of the tail classes, the rarest third, after the last epoch, in percent."""
    return 100 * of_network(run, "tail_accuracy")


@statistic("cosine", measured=True)
def centre_cosine(run: Run, treated: Run) -> float:
    """Mean over train samples of the cosine of a feature and the mean centre of its class (centre_cosine), after the
    last epoch."""
    return of_network(run, "centre_cosine", "train")


@statistic("cosine", measured=True)
def tail_row_cosine(run: Run, treated: Run) -> float:
    """Largest cosine between two rows of tail classes (tail_row_cosine) after the last epoch."""
    return of_input(run, "tail_row_cosine")


@statistic("cosine", measured=True)
def tail_beyond_head_rows(run: Run, treated: Run) -> float:
    """Largest cosine between two rows of tail classes minus that of head classes, after the last epoch."""
    return of_input(run, "tail_row_cosine") - of_input(run, "head_row_cosine")


@statistic("cosine", measured=True)
def row_cosine(run: Run, treated: Run) -> float:
    """Mean over classes of the cosine of centred class mean and centred row (row_cosine), after the last epoch."""
    return of_input(run, "row_cosine")


@statistic("cosine", measured=True)
def tail_beyond_head_alignment(run: Run, treated: Run) -> float:
    """Mean cosine of centred class mean and centred row of the last third of the classes minus that of the first third,
    after the last epoch: classes in the order of their numbers, which is head to tail."""
    cosines = by_class(run, "row_cosine")
    if not len(cosines):
        return math.nan
    return float(cosines[-third(cosines) :].mean() - cosines[: third(cosines)].mean())


@statistic("points", measured=True)
def post_hoc_rotation(run: Run, treated: Run) -> float:
    """Balanced test accuracy of rows of equal length, turned by 0.3 of their angle to the class means after training
    (post_hoc_slerp_equal), minus that of rows of equal length alone (post_hoc_equal), in percent."""
    return 100 * (of_network(run, "post_hoc_slerp_equal") - of_network(run, "post_hoc_equal"))


@statistic("points", measured=True)
def post_hoc_projection(run: Run, treated: Run) -> float:
    """Balanced test accuracy of rows projected on the span of the class means after training, at equal length
    (post_hoc_proj_equal), minus that of rows of equal length alone (post_hoc_equal), in percent."""
    return 100 * (of_network(run, "post_hoc_proj_equal") - of_network(run, "post_hoc_equal"))


@statistic("points", measured=True)
def post_hoc_norms(run: Run, treated: Run) -> float:
    """Balanced test accuracy of rows of equal length (post_hoc_equal) minus that of the rows as trained, in percent."""
    return 100 * (of_network(run, "post_hoc_equal") - of_network(run, "balanced_accuracy"))
