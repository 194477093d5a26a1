"""dataset=etf_features: last-layer features that have collapsed to a simplex ETF, exactly or up to noise."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nclab.data.arrays import ArraySettings
from nclab.data.dataset import DATASETS, Dataset
from nclab.data.split import Split
from nclab.etf import simplex_etf
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Classes
from nclab.training.optim import at_least

DRAW = 2020  # seeds frame and noise: the data are the same for every seed of a training


@dataclass
class ETFFeaturesSettings(ArraySettings):
    """A feature is the unit vertex of its class plus noise * N(0, I / dim)."""

    name: str = "etf_features"
    classes: int = 10  # C
    dim: int = 64  # d of a feature, at least C - 1
    per_class: int = 20  # samples a class in each split
    noise: float = 0.0  # expected length of the noise; 0: exact collapse

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("dataset.classes", self.classes, 2)
        at_least("dataset.per_class", self.per_class, 1)
        at_least("dataset.noise", self.noise, 0)
        if self.dim < self.classes - 1:
            raise ValueError(f"dataset.dim must be at least {self.classes - 1}, classes - 1; got {self.dim}")


@DATASETS.add("etf_features", ETFFeaturesSettings)
def build(settings: ETFFeaturesSettings, root: Path) -> Dataset:
    """Features of the last layer that have collapsed to a simplex ETF, exactly or up to noise."""
    generator = torch.Generator().manual_seed(DRAW)
    vertices = simplex_etf(settings.classes, settings.dim, generator=generator).T  # (C, d)
    splits = {name: _split(settings, vertices, generator) for name in ("train", "test")}
    return Dataset(splits, Classes(settings.classes), shape=ArrayShape(settings.dim))


def _split(s: ETFFeaturesSettings, vertices: Tensor, generator: torch.Generator) -> Split:
    labels = torch.arange(s.classes).repeat_interleave(s.per_class)
    noise = torch.randn(len(labels), s.dim, dtype=torch.float64, generator=generator) / s.dim**0.5
    return Split(vertices[labels] + s.noise * noise, labels)  # `load_dataset` rounds them, where a run is float32
