"""One half of a dataset, train or test: samples and their labels, row by row."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nclab.data.stratify import stratified_indices

PIXELS = (4, torch.uint8)  # dimensions and dtype of images (N, ch, h, w)
TOKENS = (2, torch.int32)  # of texts (N, T)


@dataclass(frozen=True)
class Split:
    """Samples and their labels, row by row; ValueError if dtype, shape or count is wrong."""

    samples: Tensor  # (N, ch, h, w) uint8: images | (N, T) int32: texts
    labels: Tensor  # (N,) int64

    def __post_init__(self) -> None:
        texts = self.samples.dtype == torch.int32 or (self.samples.ndim == 2 and self.samples.dtype != torch.uint8)
        for field, (dims, dtype) in (("samples", TOKENS if texts else PIXELS), ("labels", (1, torch.int64))):
            tensor = getattr(self, field)
            if tensor.ndim != dims or tensor.dtype != dtype:
                came = f"{tensor.ndim} of {tensor.dtype}"
                raise ValueError(f"{field}: expected {dims} dimensions of {dtype}, got {came}")
        if len(self.samples) != len(self.labels):
            raise ValueError(f"expected one label a sample, got {len(self.samples)} and {len(self.labels)}")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.samples.to(device), self.labels.to(device))

    def subset(self, size: int | None) -> "Split":
        """A fixed stratified subset, the same for every seed of a run; None keeps all."""
        if size is None:
            return self
        chosen = stratified_indices(self.labels, size)
        return Split(self.samples[chosen], self.labels[chosen])

    def divide(self, test_size: int) -> tuple["Split", "Split"]:
        """Fixed stratified (train, test) of a set that comes undivided."""
        held_out = torch.zeros(len(self), dtype=torch.bool)
        held_out[stratified_indices(self.labels, test_size)] = True
        kept = ~held_out
        return (
            Split(self.samples[kept], self.labels[kept]),
            Split(self.samples[held_out], self.labels[held_out]),
        )
