"""What training minimises: a loss of the model's output and explicit L2 penalties, under the names of conf/loss/.

The objective is mean loss + sum over parameters of (lambda / 2) ||theta||^2, lambda by parameter (`penalties`):
weights, free features and biases may have one each. Unlike AdamW's decoupled `optimizer.weight_decay` a penalty goes
through the optimizer as every other gradient does, SGD's own weight decay included: with SGD the two are the same. A
third term is that of `loss.complexity` (`nclab.training.complexity_term`).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nclab.data import Dataset
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.registry import Registry
from nclab.interfaces.targets import Classes, within_heads
from nclab.interfaces.valid import OutOfRange, no_choice
from nclab.models import Classifier
from nclab.training.optim import at_least

LOSSES = Registry("loss", "nclab.training.losses")
SKIPS = ("none", "head_bias", "biases")


@dataclass
class LossSettings:
    """l2: lambda of every parameter without one of its own. With l2_features and l2_biases the penalty is that of the
    unconstrained features model, lambda_W of weights, lambda_H of features, lambda_b of biases (arXiv 2105.02375).
    l2_skip: what the penalty leaves alone; `head_bias` is MSE's unregularised bias, under which the optimum of arXiv
    2505.15239 is a simplex ETF."""

    name: str = "cross_entropy"
    l2: float = 0.0  # lambda of the penalty (l2 / 2) ||theta||^2; falling with depth: ${over:0.005,${model.blocks}}
    l2_features: float | None = None  # lambda of a model's free features; null: l2
    l2_biases: float | None = None  # lambda of biases and of shifts of norms; null: l2
    l2_skip: str = "none"  # what the penalty leaves alone: none | head_bias | biases
    # factor of the geometric complexity of the classifier's input (suite complexity), by one random direction a sample
    # and step; a step takes two to five times as long
    complexity: float = 0.0

    def __post_init__(self) -> None:
        at_least("loss.l2", self.l2, 0)
        at_least("loss.complexity", self.complexity, 0)
        if self.l2_features is not None:
            at_least("loss.l2_features", self.l2_features, 0)
        if self.l2_skip not in SKIPS:
            raise no_choice("loss.l2_skip", self.l2_skip, SKIPS)
        if self.l2_biases is not None:
            if not 0 < self.l2_biases < math.inf:
                said = f"loss.l2_biases must be above 0 and finite, got {self.l2_biases}"
                raise OutOfRange(f"{said}; loss.l2_skip=biases leaves them alone", "loss.l2_biases")
            if self.l2_skip == "biases":
                raise ValueError(
                    f"loss.l2_skip=biases leaves all biases alone; leave out loss.l2_biases, got {self.l2_biases:g}"
                )
        of_biases = self.l2 if self.l2_biases is None else self.l2_biases
        if self.l2_skip != "none" and not of_biases:
            needed = "loss.l2 or loss.l2_biases" if self.l2_skip == "head_bias" else "loss.l2"
            raise ValueError(f"loss.l2_skip={self.l2_skip} needs {needed} above 0: without it no bias is penalised")


class Objective:
    """Base of all objectives. A subclass defines `each`, and what else differs.

    stackable: whether many seeds may be trained as one batched model (`torch.func.vmap` runs `mean` for all of them);
    false for an objective with numbers of its own that differ between seeds. several_heads: whether it can tell a
    sample apart from the classes of its head alone (`Classes.heads`). rows: kinds of the classifier's rows that `each`
    takes for granted, `etf` or `orthogonal`: fixed before training, of length 1, without bias; empty: any classifier
    will do. headline: the score, or the metric of the layer `network`, by which runs are compared.
    """

    stackable: bool = True
    several_heads: bool = False
    rows: tuple[str, ...] = ()
    headline: str = "accuracy"

    def __init_subclass__(cls, **named: Any) -> None:
        """A subclass that defines `each` alone is trained by it, also below a loss with a faster `mean` of its own."""
        super().__init_subclass__(**named)
        if "each" in vars(cls) and "mean" not in vars(cls):
            cls.mean = Objective.mean

    def __init__(self, settings: LossSettings):
        self.settings = settings
        self.l2, self.l2_skip = settings.l2, settings.l2_skip
        self.l2_features = self.l2 if settings.l2_features is None else settings.l2_features
        self.l2_biases = self.l2 if settings.l2_biases is None else settings.l2_biases
        self.complexity = settings.complexity
        if self.complexity:
            self.stackable = False  # vmap has no second derivative of every layer

    def check(self, model: Classifier, dataset: Dataset) -> None:
        """Raise ValueError for settings that mean nothing with this network, untrained and without fixed layers, or
        this dataset; changes nothing."""
        if self.l2_skip == "head_bias" and f"{model.classifier}.bias" not in dict(model.named_parameters()):
            raise ValueError("loss.l2_skip=head_bias needs a head with a bias; got model.head_bias=false")
        if self.settings.l2_features is not None and not model.free_features():
            raise ValueError("loss.l2_features needs a model with free features, such as unconstrained; this has none")
        if self.settings.l2_biases is not None and not _biases(model):
            raise ValueError("loss.l2_biases needs a model with biases; this has none")
        if getattr(dataset.targets, "heads", None) is not None and not self.several_heads:
            able = ", ".join(name for name in LOSSES.names() if getattr(LOSSES[name].build, "several_heads", False))
            raise ValueError(
                f"loss={self.settings.name} takes all classes in one head: expected phases of one head, or a loss of "
                f"{able}"
            )
        if self.complexity and dataset.train.samples.dtype in (torch.int32, torch.int64):
            raise ValueError(
                "loss.complexity needs inputs with a derivative, images or arrays; this dataset holds numbers of "
                "tokens or rows"
            )

    def setup(self, model: Classifier, dataset: Dataset) -> None:
        """Called once before training, when model and dataset are on their device and no layer is fixed: class
        counts."""

    def follow(self, model: Classifier) -> None:
        """Called once behind `setup`, when the layers that are fixed before training are: centres about the rows of a
        fixed classifier. Read fixed layers alone: in a run that goes on all others are trained by then."""

    def each(self, out: Output, batch: Batch) -> Tensor:
        """The loss of every sample, (B,)."""
        raise NotImplementedError(f"{type(self).__name__} must define each(out, batch)")

    def mean(self, out: Output, batch: Batch) -> Tensor:
        """What these samples add to the mean over the whole batch of `batch.of`, ()."""
        return self.each(out, batch).sum() / batch.of

    def scores(self, out: Output, batch: Batch) -> dict[str, Tensor]:
        """Numbers of every sample (B,) whose mean over a split is logged: the loss without its penalty and, where
        targets are classes, whether the largest logit is the right one."""
        scores = {"loss": self.each(out, batch)}
        if batch.targets.ndim == 1:
            scores["accuracy"] = self.logits(out, batch).argmax(1) == batch.targets
        return scores

    def logits(self, out: Output, batch: Batch) -> Tensor:
        """The logits (B, C) that are compared; -inf where a class is of another head than the sample's own."""
        return out.prediction

    def score_names(self, targets: Tensor) -> set[str] | None:
        """Names of `scores`, by the targets of a split. None where a subclass with scores of its own does not say: a
        wrong `metrics.headline` is then found when the untrained network is measured."""
        if type(self).scores is not Objective.scores:
            return None
        return {"loss", "accuracy"} if targets.ndim == 1 else {"loss"}

    @property
    def penalises(self) -> bool:
        """Whether there is a penalty to log, be it 0 where all is fixed."""
        own = self.l2 or self.l2_features or self.l2_biases
        return bool(own) or type(self).penalties is not Objective.penalties

    def penalties(self, model: nn.Module) -> dict[str, float]:
        """Name of each penalised parameter -> its lambda: the learnable ones, without what `l2_skip` says and what has
        lambda 0, so that nothing is gathered for it."""
        if not (self.l2 or self.l2_features or self.l2_biases):
            return {}
        biases = _biases(model)
        skipped = {"none": (), "head_bias": (f"{model.classifier}.bias",), "biases": biases}[self.l2_skip]
        own = dict.fromkeys(biases, self.l2_biases) | dict.fromkeys(model.free_features(), self.l2_features)
        learnt = (name for name, p in model.named_parameters() if p.requires_grad and name not in skipped)
        return {name: strength for name in learnt if (strength := own.get(name, self.l2))}


def penalty(objective: Objective, model: nn.Module) -> float:
    """sum over parameters of (lambda / 2) ||theta||^2, summed in float64."""
    return penalty_of(penalised(objective, model))


Penalised = list[tuple[float, list[Tensor]]]  # lambda, and the parameters that it holds for


def penalised(objective: Objective, model: nn.Module, parameters: dict[str, Tensor] | None = None) -> Penalised:
    """The parameters in the penalty by their lambda; `parameters` (None: the model's own) may be stacks of several
    models' under the same names."""
    held = dict(model.named_parameters()) if parameters is None else parameters
    by_strength = _by_strength(objective.penalties(model))
    return [(strength, [held[name] for name in names]) for strength, names in by_strength.items()]


def penalty_of(groups: Penalised) -> float:
    """`penalty` of the parameters in groups."""
    total = 0.0
    for strength, parameters in groups:
        squares = [parameter.detach().double().square().sum() for parameter in parameters]
        total += strength / 2 * float(torch.stack(squares).sum())
    return total


def add_penalty_gradient(groups: Penalised) -> None:
    """Add lambda theta to the gradient of every penalised parameter that has one: one call a lambda, where the penalty
    in autograd's graph would cost three operations a parameter."""
    for strength, parameters in groups:
        with_grad = [p for p in parameters if p.grad is not None]
        if with_grad:
            torch._foreach_add_([p.grad for p in with_grad], [p.detach() for p in with_grad], alpha=strength)


def _by_strength(penalties: dict[str, float]) -> dict[float, list[str]]:
    groups: dict[float, list[str]] = {}
    for name, strength in penalties.items():
        groups.setdefault(strength, []).append(name)
    return groups


def _biases(model: nn.Module) -> set[str]:
    """Names of the biases of linear layers and the shifts of norms."""
    return {name for name, _ in model.named_parameters() if name.rpartition(".")[2] == "bias"}


@LOSSES.add("cross_entropy", LossSettings)
class CrossEntropy(Objective):
    """-log softmax(logits)_y; with several heads the softmax is over the classes of the sample's own."""

    several_heads = True
    _others: Tensor | None = None  # (C, C), of `Classes.others`

    def setup(self, model: Classifier, dataset: Dataset) -> None:
        super().setup(model, dataset)
        self._others = dataset.targets.others(dataset.train.targets.device)
        if self._others is not None:
            self.stackable = False  # the heads of another seed may be others

    def logits(self, out: Output, batch: Batch) -> Tensor:
        return within_heads(out.prediction, batch.targets, self._others)

    def check(self, model: Classifier, dataset: Dataset) -> None:
        super().check(model, dataset)
        if not isinstance(dataset.targets, Classes):
            raise ValueError(
                f"loss={self.settings.name} needs classes, and the dataset holds values; loss=mse reads both"
            )

    def each(self, out: Output, batch: Batch) -> Tensor:
        return functional.cross_entropy(self.logits(out, batch), batch.targets, reduction="none")

    def mean(self, out: Output, batch: Batch) -> Tensor:
        if batch.of == len(batch.targets):
            return functional.cross_entropy(self.logits(out, batch), batch.targets)  # the same bits, fewer operations
        return functional.cross_entropy(self.logits(out, batch), batch.targets, reduction="sum") / batch.of


@dataclass
class MSESettings(LossSettings):
    name: str = "mse"


@LOSSES.add("mse", MSESettings)
class MeanSquaredError(Objective):
    """1/2 ||prediction - y||^2, y one-hot where targets are classes: summed over outputs, as theory has it."""

    def setup(self, model: Classifier, dataset: Dataset) -> None:
        if not isinstance(dataset.targets, Classes):
            self.headline = "loss"

    def each(self, out: Output, batch: Batch) -> Tensor:
        y = batch.targets
        if y.ndim == 1:
            # ||z - e_y||^2 = ||z||^2 - 2 z_y + 1 would cancel near the optimum.
            y = functional.one_hot(y, out.prediction.shape[1])
        return (out.prediction - y).square().sum(1) / 2


CROSS_ENTROPY = CrossEntropy(LossSettings())
