"""etf=align: the classifier's rows are turned to the class means while training; nothing is fixed.

Ours, named after the three strategies of Wang, Gao, Xie 2025 (arXiv 2512.07844), whose formulas we could not find.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nclab.etf.nearest_head import alone
from nclab.etf.policy import POLICIES, ETFPolicy, Measures, PolicySettings, Switch
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.valid import OutOfRange, no_choice
from nclab.papers.long_tail.parts.rows import equalised, projected, slerp

STRATEGIES = ("reg", "slerp", "proj")


@dataclass
class AlignSettings(PolicySettings):
    name: str = "align"
    # reg: a penalty in every step | slerp, proj: after some epochs
    strategy: str = "slerp"
    # of slerp: share of the angle between row and class mean, 0 to 1; of reg: weight of the penalty; of proj: 1
    amount: float = 0.3
    every: int = 2  # epochs between two turns of slerp and proj
    equal_norms: bool = False  # true: rows get their mean length too; with slerp and amount 0 the control

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise no_choice("etf.strategy", self.strategy, STRATEGIES)
        most = math.inf if self.strategy == "reg" else 1.0
        if not 0 <= self.amount <= most or math.isinf(self.amount):
            said = f"etf.amount must be at least 0 and {'finite' if self.strategy == 'reg' else 'at most 1'}"
            raise OutOfRange(f"{said}, got {self.amount:g}", "etf.amount")
        if self.every < 1:
            raise OutOfRange(f"etf.every must be at least 1, got {self.every}", "etf.every")
        if self.strategy == "reg" and (self.equal_norms or self.every != 2):
            raise ValueError("etf.equal_norms and etf.every have no effect with etf.strategy=reg; leave them out")
        if self.strategy == "proj" and self.amount != 1:
            raise ValueError(f"etf.strategy=proj projects as a whole: expected etf.amount=1, got {self.amount:g}")

    @property
    def label(self) -> str:
        if self.strategy == "slerp" and self.equal_norms and not self.amount:
            return "equal_norms"
        return f"align_{self.strategy}" + ("_equal_norms" if self.equal_norms else "")

    @property
    def needs_classes(self) -> bool:
        return True


class WithPenalty(torch.autograd.Function):
    """The prediction as it is, with the gradient of a penalty () behind it: the loss that is logged has no penalty, its
    gradient has."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, penalty: Tensor) -> Tensor:
        return prediction.view_as(prediction)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient.new_ones(())


@POLICIES.add("align", AlignSettings)
class Align(ETFPolicy):
    """Class means m_c are those of the classifier's input over the training batches of an epoch, centred at their mean.

    reg: amount times 1/C sum_c (1 - cos(m_c, w_c - w)), w the mean row, with the means of the epoch before, from the
    second epoch on; its gradient goes to the rows. slerp: after every second epoch a row turns by `amount` of its angle
    to m_c, its length stays. proj: rows are projected on the span of the m_c. equal_norms: rows then get their mean
    length. Bias and momentum stay. A class without a sample in an epoch leaves the rows as they are.
    """

    settings: AlignSettings

    def __init__(self, settings: AlignSettings):
        super().__init__(settings)
        self.sums: Tensor | None = None  # of the epoch under way: class sums and counts (C, d + 1), float64
        self.means: Tensor | None = None  # m_c of the epoch before (C, d), float64

    @property
    def may_switch(self) -> bool:
        return False

    def check(self, model: nn.Module) -> None:
        if not model.get_submodule(model.classifier).weight.requires_grad:
            raise ValueError("etf=align turns the rows of a classifier that is learnt; this one is fixed")

    def before_loss(
        self, model: nn.Module, batch: Batch, out: Output, total: Callable[[Tensor], Tensor] = alone
    ) -> Output:
        weight = model.get_submodule(model.classifier).weight
        h = out.features[model.inputs()[model.classifier]].detach().double()
        own = h.new_zeros(len(weight), h.shape[1] + 1)
        own.index_add_(0, batch.targets, torch.cat([h, torch.ones_like(h[:, :1])], 1))
        own = total(own)
        self.sums = own if self.sums is None else self.sums.to(own.device) + own
        if self.settings.strategy != "reg" or self.means is None:
            return out
        share = len(batch.targets) / batch.of  # of several processes each adds its part of the one penalty
        penalty = share * self.settings.amount * misalignment(weight, self.means.to(weight))
        return Output(WithPenalty.apply(out.prediction, penalty), out.features)

    def after_epoch(
        self, model: nn.Module, optimizer: Optimizer, measures: Measures | None, epoch: int
    ) -> list[Switch]:
        sums, self.sums = self.sums, None
        if sums is None or not (sums[:, -1] > 0).all():
            return []
        means = sums[:, :-1] / sums[:, -1:]
        self.means, s = means - means.mean(0), self.settings
        if s.strategy != "reg" and epoch % s.every == 0:
            layer = model.get_submodule(model.classifier)
            rows = layer.weight.detach().double()
            rows = slerp(rows, self.means, s.amount) if s.strategy == "slerp" else projected(rows, self.means)
            with torch.no_grad():
                layer.weight.copy_(equalised(rows) if s.equal_norms else rows)
        return []

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"sums": self.sums, "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.sums, self.means = state["sums"], state["means"]


def misalignment(weight: Tensor, means: Tensor) -> Tensor:
    """1/C sum_c (1 - cos(m_c, w_c - w)) of rows (C, d) and centred class means (C, d), (). 0 where they are aligned."""
    return (1 - nn.functional.cosine_similarity(means, weight - weight.mean(0), dim=1)).mean()
