"""What ends a training before its last epoch."""

import torch

from nclab.data import Split
from nclab.interfaces.batch import Batch, Output
from nclab.training.objective import Objective

STOP_AT_LOSS = "stop_at_loss"  # an epoch's mean training loss is low enough
FITTED = "fitted"  # debug=overfit: the few samples are learnt
OF_MEAN = 0.01  # of the loss of the mean prediction: R^2 = 0.99 for the squared error


def loss_of_mean(objective: Objective, split: Split) -> float:
    """The objective's loss on a split of values (N, n) where every prediction is their mean."""
    mean = split.targets.mean(0).expand_as(split.targets)
    batch = Batch(split.samples, split.targets, torch.arange(len(split)), len(split))
    return float(objective.mean(Output(mean, {}), batch))


def is_fitted(scores: dict[str, float], objective: Objective, split: Split) -> bool:
    """Whether a split with these scores is learnt: classes where all are right, values where the loss is at most
    OF_MEAN of the one of their mean."""
    if "accuracy" in scores:
        return scores["accuracy"] == 1.0
    return scores["loss"] <= OF_MEAN * loss_of_mean(objective, split)
