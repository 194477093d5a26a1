"""sampler=replay: batches of new samples and of a buffer with samples of the phases before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from nclab.data import Dataset
from nclab.training.optim import at_least
from nclab.training.phases import Phase, Portion
from nclab.training.sampler import SAMPLERS, Sampler, SamplerSettings, require_classes


@dataclass
class ReplaySettings(SamplerSettings):
    name: str = "replay"
    size: int | None = None  # samples in the buffer; null: sampler.share of all that were seen
    share: float | None = 0.05  # of the samples of all phases before; 1: all of them; null: sampler.size

    def __post_init__(self) -> None:
        if (self.size is None) == (self.share is None):
            came = "null for both" if self.size is None else f"{self.size} and {self.share:g}"
            raise ValueError(f"sampler=replay needs sampler.size or sampler.share and null for the other, got {came}")
        if self.size is not None:
            at_least("sampler.size", self.size, 0)
        if self.share is not None:
            at_least("sampler.share", self.share, 0, most=1)


@SAMPLERS.add("replay", ReplaySettings)
class Replay(Sampler):
    """Experience replay with a class-balanced buffer (as in Lanzillotta, Meier, Hofmann, arXiv 2512.07400).

    In phase k, counted from 0, a batch of B samples holds B // (k + 1) new ones, the rest of the buffer; without a
    buffer all are new. Every phase has as many steps an epoch as the first, in which this is `shuffled`. Of new samples
    and of the buffer none is drawn twice in an epoch before all were drawn.

    The buffer has a part for every class of every phase before. All parts are as large, `per_class` of the buffer, but
    for classes that have fewer samples: buffer // classes seen where all have enough. What a part holds is drawn once;
    it gives up samples as more classes come, and with a share takes back the same ones.
    """

    def __init__(self, settings: ReplaySettings):
        super().__init__(settings)
        self._orders: list[Tensor] = []  # rows of each class of each phase begun, in random order
        self._past = 0  # how many of these are of earlier phases
        self._begun = 0  # phases
        self._steps = 0  # an epoch

    def check(self, dataset: Dataset) -> None:
        require_classes("replay", dataset)

    def setup(self, dataset: Dataset, phases: list[Phase], batch_size: int) -> None:
        if len(phases) < 2:
            raise ValueError(f"sampler=replay needs two or more phases, got {len(phases)}")
        if batch_size < len(phases):
            raise ValueError(
                f"sampler=replay: batch_size must be at least {len(phases)}, one new sample in a batch of the last "
                f"phase; got {batch_size}"
            )
        self._batch_size = batch_size
        sizes: list[int] = []
        for phase in phases[:-1]:
            counts = Portion(dataset.train, phase.rows).targets.bincount()
            sizes += counts[counts > 0].tolist()
            if self.settings.size != 0 and self.settings.share != 0 and not per_class(sizes, self._room(sizes)):
                raise ValueError(
                    f"sampler=replay: a buffer of {self._room(sizes)} samples has none of each of {len(sizes)} "
                    "classes; enlarge sampler.size or sampler.share, or set it to 0"
                )

    def begin_phase(self, phase: Phase, portion: Portion, generator: Generator) -> None:
        targets = portion.targets.cpu()
        if not self._begun:
            batches, rest = divmod(len(targets), self._batch_size)
            self._steps = batches + (rest > 1)  # a last batch of one is no step
        self._begun += 1
        self._past = len(self._orders)
        for label in targets.unique().tolist():
            own = (targets == label).nonzero().flatten()
            drawn = own[torch.randperm(len(own), generator=generator)]
            self._orders.append(portion.of(drawn.to(portion.split.targets.device)).cpu())

    def memory(self) -> Tensor:
        past = self._orders[: self._past]
        sizes = [len(order) for order in past]
        each = per_class(sizes, self._room(sizes))
        return torch.cat([torch.zeros(0, dtype=torch.int64), *(order[:each] for order in past)])

    def drawn(self, split: Portion) -> int:
        return len(split) if self._begun == 1 else self._steps * self._batch_size

    def order(self, split: Portion, epoch: int, generator: Generator) -> Tensor:
        device, held = split.split.targets.device, self.memory().to(split.split.targets.device)
        if self._begun == 1 or not len(held):
            return split.of(_passes(len(split), self.drawn(split), generator).to(device))
        fresh = self._batch_size // self._begun
        new = _passes(len(split), self._steps * fresh, generator)
        old = _passes(len(held), self._steps * (self._batch_size - fresh), generator)
        parts = [split.of(new.to(device)), held[old.to(device)]]
        return torch.cat([part.view(self._steps, -1) for part in parts], 1).flatten()

    def state_dict(self) -> dict[str, Any]:
        return {"orders": self._orders, "past": self._past, "begun": self._begun, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._orders, self._past = list(state["orders"]), state["past"]
        self._begun, self._steps = state["begun"], state["steps"]

    def _room(self, sizes: Sequence[int]) -> int:
        """How many samples the buffer may hold, `sizes` those of all classes seen."""
        return self.settings.size if self.settings.size is not None else round(self.settings.share * sum(sizes))


def per_class(sizes: Sequence[int], room: int) -> int:
    """The most samples p of every class with sum over classes of min(p, size) <= room; at most the largest size.

    >>> per_class([20, 20, 20], 30), per_class([20, 20, 4], 30), per_class([20, 4], 99)
    (10, 13, 20)
    """
    left, rising = room, sorted(sizes)
    for i, size in enumerate(rising):
        if left < size * (len(rising) - i):  # the classes from here on share what the smaller ones left
            return left // (len(rising) - i)
        left -= size
    return max(sizes, default=0)


def _passes(samples: int, draws: int, generator: Generator) -> Tensor:
    """Indices (draws,) of so many samples: as many random passes over all as it takes, the last one cut off."""
    passes = [torch.randperm(samples, generator=generator) for _ in range(-(-draws // samples))]
    return torch.cat(passes)[:draws]
