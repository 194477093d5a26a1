"""Suites of metrics: what an evaluation measures of a split, besides the objective's own scores.

`metrics.suite=[collapse, ...]` names them. A suite is one Python file that registers a class or function in `METRICS`,
which is called without arguments for every split of every evaluation and gives a `Metric`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.registry import Registry
from nclab.interfaces.targets import Targets

METRICS = Registry("metric", "nclab.metrics.suites")
NETWORK = "network"  # the layer of what belongs to no layer


@dataclass
class SuiteSettings:
    """Suites have no keys of their own."""


@dataclass(frozen=True)
class Seen:
    """Rows of the train split (n,), in rising order, by when a training drew from them. present: in the phase that is
    under way. past: in the phases before. memory: those of `past` that the sampler still draws."""

    present: Tensor
    past: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    memory: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @property
    def rows(self) -> Tensor:
        """All of them, each once."""
        return torch.cat([self.present, self.past]).unique()


@dataclass(frozen=True)
class Context:
    """What a suite is told before it measures a split.

    probes: the points of the network that are measured (`nclab.models.Probe`). targets: kind of the dataset's targets.
    split: name of the split. samples: how many it has, of all processes. train: the same suite after it measured the
    train split, None where this is the train split: class means are its. eps: NCC error up to which a layer counts as
    separated. outside: how many samples there are of none of the classes (metrics.ood_dataset, or held-out classes).
    held_out: how many classes these are, 0 where they are of another dataset. penalties: name of each parameter in the
    loss's own L2 penalty -> its lambda (`Objective.penalties`). of_train: whether the samples are
    those of the train split under other targets (`train_clean`): a test on them would be in-sample. continuous: whether
    the network sees numbers, which have derivatives, and not tokens or rows. loss: the mean loss
    that training minimises, without its penalty (`Objective.mean`). seen: which train samples the phases so far drew
    from, None: all. check: to be called between the long pieces of `compute`, as often in every process; it may raise
    to end the measurement.
    """

    model: nn.Module
    probes: Sequence[Any]
    targets: Targets
    split: str = "train"
    train: "Metric | None" = None
    eps: float = 0.01
    samples: int = 0
    outside: int = 0
    held_out: int = 0
    penalties: Mapping[str, float] = field(default_factory=dict)
    of_train: bool = False
    continuous: bool = True
    loss: Callable[[Output, Batch], Tensor] | None = field(default=None, repr=False)
    check: Callable[[], None] = field(default=lambda: None, repr=False)
    seen: Seen | None = field(default=None, repr=False)


class Metric:
    """Base of all suites. An evaluation calls `start` once, then for every pass over the split `add` for every batch of
    this process, and `next_pass` between two passes; last `compute`. The sums of all processes are added up in between.

    passes: how many passes over the split this suite needs, known after `start`.
    outside: whether it also reads samples of none of the classes, by `add_outside`.
    """

    passes: int = 1
    outside: bool = False

    def start(self, context: Context) -> None:
        """Raise ValueError where model or data do not allow the suite, e.g. targets without classes; else get ready.
        Reads no weight: a check calls it with a model without memory."""

    def wanted(self, n_pass: int) -> set[str] | None:
        """Names of the features that `add` reads in this pass, `input` and `logits` among them; None: all. What a later
        pass wants is kept in memory where it fits."""
        return None

    def names(self, split: str) -> set[str] | None:
        """Names of the numbers of the whole network that `compute` gives of this split, such as {"r2"}. None where a
        suite does not say: a wrong `metrics.headline` is then found when the untrained network is measured."""
        return None

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        """A batch of this process in pass n_pass (from 1).

        features: name -> (B, d), with `input` (B, d_in) and `logits` (B, C). In a later pass what `wanted` does not
        name may be missing, and is then empty in `batch.inputs` and `out.prediction`."""
        raise NotImplementedError(f"{type(self).__name__} must define add(n_pass, features, batch, out)")

    def add_outside(self, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        """A batch of the samples of none of the classes, after the last pass over the train split; its targets mean
        nothing, but for held-out classes, which they number. For a suite that is `outside`."""
        raise NotImplementedError(f"{type(self).__name__} must define add_outside(features, batch, out)")

    def sums(self) -> Tensor:
        """What processes add up after a pass: one float64 tensor of any shape, the same in all of them, also in one
        that saw no batch."""
        raise NotImplementedError(f"{type(self).__name__} must define sums()")

    def next_pass(self, n_pass: int, reduced: Tensor) -> None:
        """Before pass n_pass (from 2): the sums over all processes after the pass before."""

    def compute(self, reduced: Tensor) -> dict[str, float]:
        """'layer/metric' -> value, or 'metric' -> value of the whole network; nan where undefined. `reduced`: the sums
        over all processes after the last pass."""
        raise NotImplementedError(f"{type(self).__name__} must define compute(reduced)")


def require_classes(suite: str, context: Context, least: int = 2) -> None:
    """Raise ValueError, for a suite of this name, where the targets are no classes, or fewer than `least`."""
    if context.targets.groups(torch.zeros(0, dtype=torch.int64)) is None:
        raise ValueError(f"metrics.suite: {suite} needs classes, and this dataset's targets are values")
    if (classes := context.targets.dim) < least:
        raise ValueError(f"metrics.suite: {suite} needs at least {least} classes, got {classes}")


def last_layer(context: Context) -> tuple[str, str]:
    """The feature that the classifier reads, and the layer under which it is logged."""
    feature = context.model.inputs()[context.model.classifier]
    return feature, next(probe.layer for probe in context.probes if probe.feature == feature)


def by_layer(values: dict[str, float]) -> dict[str, dict[str, float]]:
    """What `compute` gave, by layer: {'fc1/nc1': 0.3, 'r2': 0.9} -> {'fc1': {'nc1': 0.3}, 'network': {'r2': 0.9}}."""
    layers: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        layer, _, metric = key.rpartition("/")
        layers.setdefault(layer or NETWORK, {})[metric] = value
    return layers
