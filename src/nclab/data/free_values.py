"""Row numbers with values as targets, whose covariance has exactly a stated spectrum: for unconstrained features.

The model holds one free feature a row (model=unconstrained). There is no test split: a new row would have no feature.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from nclab.data.dataset import DATASETS, Dataset, DatasetSettings
from nclab.data.regression import require_spectrum, with_spectrum
from nclab.data.split import Split
from nclab.interfaces.shapes import IndexShape
from nclab.interfaces.targets import Values

DRAW = 2024  # seeds targets and eigenvectors: the same for every seed of a run


@dataclass
class FreeValuesSettings(DatasetSettings):
    name: str = "free_values"
    samples: int = 100  # rows, each with a feature of its own
    # eigenvalues of the covariance of the targets, divided by the number of rows; as many targets
    spectrum: list[float] = field(default_factory=lambda: [1.0, 0.25])

    def __post_init__(self) -> None:
        super().__post_init__()
        require_spectrum(self.spectrum, self.samples)


@DATASETS.add("free_values", FreeValuesSettings)
def build(settings: FreeValuesSettings, root: Path) -> Dataset:
    """Row numbers with random values whose covariance has exactly a stated spectrum, for unconstrained features."""
    generator = torch.Generator().manual_seed(DRAW)
    drawn = torch.randn(settings.samples, len(settings.spectrum), dtype=torch.float64, generator=generator)
    mean, matrix = with_spectrum(drawn, settings.spectrum, generator)
    y = (drawn - mean) @ matrix
    rows = Split(torch.arange(settings.samples), y)
    return Dataset({"train": rows}, Values(y.shape[1]), IndexShape(settings.samples))
