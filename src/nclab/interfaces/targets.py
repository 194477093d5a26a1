"""What a model is asked to predict: one of several classes, or values."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor


class Targets(Protocol):
    """The kind of a dataset's targets. `dim`: how many numbers a model predicts for a sample."""

    dim: int

    def groups(self, targets: Tensor) -> Tensor | None:
        """The class (B,) of every sample, int64; None where samples have no classes and so no class means."""

    def check(self, targets: Tensor) -> None:
        """Raise ValueError for targets of a split that are not of this kind."""


@dataclass(frozen=True)
class Classes:
    """Targets (B,) int64 in 0..count-1; a model predicts logits (B, count).

    `names` are the classes' names in the order of their numbers; None where the data have none. `heads`: groups of
    classes, each class in one of them: a sample is told apart from the classes of its own group alone, as if each group
    had a head of its own; None: from all.
    """

    count: int
    names: tuple[str, ...] | None = None
    heads: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        if self.names is not None and len(self.names) != self.count:
            raise ValueError(f"expected {self.count} names, one a class, got {len(self.names)}")
        if self.heads is not None and sorted(label for head in self.heads for label in head) != list(range(self.count)):
            raise ValueError(f"expected every class 0 to {self.count - 1} in one head, got heads {self.heads}")

    @property
    def dim(self) -> int:
        return self.count

    def groups(self, targets: Tensor) -> Tensor:
        return targets

    def others(self, device: torch.device | str = "cpu") -> Tensor | None:
        """(C, C) bool: row c holds the classes that a sample of class c is not told apart from, those of other heads;
        None: there is one head."""
        return None if self.heads is None else _others(self.heads, torch.device(device))

    def within_heads(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The logits (..., B, C), -inf where a class is of another head than that of the sample's label (B,)."""
        return within_heads(logits, labels, self.others(labels.device))

    def check(self, targets: Tensor) -> None:
        if targets.dtype != torch.int64 or targets.ndim != 1:
            raise ValueError(f"expected class numbers (N,) int64, got {tuple(targets.shape)} of {targets.dtype}")
        low, high = targets.min().item(), targets.max().item()
        if low < 0 or high >= self.count:
            raise ValueError(f"expected labels 0 to {self.count - 1}, got {low} to {high}")


@cache  # every batch asks
def _others(heads: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """`Classes.others` of these heads."""
    head = torch.empty(sum(map(len, heads)), dtype=torch.int64)
    for i, labels in enumerate(heads):
        head[list(labels)] = i
    return (head != head[:, None]).to(device)


def within_heads(logits: Tensor, labels: Tensor, others: Tensor | None) -> Tensor:
    """`Classes.within_heads` with what `Classes.others` gives."""
    return logits if others is None else logits.masked_fill(others[labels], -math.inf)


@dataclass(frozen=True)
class Values:
    """Targets (B, dim) float32 or float64; a model predicts values of the same shape."""

    dim: int

    def groups(self, targets: Tensor) -> None:
        return None

    def check(self, targets: Tensor) -> None:
        if targets.dtype not in (torch.float32, torch.float64) or tuple(targets.shape[1:]) != (self.dim,):
            expected = f"values (N, {self.dim}) float32 or float64"
            raise ValueError(f"expected {expected}, got {tuple(targets.shape)} of {targets.dtype}")
        if not (finite := targets.isfinite().all(1)).all():
            raise ValueError(f"expected finite values, got another in row {(~finite).nonzero()[0].item()}")
