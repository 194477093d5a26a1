"""loss=focal: cross-entropy that counts less where the network is sure."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.valid import OutOfRange
from nclab.training.objective import LOSSES, CrossEntropy, LossSettings


@dataclass
class FocalSettings(LossSettings):
    name: str = "focal"
    gamma: float = 3.0  # exponent; 0: cross-entropy. Below 1 the gradient has no limit where p_y goes to 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.gamma == 0 or 1 <= self.gamma < math.inf):
            raise OutOfRange(f"loss.gamma must be 0 or at least 1, and finite; got {self.gamma:g}", "loss.gamma")


@LOSSES.add("focal", FocalSettings)
class Focal(CrossEntropy):
    """-(1 - p_y)^gamma log p_y, p = softmax(logits) (Lin et al. 2017).

    With unconstrained features its global optima collapse like those of cross-entropy (Zhou et al. 2022)."""

    def each(self, out: Output, batch: Batch) -> Tensor:
        surprise = functional.cross_entropy(self.logits(out, batch), batch.targets, reduction="none")  # -log p_y
        return (-torch.expm1(-surprise)) ** self.settings.gamma * surprise  # expm1: 1 - p_y without a difference
