"""Long-tailed train splits: fewer samples from class to class."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nclab.data.stratify import ranks_in_class
from nclab.interfaces.valid import OutOfRange, no_choice

PROFILES = ("exponential", "step")


@dataclass(frozen=True)
class Imbalance:
    """How the classes 0 .. C-1 of a train split differ in size: class 0 is the head, class C-1 the end of the tail.

    factor: imbalance factor, samples of the largest class over those of the smallest, 1 or more: 1/tau of papers that
        write n_max tau^(k/(C-1)).
    profile: exponential: n_k = n_max factor^(-k/(C-1)) (Cui et al. 2019) | step: the first C // 2 classes have n_max,
        the others n_max / factor (Buda et al. 2018). Rounded.

    Raises ValueError for a factor below 1 or not finite, and another profile.
    """

    factor: float
    profile: str = "exponential"

    def __post_init__(self) -> None:
        if not 1 <= self.factor < math.inf:
            said = f"dataset.imbalance is the largest class over the smallest: expected 1 or more, got {self.factor:g}"
            raise OutOfRange(said, "dataset.imbalance")
        if self.profile not in PROFILES:
            raise no_choice("dataset.imbalance_profile", self.profile, PROFILES)

    def shares(self, classes: int) -> list[float]:
        """n_k / n_max of every class, (C,)."""
        if self.profile == "step":
            return [1.0] * (classes // 2) + [1 / self.factor] * (classes - classes // 2)
        return [self.factor ** (-k / max(1, classes - 1)) for k in range(classes)]

    def counts(self, largest: int, classes: int) -> list[int]:
        """n_k of every class where n_max is `largest`, (C,).

        >>> Imbalance(100).counts(1000, classes=10)
        [1000, 599, 359, 215, 129, 77, 46, 28, 17, 10]
        """
        return [round(largest * share) for share in self.shares(classes)]


def kept_of(labels: Tensor, classes: int, imbalance: Imbalance) -> Tensor:
    """Rows (n,), ascending, of the labels (N,) that are left: of every class a random part, always the same one; a
    larger factor keeps rows of a smaller one, where n_max is the same.

    n_max is the largest number at which no class lacks samples: mostly the samples of class 0. Raises ValueError where
    n_max is below the factor, so that the last class would have none.
    """
    there = labels.bincount(minlength=classes).tolist()
    largest = there[0]
    while any(own > most for own, most in zip(imbalance.counts(largest, classes), there, strict=True)):
        largest -= 1
    if largest < imbalance.factor:
        raise ValueError(
            f"expected at most {largest}, so that the smallest class keeps a sample; got {imbalance.factor:g}"
        )
    counts = torch.tensor(imbalance.counts(largest, classes))  # (C,)
    return (ranks_in_class(labels) < counts[labels]).nonzero().flatten()
