"""What training steps need, made by hand: a learner and a feed without a run around them, for benchmarks and tests."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

from nclab.data import Dataset
from nclab.etf import ETFPolicy
from nclab.etf.policy import PolicySettings
from nclab.models import Classifier
from nclab.parallel.group import SINGLE, ProcessGroup
from nclab.training.feed import Feed
from nclab.training.objective import CROSS_ENTROPY, Objective
from nclab.training.sampler import SamplerSettings, Shuffled
from nclab.training.step import Learner, Run


def learner(
    model: Classifier,
    optimizer: Optimizer,
    objective: Objective = CROSS_ENTROPY,
    run: Run | None = None,
    policy: ETFPolicy | None = None,
) -> Learner:
    """A constant rate; `run` (None: the model) is how a step runs the model. policy: None fixes nothing."""
    rate = optimizer.param_groups[0]["lr"]
    policy = policy or ETFPolicy(PolicySettings())
    return Learner(model, objective, policy, optimizer, lambda epoch: rate, run or model)


def feed(dataset: Dataset, batch_size: int, seeds: tuple[int, int] = (0, 0), world: ProcessGroup = SINGLE) -> Feed:
    """Shuffled batches; seeds of the order and of the augmentation."""
    generators = {name: torch.Generator().manual_seed(s) for name, s in zip(("order", "augment"), seeds, strict=True)}
    return Feed(dataset, Shuffled(SamplerSettings()), batch_size, generators, world=world)


def plain_epoch(logits: Callable[[Tensor], Tensor], dataset: Dataset, optimizer: Optimizer, batch_size: int) -> None:
    """A training epoch by a short loop over images in memory, of a network that is in training mode already."""
    samples, targets = dataset.train.samples, dataset.train.targets
    for rows in torch.randperm(len(targets)).to(targets.device).split(batch_size):
        made = logits(dataset.inputs(samples.index_select(0, rows)))
        optimizer.zero_grad()
        functional.cross_entropy(made, targets.index_select(0, rows)).backward()
        optimizer.step()
