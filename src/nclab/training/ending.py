"""What ends a training before its last epoch, and by which number its best epoch is found."""

import math
from dataclasses import dataclass

import torch

from nclab.data import Split
from nclab.interfaces.batch import Batch, Output
from nclab.training.objective import Objective

STOP_AT_LOSS = "stop_at_loss"  # the training loss that stop_loss names is at most stop_at_loss
STOP_PATIENCE = "stop_patience_epochs"  # the best epoch is long ago
FITTED = "fitted"  # debug=overfit: the few samples are learnt
RUNNING, EVALUATED = STOP_LOSSES = ("running", "evaluated")  # of an epoch's batches, of the train split after it
OF_MEAN = 0.01  # of the loss of the mean prediction: R^2 = 0.99 for the squared error


@dataclass(frozen=True)
class Best:
    """The number of the network by which epochs are compared. patience: epochs after the best one that end the
    training; None: it goes on."""

    split: str
    metric: str
    largest: bool
    patience: int | None = None

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether a number is the best so far; one that is not finite never is.

        >>> Best("valid", "loss", largest=False).is_better(0.5, than=0.7)
        True
        """
        if not math.isfinite(value):
            return False
        return than is None or (value > than if self.largest else value < than)

    def is_over(self, epoch: int, best: int) -> bool:
        """Whether a training ends with this epoch, where the best one was `best` (0: none yet)."""
        return self.patience is not None and epoch - best >= self.patience


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
