"""In which order an epoch passes over the samples, under the names of conf/sampler/.

A builder registered in `SAMPLERS` is called as build(settings) and gives a `Sampler`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from nclab.data import Dataset
from nclab.interfaces.registry import Registry
from nclab.training.optim import at_least
from nclab.training.phases import Phase, Portion

SAMPLERS = Registry("sampler", "nclab.training.samplers")
MOST_REPEATS = 10**6  # the order of an epoch is held in memory


@dataclass
class SamplerSettings:
    name: str = "shuffled"


class Sampler:
    """Base of all samplers. What a sampler remembers between epochs is in `state_dict` (plain values and tensors), so
    that a resumed run draws what it would have drawn.

    full_batch: whether its orders mean something only where every step takes the whole train split."""

    full_batch: bool = False

    def __init__(self, settings: SamplerSettings):
        self.settings = settings

    def check(self, dataset: Dataset) -> None:
        """Raise ValueError for a dataset that this sampler cannot order; changes nothing."""

    def setup(self, dataset: Dataset, phases: list[Phase], batch_size: int) -> None:
        """Called once before training. Raise ValueError for phases or a size of batches that do not fit."""

    def begin_phase(self, phase: Phase, portion: Portion, generator: Generator) -> None:
        """Called once a phase, before its first epoch; what it changes must be in `state_dict`. Random numbers come
        from `generator` alone."""

    def order(self, split: Portion, epoch: int, generator: Generator) -> Tensor:
        """Rows (n,) of the train split in the order of this epoch (counted from 0), drawn from `generator` alone."""
        raise NotImplementedError(f"{type(self).__name__} must define order(split, epoch, generator)")

    def drawn(self, split: Portion) -> int:
        """How many rows `order` gives: only epochs of as many are trained as one model of several seeds."""
        return len(split)

    def memory(self) -> Tensor:
        """Rows (n,) of the train split that it holds of earlier phases, beside those of the phase under way."""
        return torch.zeros(0, dtype=torch.int64)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


def require_classes(sampler: str, dataset: Dataset) -> None:
    """Raise ValueError, for a sampler of this name, where the targets are values."""
    if dataset.targets.groups(dataset.train.targets) is None:
        raise ValueError(f"sampler={sampler} needs classes, and this dataset's targets are values")


@SAMPLERS.add("shuffled", SamplerSettings)
class Shuffled(Sampler):
    """Every sample once an epoch, in a new random order."""

    def order(self, split: Portion, epoch: int, generator: Generator) -> Tensor:
        targets = split.split.targets
        return split.of(torch.randperm(len(split), generator=generator).to(targets.device))


@dataclass
class ClassBalancedSettings(SamplerSettings):
    name: str = "class_balanced"


@SAMPLERS.add("class_balanced", ClassBalancedSettings)
class ClassBalanced(Sampler):
    """As many draws an epoch as there are samples: a class uniformly, then one of its samples, with replacement
    (class-balanced sampling of long-tailed recognition). Classes without a sample in the portion are never drawn."""

    def check(self, dataset: Dataset) -> None:
        require_classes("class_balanced", dataset)

    def order(self, split: Portion, epoch: int, generator: Generator) -> Tensor:
        targets = split.targets.cpu()
        weights = 1 / targets.bincount().clamp(min=1)[targets].double()
        drawn = torch.multinomial(weights, len(split), replacement=True, generator=generator)
        return split.of(drawn.to(split.split.targets.device))


@dataclass
class RepeatedSettings(SamplerSettings):
    name: str = "repeated"
    repeats: int = 100  # passes over the train split an epoch, each of them one full-batch step

    def __post_init__(self) -> None:
        at_least("sampler.repeats", self.repeats, 1, most=MOST_REPEATS)


@SAMPLERS.add("repeated", RepeatedSettings)
class Repeated(Sampler):
    """The whole train split in its stored order, `repeats` times an epoch: full-batch gradient descent.

    An epoch then has `repeats` steps, and what surrounds an epoch (checkpoint, log, schedule, policy) is paid once for
    all of them. Nothing is random."""

    full_batch = True

    def order(self, split: Portion, epoch: int, generator: Generator) -> Tensor:
        rows = torch.arange(len(split), device=split.split.targets.device)
        return split.of(rows).repeat(self.settings.repeats)

    def drawn(self, split: Portion) -> int:
        return len(split) * self.settings.repeats
