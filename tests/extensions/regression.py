"""A regression with R^2: arrays whose targets are values, and a suite that measures how much of them is explained."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nclab.data import DATASETS, Dataset, DatasetSettings, Split
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Values
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings


@dataclass
class Waves(DatasetSettings):
    name: str = "waves"
    samples: int = 300


@DATASETS.add("waves", Waves)
def waves(settings: Waves, root: Path) -> Dataset:
    """Points x in [-1, 1]^3, targets (sin(3 x_0) + x_1, x_1 x_2)."""
    x = torch.rand(settings.samples, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = torch.stack([torch.sin(3 * x[:, 0]) + x[:, 1], x[:, 1] * x[:, 2]], 1)
    whole, cut = Split(x, y), settings.samples * 2 // 3
    splits = {"train": slice(None, cut), "test": slice(cut, None)}
    return Dataset({n: Split(whole.samples[s], whole.targets[s]) for n, s in splits.items()}, Values(2), ArrayShape(3))


@METRICS.add("r2", SuiteSettings)
class R2(Metric):
    """1 - sum |y - prediction|^2 / sum |y - mean y|^2 over samples and values; 1 where the model explains all."""

    def __init__(self, settings: SuiteSettings | None = None):
        self.total = torch.zeros(0)

    def start(self, context: Context) -> None:
        if not isinstance(context.targets, Values):
            raise ValueError("metrics.suite: r2 needs targets that are values, got classes")
        self.total = torch.zeros(3 + context.targets.dim, dtype=torch.float64)

    def names(self, split: str) -> set[str]:
        return {"r2"}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        y, own = batch.targets.double(), self.total.to(batch.targets.device)
        error = (out.prediction.double() - y).square().sum()
        self.total = own + torch.cat([torch.stack([error, y.square().sum(), error.new_tensor(len(y))]), y.sum(0)])

    def sums(self) -> Tensor:
        return self.total

    def compute(self, reduced: Tensor) -> dict[str, float]:
        error, squares, count = reduced[:3]
        return {"r2": float(1 - error / (squares - reduced[3:].square().sum() / count))}
