"""What a training step passes around: a batch of samples, and what the model makes of it."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """This process's samples of one batch, as the model sees them.

    `of` is the size of the whole batch over all processes: a mean loss divides by it, so that the gradients of the
    processes add up to the gradient of the whole batch.
    """

    inputs: Tensor  # (B, ...)
    targets: Tensor  # (B,) class numbers or (B, n) values
    index: Tensor  # (B,) rows of the split
    of: int


class Output(NamedTuple):
    """What a model returns.

    prediction: logits (B, C) or values (B, n). features: name -> (B, d) from input to output, each named like the layer
    that made it; the last is the classifier's input.
    """

    prediction: Tensor
    features: dict[str, Tensor]
