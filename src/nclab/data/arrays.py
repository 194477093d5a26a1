"""Datasets of numbers: arrays of floats, and row numbers of a model that holds what belongs to a row."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nclab.data.dataset import Dataset, DatasetSettings
from nclab.interfaces.shapes import ArrayShape, IndexShape


@dataclass
class ArraySettings(DatasetSettings):
    """The keys of a dataset of arrays."""

    standardize: bool = False  # mean 0, variance 1 a number over the train split; of images a channel

    @property
    def standardizes(self) -> bool:
        return self.standardize


@dataclass(frozen=True)
class ArrayDataset(Dataset, of=ArrayShape):
    """Arrays (N, ...) float32 or float64, as they are or standardised.

    ValueError for what no dataset may be (see Dataset), and if a number is not finite.
    """

    noun: ClassVar[str] = "array"
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.float64)
    augment: ClassVar[str] = "none"

    mean: Tensor | None = None  # (...) of the train split, in its precision; None: arrays stay as they are
    std: Tensor | None = None  # (...) likewise

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.shape)

    def check(self, samples: Tensor) -> None:
        if not (finite := samples.flatten(1).isfinite().all(1)).all():
            raise ValueError(f"expected finite numbers, got another in array {(~finite).nonzero()[0].item()}")

    def under(self, settings: DatasetSettings) -> "ArrayDataset":
        if settings.augmentation != "none":
            raise ValueError(f"dataset.augment changes images: expected none for arrays, got {settings.augmentation}")
        return self.standardized() if settings.standardizes else self

    def inputs(
        self,
        samples: Tensor,
        generator: torch.Generator | None = None,
        rows: slice = slice(None),
        of: int | None = None,
    ) -> Tensor:
        """The arrays (B, ...), standardised if the dataset has a mean and std; nothing is random in them."""
        return samples if self.mean is None else (samples - self.mean) / self.std

    def standardized(self) -> "ArrayDataset":
        """The same dataset whose `inputs` subtract the mean and divide by the std of the train split.

        For each of the numbers of an array, std with 1/N; ValueError if one is constant.
        """
        own = self.train.samples
        train = own.double()
        std, mean = torch.std_mean(train, 0, correction=0)
        if constant := (train == train[0]).all(0).flatten().nonzero().flatten().tolist():
            raise ValueError(f"cannot standardize: expected numbers that vary, number {constant[0]} is constant")
        return dataclasses.replace(self, mean=mean.to(own), std=std.to(own))


@dataclass(frozen=True)
class IndexDataset(Dataset, of=IndexShape):
    """Row numbers (N,) int64, which a model reads to look up what it holds of a row, such as a free feature.

    ValueError for what no dataset may be (see Dataset), and if a number is outside 0..count-1.
    """

    noun: ClassVar[str] = "row"
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.int64,)
    augment: ClassVar[str] = "none"

    @property
    def size(self) -> tuple[int, ...]:
        return ()

    def check(self, samples: Tensor) -> None:
        low, high = samples.min().item(), samples.max().item()
        if low < 0 or high >= self.shape.count:
            raise ValueError(f"expected rows 0 to {self.shape.count - 1}, got {low} to {high}")

    def under(self, settings: DatasetSettings) -> "IndexDataset":
        return self

    def inputs(
        self,
        samples: Tensor,
        generator: torch.Generator | None = None,
        rows: slice = slice(None),
        of: int | None = None,
    ) -> Tensor:
        """The row numbers (B,) int64 as they are."""
        return samples
