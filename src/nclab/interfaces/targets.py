"""What a model is asked to predict: one of several classes, or values."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Targets(Protocol):
    """The kind of a dataset's targets. `dim`: how many numbers a model predicts for a sample."""

    dim: int

    def groups(self, targets: Tensor) -> Tensor | None:
        """The class (B,) of every sample, int64; None where samples have no classes and so no class means."""


@dataclass(frozen=True)
class Classes:
    """Targets (B,) int64 in 0..count-1; a model predicts logits (B, count)."""

    count: int

    @property
    def dim(self) -> int:
        return self.count

    def groups(self, targets: Tensor) -> Tensor:
        return targets


@dataclass(frozen=True)
class Values:
    """Targets (B, dim) float; a model predicts values of the same shape."""

    dim: int

    def groups(self, targets: Tensor) -> None:
        return None
