"""What datasets of a regression share: targets as they are or standardised, and the control of permuted ones."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nclab.data.arrays import ArraySettings
from nclab.data.checksum import from_wheel
from nclab.data.dataset import Dataset
from nclab.data.split import Split
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Values
from nclab.interfaces.valid import OutOfRange


@dataclass
class RegressionSettings(ArraySettings):
    """The keys of a dataset whose targets are values."""

    standardize_targets: bool = False  # mean 0, variance 1 a target over the train split
    # control: the train targets in a random order, always the same one, so that inputs say nothing about them; their
    # covariance stays
    permute_targets: bool = False


def regression(settings: RegressionSettings, splits: dict[str, tuple[Tensor, Tensor]]) -> Dataset:
    """The dataset of inputs (N, d) and targets (N, n) of every split, train first, as the settings want its targets.

    Raises ValueError for a target that is constant and shall be standardised.
    """
    made = {name: Split(x, y) for name, (x, y) in splits.items()}  # `load_dataset` rounds them, where a run is float32
    train = made["train"]
    if settings.standardize_targets:
        std, mean = torch.std_mean(splits["train"][1].double(), 0, correction=0)
        if constant := (std == 0).nonzero().flatten().tolist():
            raise ValueError(f"cannot standardize: expected targets that vary, target {constant[0]} is constant")
        made = {n: Split(s.samples, (splits[n][1].double() - mean) / std) for n, s in made.items()}
        train = made["train"]
    if settings.permute_targets:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        made["train"] = replace(train, targets=train.targets[order])
    return Dataset(made, Values(train.targets.shape[1]), ArrayShape(*train.samples.shape[1:]))


def wheel_tables(files: dict[str, str], **how: int) -> Iterator[Tensor]:
    """Each table (rows, columns) float32 that scikit-learn ships, by its name and md5; `how` goes to numpy.loadtxt.
    Raises as `from_wheel`."""
    for file, md5 in files.items():
        table = io.BytesIO(from_wheel("sklearn", f"datasets/data/{file}", md5))
        yield torch.from_numpy(np.loadtxt(table, np.float32, ndmin=2, **how))


def require_spectrum(spectrum: list[float], samples: int) -> None:
    """Raise OutOfRange unless these are eigenvalues of a covariance of so many samples: finite, above 0, fewer."""
    key = "dataset.spectrum"
    if not spectrum or not all(isinstance(v, int | float) and 0 < v < float("inf") for v in spectrum):
        raise OutOfRange(f"{key} must be one finite number above 0 a target, got {spectrum}", key)
    if len(spectrum) >= samples:
        raise OutOfRange(f"{key} must have fewer numbers than there are samples, {samples}; got {len(spectrum)}", key)


def with_spectrum(values: Tensor, spectrum: list[float], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(mean (n,), matrix (n, n)) of the affine change of targets y -> (y - mean) matrix after which the covariance of
    `values` (M, n), divided by M, has exactly these eigenvalues, with eigenvectors at random. float64.

    Raises ValueError where the values do not vary along n directions.
    """
    y = values.double()
    mean = y.mean(0)
    lengths, axes = torch.linalg.eigh((y - mean).T @ (y - mean) / len(y))
    if not lengths[0] > len(lengths) * torch.finfo(torch.float64).eps * lengths[-1]:
        raise ValueError(f"expected targets that vary along {len(lengths)} directions, got fewer")
    turn = torch.linalg.qr(torch.randn(len(lengths), len(lengths), dtype=torch.float64, generator=generator)).Q
    return mean, axes / lengths.sqrt() * torch.tensor(spectrum, dtype=torch.float64).sqrt() @ turn
