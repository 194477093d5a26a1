"""One part of a dataset, such as train or test: samples and their targets, row by row."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nclab.data.stratify import subset_indices

# dtype -> (what the samples are, fewest and most dimensions)
SAMPLES = {
    torch.uint8: ("images (N, ch, h, w)", 4, 4),
    torch.int32: ("texts (N, T)", 2, 2),
    torch.float32: ("arrays (N, ...)", 2, 64),
    torch.float64: ("arrays (N, ...)", 2, 64),
    torch.int64: ("row numbers (N,)", 1, 1),
}


@dataclass(frozen=True)
class Split:
    """Samples and their targets, row by row; ValueError if dtype, shape or count is wrong."""

    samples: Tensor  # (N, ch, h, w) uint8 | (N, T) int32 | (N, ...) float32 or float64 | (N,) int64
    targets: Tensor  # (N,) int64: classes | (N, n) float32 or float64: values

    def __post_init__(self) -> None:
        samples, targets = self.samples, self.targets
        _, least, most = SAMPLES.get(samples.dtype, ("", 1, 0))
        if not least <= samples.ndim <= most:
            expected = ", ".join(f"{what} {str(dtype).removeprefix('torch.')}" for dtype, (what, *_) in SAMPLES.items())
            raise ValueError(f"samples: expected one of {expected}; got {samples.ndim} dimensions of {samples.dtype}")
        if (targets.ndim, targets.dtype) not in ((1, torch.int64), (2, torch.float32), (2, torch.float64)):
            expected = "classes (N,) int64 or values (N, n) float32 or float64"
            raise ValueError(f"targets: expected {expected}, got {targets.ndim} dimensions of {targets.dtype}")
        if len(samples) != len(targets):
            raise ValueError(f"expected one target a sample, got {len(samples)} samples and {len(targets)} targets")

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, rows: Tensor) -> "Split":
        """The split of these rows: indices or a mask."""
        return Split(self.samples[rows], self.targets[rows])

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.samples.to(device), self.targets.to(device))

    def subset(self, size: int | None) -> "Split":
        """A fixed subset, the same for every seed of a run: stratified for classes. None keeps all."""
        return self if size is None else self[subset_indices(self.targets, size)]

    def divide(self, size: int) -> tuple["Split", "Split"]:
        """(the rest, `size` samples held out): fixed, stratified for classes."""
        held_out = torch.zeros(len(self), dtype=torch.bool)
        held_out[subset_indices(self.targets, size)] = True
        return self[~held_out], self[held_out]
