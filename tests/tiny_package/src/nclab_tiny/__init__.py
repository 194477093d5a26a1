"""What nclab imports by the entry point: each definition registers itself. There is no YAML file of any of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from nclab.data import DATASETS, ImageSettings
from nclab.etf.policies.last_k import LastK, LastKSettings
from nclab.etf.policy import POLICIES
from nclab.interfaces.batch import Batch, Output
from nclab.metrics.suite import METRICS, Metric, SuiteSettings
from nclab.models import MODELS
from nclab.models.mlp import MLPSettings
from nclab.training.objective import LOSSES, CrossEntropy, LossSettings
from nclab.training.phases import Portion
from nclab.training.sampler import SAMPLERS, SamplerSettings, Shuffled


@dataclass
class TinyDataset(ImageSettings):
    train_size: int | None = 200  # samples kept of the train split
    test_size: int | None = 100  # samples kept of the test split


@DATASETS.add("tiny_digits", TinyDataset)
def tiny_digits(settings: TinyDataset, root: Path) -> Any:
    """A few digits."""
    return DATASETS["digits"].build(settings, root)


@dataclass
class TinyModel(MLPSettings):
    name: str = "tiny_mlp"
    depth: int = 3  # linear layers
    width: int = 24
    slope: float = 0.1  # of the activation left of 0


@MODELS.add("tiny_mlp", TinyModel)
def tiny_mlp(settings: TinyModel, *given: Any) -> nn.Module:
    """An MLP whose activation has a slope that can be chosen."""
    model = MODELS["mlp"].build(settings, *given)
    model.activation = nn.LeakyReLU(settings.slope)
    return model


@dataclass
class TinyPolicy(LastKSettings):
    name: str = "tiny_last"


@POLICIES.add("tiny_last", TinyPolicy)
class TinyLast(LastK):
    """The last k layers, under another name."""


@dataclass
class TinyLoss(LossSettings):
    name: str = "tiny_loss"
    factor: float = 2.0  # on the cross-entropy


@LOSSES.add("tiny_loss", TinyLoss)
class Scaled(CrossEntropy):
    """Cross-entropy times a factor."""

    def __init__(self, settings: TinyLoss):
        super().__init__(settings)
        self.factor = settings.factor

    def each(self, *given: Any) -> Any:
        return self.factor * super().each(*given)

    def mean(self, *given: Any) -> Any:
        return self.factor * super().mean(*given)


@METRICS.add("tiny_metric", SuiteSettings)
class MeanLogit(Metric):
    """The mean of all logits, in the layer `network`."""

    def __init__(self, settings: SuiteSettings | None = None):
        self.total = torch.zeros(2, dtype=torch.float64)

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        logits = out.prediction.double()
        self.total = self.total + torch.stack([logits.sum(), logits.new_tensor(logits.numel())])

    def sums(self) -> Tensor:
        return self.total

    def compute(self, reduced: Tensor) -> dict[str, float]:
        return {"mean_logit": float(reduced[0] / reduced[1])}


@dataclass
class TinySampler(SamplerSettings):
    name: str = "tiny_sampler"


@SAMPLERS.add("tiny_sampler", TinySampler)
class Backwards(Shuffled):
    """A random order, read backwards."""

    def order(self, split: Portion, epoch: int, generator: Generator) -> Tensor:
        return super().order(split, epoch, generator).flip(0)
