"""What training steps need, made by hand: a learner and a feed without a run around them."""

import torch

from nclab.etf import ETFPolicy
from nclab.etf.policy import PolicySettings
from nclab.parallel.group import SINGLE
from nclab.training.feed import Feed
from nclab.training.objective import CROSS_ENTROPY
from nclab.training.sampler import SamplerSettings, Shuffled
from nclab.training.step import Learner


def learner(model, optimizer, objective=CROSS_ENTROPY, run=None, lr=0.05):
    """No policy, a constant rate; `run` (None: the model) is how a step runs the model."""
    return Learner(model, objective, ETFPolicy(PolicySettings()), optimizer, lambda epoch: lr, run or model)


def feed(dataset, batch_size, seeds=(0, 0), world=SINGLE):
    """Shuffled batches; seeds of the order and of the augmentation."""
    generators = {name: torch.Generator().manual_seed(s) for name, s in zip(("order", "augment"), seeds, strict=True)}
    return Feed(dataset, Shuffled(SamplerSettings()), batch_size, generators, world=world)
