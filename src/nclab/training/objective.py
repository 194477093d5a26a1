"""What training minimises: a loss of the logits and an explicit L2 penalty, under the names of conf/loss/.

The objective is mean loss + (lambda / 2) ||theta||^2, theta all learnable parameters but those that `l2_skip` leaves
out. Unlike AdamW's decoupled `optimizer.weight_decay` the penalty goes through the optimizer as every other gradient
does, SGD's own weight decay included: with SGD the two are the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nclab.interfaces.registry import Registry
from nclab.models import Classifier
from nclab.training.optim import at_least

LOSSES = Registry("loss", "nclab.training.objective")
SKIPS = ("none", "head_bias", "biases")


@dataclass
class LossSettings:
    """l2: lambda. l2_skip: what the penalty leaves alone; `head_bias` is MSE's unregularised bias, under which the
    optimum of arXiv 2505.15239 is a simplex ETF."""

    name: str = "cross_entropy"
    l2: float = 0.0
    l2_skip: str = "none"  # none | head_bias | biases (all of them)

    def __post_init__(self) -> None:
        at_least("loss.l2", self.l2, 0)
        if self.l2_skip not in SKIPS:
            raise ValueError(f"unknown loss.l2_skip '{self.l2_skip}'; valid: {', '.join(SKIPS)}")
        if self.l2_skip != "none" and not self.l2:
            raise ValueError(f"loss.l2_skip={self.l2_skip} needs loss.l2 above 0: without it nothing is penalised")


class Loss(ABC):
    """A loss of logits (B, C) in float32 and labels (B,)."""

    def __init__(self, settings: LossSettings):
        self.l2, self.l2_skip = settings.l2, settings.l2_skip

    @abstractmethod
    def each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of every sample, (B,)."""

    def mean(self, logits: Tensor, labels: Tensor, of: int | None = None) -> Tensor:
        """What these samples add to the mean over a batch of `of` (None: these alone), ()."""
        return self.each(logits, labels).sum() / (len(labels) if of is None else of)

    def check(self, model: Classifier) -> None:
        """Raise ValueError for settings that mean nothing in this network, untrained and without fixed maps."""
        if self.l2_skip == "head_bias" and f"{model.classifier}.bias" not in dict(model.named_parameters()):
            raise ValueError("loss.l2_skip=head_bias needs a head with a bias; got model.head_bias=false")

    def penalised(self, model: Classifier) -> list[str]:
        """Names of the parameters in the penalty: the learnable ones, without what `l2_skip` says; none where lambda is
        0, so that nothing is gathered for it."""
        if not self.l2:
            return []
        skipped = {"none": (), "head_bias": (f"{model.classifier}.bias",), "biases": _biases(model)}[self.l2_skip]
        return [name for name, p in model.named_parameters() if p.requires_grad and name not in skipped]

    def penalty(self, model: Classifier) -> float:
        """(lambda / 2) ||theta||^2, summed in float64."""
        chosen = set(self.penalised(model))
        squares = [p.detach().double().square().sum() for name, p in model.named_parameters() if name in chosen]
        return self.l2 / 2 * float(torch.stack(squares).sum()) if squares else 0.0

    def add_gradient(self, parameters: Iterable[nn.Parameter | Tensor]) -> None:
        """Add that of the penalty, lambda theta, to the gradients of the parameters that are in it: one call for all,
        where the penalty in autograd's graph would cost three operations a parameter."""
        with_grad = [p for p in parameters if p.grad is not None]
        if with_grad:
            torch._foreach_add_([p.grad for p in with_grad], [p.detach() for p in with_grad], alpha=self.l2)


def _biases(model: nn.Module) -> set[str]:
    """Names of the biases of linear maps and the shifts of norms."""
    return {name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias"}


@LOSSES.add("cross_entropy", LossSettings)
class CrossEntropy(Loss):
    """-log softmax(logits)_y."""

    def each(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, reduction="none")

    def mean(self, logits: Tensor, labels: Tensor, of: int | None = None) -> Tensor:
        if of is None or of == len(labels):
            return functional.cross_entropy(logits, labels)  # the same bits, with fewer operations
        return functional.cross_entropy(logits, labels, reduction="sum") / of


@dataclass
class MSESettings(LossSettings):
    name: str = "mse"


@LOSSES.add("mse", MSESettings)
class MeanSquaredError(Loss):
    """1/2 ||logits - e_y||^2, e_y one-hot: summed over classes, as theory has it, not averaged over them."""

    def each(self, logits: Tensor, labels: Tensor) -> Tensor:
        # ||z - e_y||^2 = ||z||^2 - 2 z_y + 1 would cancel near the optimum.
        return (logits - functional.one_hot(labels, logits.shape[1])).square().sum(1) / 2


CROSS_ENTROPY = CrossEntropy(LossSettings())
