"""The number by which runs are compared: which one it is, and whether it will be measured."""

from collections.abc import Iterable, Sequence

from nclab.data import Dataset
from nclab.interfaces.valid import no_choice
from nclab.metrics.suite import Metric
from nclab.training.objective import Objective

# What a training logs of the network beside an evaluation of the train split, and what where there is a penalty.
SCALARS = ("running_loss", "learning_rate", "learnable_parameters", "optimizer_bytes")
WITH_PENALTY = ("l2_penalty", "objective")


def headline_of(objective: Objective, configured: str | None, splits: Iterable[str]) -> tuple[str, str]:
    """Split and metric of the headline: as configured, else the objective's own, of the split `test`, without one of
    `valid`, without that of `train`."""
    split, _, metric = (configured or objective.headline).rpartition("/")
    return split or next(name for name in ("test", "valid", "train") if name in splits), metric


def check_number(
    key: str,
    split: str,
    metric: str,
    trained: bool,
    objective: Objective,
    dataset: Dataset,
    suites: Sequence[Metric],
    splits: Sequence[str],
) -> None:
    """Raise OutOfRange where a key, such as metrics.headline, names a number that will not be measured, as far as
    objective and suites (those of the train split) say what they measure. `trained`: what a training logs is measured,
    too."""
    valid = []
    for name in splits:
        own = objective.score_names(dataset.splits[name].targets)
        measured = [own, *(suite.names(name) for suite in suites)]
        if None in measured:
            if name == split:
                return
            continue
        found = set().union(*measured)
        if name == "train" and trained:
            found |= {*SCALARS, *(WITH_PENALTY if objective.penalises else ())}
            found -= {"objective"} if objective.complexity else set()  # whose third term is not measured
        valid += [f"{name}/{number}" for number in sorted(found)]
    if f"{split}/{metric}" not in valid:
        raise no_choice(key, f"{split}/{metric}", valid)
