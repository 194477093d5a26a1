"""A head that is set anew at every step: the simplex ETF nearest to running class means."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nclab.etf import POLICIES, ETFPolicy, Switch, nearest_etf
from nclab.etf.policy import PolicySettings
from nclab.interfaces.batch import Batch, Output


@dataclass
class RunningHead(PolicySettings):
    name: str = "running_head"
    rate: float = 0.1  # weight of a batch's class means


@POLICIES.add("running_head", RunningHead)
class RunningHeadPolicy(ETFPolicy):
    """The head's weight is the nearest ETF of the running means of its input, before the first step of their start."""

    def setup(self, model: nn.Module, seed: int) -> list[Switch]:
        switches = super().setup(model, seed)
        head = model.get_submodule(model.classifier)
        head.weight.requires_grad_(False)
        self.means = torch.zeros_like(head.weight)  # (C, d)
        return switches

    def after_step(self, model: nn.Module, batch: Batch, out: Output, step: int) -> None:
        features = list(out.features.values())[-1].detach()  # the head's input, (B, d)
        self.means = self.means.to(features.device)  # a checkpoint comes back on the CPU
        for label in batch.targets.unique():
            self.means[label].lerp_(features[batch.targets == label].mean(0), self.settings.rate)
        etf, _ = nearest_etf(self.means.T)
        head = model.get_submodule(model.classifier)
        head.weight.copy_(etf.T)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.means = state["means"]
