"""Free features with cross-entropy: the features are parameters, one row a sample, below a linear head."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from nclab.data import DATASETS, Dataset, DatasetSettings, Split
from nclab.interfaces.batch import Output
from nclab.interfaces.shapes import IndexShape
from nclab.interfaces.targets import Classes
from nclab.models import MODELS, Classifier, Probe
from nclab.models.base import ModelSettings


@dataclass
class FreeSamples(DatasetSettings):
    name: str = "free_samples"
    classes: int = 4
    per_class: int = 5


@DATASETS.add("free_samples", FreeSamples)
def free_samples(settings: FreeSamples, root: Path) -> Dataset:
    count = settings.classes * settings.per_class
    rows = Split(torch.arange(count), torch.arange(count) % settings.classes)
    return Dataset({"train": rows}, Classes(settings.classes), IndexShape(count))


@dataclass
class FreeFeatures(ModelSettings):
    name: str = "free_features"
    dim: int = 6


@MODELS.add("free_features", FreeFeatures)
class FreeFeatureModel(Classifier):
    """Row numbers x (B,) -> features H[x] (B, d) -> head (B, C)."""

    def __init__(self, settings: FreeFeatures, shape: IndexShape, num_classes: int):
        super().__init__()
        self.num_classes = num_classes
        self.free = nn.Parameter(torch.randn(shape.count, settings.dim))
        self.head = nn.Linear(settings.dim, num_classes)

    def forward(self, x: Tensor) -> Output:
        features = {"free": self.free[x]}  # (B, d)
        return Output(self.head(features["free"]), features)

    def etf_roles(self) -> dict[str, str]:
        return {"head": "classifier"}

    def probes(self, kind: str) -> list[Probe]:
        return [Probe("free", "free", "classifier_input"), Probe("head", "logits", "classifier", "head", ("head",))]

    def inputs(self) -> dict[str, str]:
        return {"head": "free"}
