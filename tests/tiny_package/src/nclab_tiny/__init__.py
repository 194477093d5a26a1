"""What nclab imports by the entry point: each definition registers itself. There is no YAML file of any of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nclab.data import DATASETS, ImageSettings
from nclab.etf.policies.last_k import LastK, LastKSettings
from nclab.etf.policy import POLICIES
from nclab.models import MODELS
from nclab.models.mlp import MLPSettings
from nclab.training.objective import LOSSES, CrossEntropy, LossSettings


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
