"""How far a training is, and the state that a checkpoint holds of it: everything that the next batch depends on."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from nclab.etf import ETFPolicy
from nclab.etf.layer import replace
from nclab.etf.state import fixed_layers, load_without_fixed, pack, state_without_fixed, unpack
from nclab.models import Classifier
from nclab.training.ending import STOP_AT_LOSS
from nclab.training.sampler import Sampler


@dataclass
class Part:
    """The epoch under way: what has been trained of it. A run can be saved between any two batches."""

    batches: int = 0
    samples: int = 0  # in these batches
    loss: Tensor | float = 0.0  # sum over these samples
    seconds: float = 0.0  # of the processes before this one
    order: Tensor | None = None  # state of the generator that drew the order of this epoch, before it did
    sampler: dict[str, Any] | None = None  # state of the sampler then

    def count(self, loss: Tensor, samples: int) -> None:
        """Add a batch: its mean loss, () or (S,), and its size."""
        self.loss = self.loss + loss * samples
        self.samples += samples
        self.batches += 1


@dataclass
class BestEpoch:
    """The epoch with the best number so far, `FitSettings.best`, and this number."""

    epoch: int
    value: float


@dataclass
class Progress:
    """How far a run is, and what it remembers besides weights."""

    epoch: int = 0  # epochs trained
    seconds: float = 0.0  # of all the processes that worked on the run
    unsettled: list[str] | None = None  # layers switched after the last epoch
    total_parameters: int = 0  # learnable before any switch
    part: Part | None = None  # of the next epoch; None before the first, when even the start is not measured
    processes: int = 1  # that saved this
    steps: int = 0  # optimizer steps of the epochs trained
    split: int | None = None  # epoch at which a longer run went on from a shorter one
    ended_by: str | None = None  # what ended the training before its last epoch (`nclab.training.ending`), if any did
    best: BestEpoch | None = None  # of those measured; its state is saved beside the last one
    due: bool = False  # the shorter run ended there: the policy has yet to act on that epoch
    step_seconds: list[float] = field(default_factory=list)  # of every epoch: train seconds by steps
    ranks: dict[str, list[float]] = field(default_factory=dict)  # layer -> rank when last measured, lowest fall told of

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "Progress":
        """From what `plain` made, also of a version that noted less."""
        plain = dict(plain)
        if plain.pop("reached", False):  # as a version with one ending noted it
            plain["ended_by"] = STOP_AT_LOSS
        progress = cls(**plain)
        if progress.part is not None:
            progress.part = Part(**progress.part)
        if progress.best is not None:
            progress.best = BestEpoch(**progress.best)
        return progress

    def falls(self, ranks: Mapping[str, float]) -> dict[str, tuple[int, int]]:
        """The layers whose class means span fewer dimensions than when last measured: layer -> (before, now).

        Each rank of a layer is told of once: one that goes to and fro at the cut would say it every epoch."""
        found = {}
        for layer, now in ranks.items():
            before, told = self.ranks.get(layer, (now, math.inf))
            if now < min(before, told):
                found[layer] = (int(before), int(now))
                told = now
            self.ranks[layer] = [now, told]
        return found

    def plain(self) -> dict[str, Any]:
        plain = asdict(self)
        if self.part is not None:
            plain["part"]["loss"] = float(self.part.loss)  # exact: as a float64 it is the same number
        return plain


def state_of(
    model: Classifier,
    policy: ETFPolicy,
    optimizer: Optimizer,
    sampler: Sampler,
    generators: dict[str, Generator],
    progress: Progress,
) -> dict[str, Any]:
    """Plain values and tensors, without copies: weights, fixed layers as recipes, optimizer, policy, sampler, random
    states."""
    return {
        "progress": progress.plain(),
        "fixed": {site: pack(layer) for site, layer in fixed_layers(model).items()},
        "model": state_without_fixed(model),
        "frozen": [name for name, p in model.named_parameters() if not p.requires_grad],
        "policy": policy.state_dict(),
        "optimizer": optimizer.state_dict(),
        "sampler": sampler.state_dict(),
        "generators": {name: g.get_state() for name, g in generators.items()},
        **random_state(),
    }


def restore_model(state: dict[str, Any], model: Classifier) -> None:
    """Bring a freshly built model, before any policy touched it, to the state: fixed layers first, then weights."""
    for site, packed in state["fixed"].items():
        replace(model, site, unpack(model.get_submodule(site), packed))
    load_without_fixed(model, state["model"])
    for name in state.get("frozen", ()):  # absent before a policy could hold a weight that it sets itself
        model.get_parameter(name).requires_grad_(False)


def restore_rest(
    state: dict[str, Any],
    policy: ETFPolicy,
    optimizer: Optimizer,
    sampler: Sampler,
    generators: dict[str, Generator],
) -> Progress:
    """Optimizer, policy, sampler and random states; the optimizer must have been built on the restored model."""
    optimizer.load_state_dict(state["optimizer"])
    policy.load_state_dict(state["policy"])
    sampler.load_state_dict(state.get("sampler", {}))  # absent before there was a choice: shuffled, which has none
    for name, generator in generators.items():
        generator.set_state(state["generators"][name])
    set_random_state(state)
    return Progress.of(state["progress"])


def random_state() -> dict[str, Any]:
    """The states of torch's own generators, those outside of a feed's."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch_rng": torch.get_rng_state(), "cuda_rng": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Take back what `random_state` gave; the GPUs' part only on a machine with as many of them."""
    torch.set_rng_state(state["torch_rng"])
    if state["cuda_rng"] and torch.cuda.device_count() == len(state["cuda_rng"]):
        torch.cuda.set_rng_state_all(state["cuda_rng"])
