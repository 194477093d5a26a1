"""Optimizers of torch and learning-rate schedules, under the names of conf/optimizer/ and conf/schedule/.

A schedule is a pure function of the epoch, so that a resumed run has no scheduler state to lose.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nclab.interfaces.registry import Registry
from nclab.interfaces.valid import OutOfRange

OPTIMIZERS = Registry("optimizer", "nclab.training.optim")
SCHEDULES = Registry("schedule", "nclab.training.optim")
Schedule = Callable[[int], float]
MOST_LINE_SEARCH = 26  # evaluations that torch's line search makes at most: one, and 25 more


def at_least(key: str, value: float, least: float, strict: bool = False, most: float = math.inf) -> None:
    """Raise OutOfRange unless value >= least (> least where strict), finite and at most `most`; nan never passes."""
    if not (value > least if strict else value >= least) or value == math.inf:
        raise OutOfRange(f"{key} must be {'above' if strict else 'at least'} {least:g} and finite, got {value}", key)
    if value > most:
        raise OutOfRange(f"{key} must be at most {most}, got {value}", key)


@dataclass
class OptimizerSettings:
    """closure: whether a step of the optimizer asks for the objective, penalty included, several times, as a line
    search does. Then every step takes the whole train split, in one process, and no policy changes layers meanwhile."""

    closure = False  # no field: no key of a configuration

    name: str = "sgd"
    lr: float = 0.01  # learning rate at the start

    def __post_init__(self) -> None:
        at_least("optimizer.lr", self.lr, 0, strict=True)


@dataclass
class DecaySettings(OptimizerSettings):
    weight_decay: float = 5e-4  # on every learnable parameter, biases and norms included

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("optimizer.weight_decay", self.weight_decay, 0)


@dataclass
class SGDSettings(DecaySettings):
    momentum: float = 0.9  # share of the last step that is kept
    nesterov: bool = False  # Nesterov's momentum

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optimizer.momentum must be in [0, 1), got {self.momentum}")
        if self.nesterov and self.momentum == 0:
            raise ValueError(f"optimizer.nesterov=true needs optimizer.momentum above 0, got {self.momentum}")


@dataclass
class AdamWSettings(DecaySettings):
    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    # of the running means of the gradient and of its square
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError(f"optimizer.betas must be two numbers in [0, 1), got {self.betas}")


@dataclass
class LBFGSSettings(OptimizerSettings):
    closure = True

    name: str = "lbfgs"
    lr: float = 1.0  # where the line search begins, in units of the quasi-Newton step
    max_iter: int = 20  # iterations a step
    history_size: int = 100  # gradients and steps that the curvature is estimated from; each as large as the network
    tolerance_grad: float = 1e-7  # a step ends where no number of the gradient is larger
    tolerance_change: float = 1e-9  # likewise the change of objective or weights

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("max_iter", "history_size"):
            at_least(f"optimizer.{key}", getattr(self, key), 1)
        for key in ("tolerance_grad", "tolerance_change"):
            at_least(f"optimizer.{key}", getattr(self, key), 0)


# Torch's own wrappers of methods of optimizers, by module and name. The first keeps its compiler off a method, and
# imports it to do so; the second lets it trace a step, likewise; the third is for its profiler, once for each class.
WRAPPERS = {("torch._compile", "inner"), ("torch.optim.optimizer", "_use_grad"), ("torch.optim.optimizer", "wrapper")}


def below_wrappers(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch's optimizers without its wrappers; as it is where a version of torch has others."""
    while (wrapped := getattr(method, "__wrapped__", None)) is not None:
        if (method.__globals__["__name__"], method.__code__.co_name) not in WRAPPERS:
            break
        method = wrapped
    return method


class Eager:
    """Methods that do not import torch's compiler: three of seven seconds to the first epoch. `compile=true` compiles
    the network and its loss, never these. In classes of our own, so that torch's are as others expect them."""

    add_param_group = below_wrappers(Optimizer.add_param_group)
    load_state_dict = below_wrappers(Optimizer.load_state_dict)
    state_dict = below_wrappers(Optimizer.state_dict)
    zero_grad = below_wrappers(Optimizer.zero_grad)


class EagerSGD(Eager, torch.optim.SGD):
    step = torch.no_grad()(below_wrappers(torch.optim.SGD.step))


class EagerAdamW(Eager, torch.optim.AdamW):
    step = torch.no_grad()(below_wrappers(torch.optim.AdamW.step))


@OPTIMIZERS.add("sgd", SGDSettings)
def sgd(s: SGDSettings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """torch's SGD on all learnable parameters (biases and norms included, as in the paper's code).

    Fused: one pass over each parameter instead of five."""
    return EagerSGD(
        parameters, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay, nesterov=s.nesterov, fused=True
    )


@OPTIMIZERS.add("adamw", AdamWSettings)
def adamw(s: AdamWSettings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    return EagerAdamW(parameters, lr=s.lr, betas=tuple(s.betas), weight_decay=s.weight_decay, fused=True)


@OPTIMIZERS.add("lbfgs", LBFGSSettings)
def lbfgs(s: LBFGSSettings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """torch's L-BFGS with a line search for the strong Wolfe conditions (Nocedal and Wright 2006, chapters 3 and 7).

    Iterations alone bound a step: torch's own bound on evaluations would cut the line search short where max_iter is
    small. Weight decay is no part of it: `loss.l2` is in the objective that the line search sees.
    """
    return torch.optim.LBFGS(
        parameters,
        lr=s.lr,
        max_iter=s.max_iter,
        max_eval=MOST_LINE_SEARCH * s.max_iter + 1,
        tolerance_grad=s.tolerance_grad,
        tolerance_change=s.tolerance_change,
        history_size=s.history_size,
        line_search_fn="strong_wolfe",
    )


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state, those in lists among them."""
    return sum(t.numel() * t.element_size() for state in optimizer.state.values() for t in _tensors(state))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if torch.is_tensor(value):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


@dataclass
class ScheduleSettings:
    name: str = "constant"


@dataclass
class MultiStepSettings(ScheduleSettings):
    name: str = "multistep"
    milestones: list[int] = field(default_factory=lambda: [60, 120, 160])  # epochs trained before each drop
    gamma: float = 0.1  # factor on the learning rate at each

    def __post_init__(self) -> None:
        at_least("schedule.gamma", self.gamma, 0, strict=True, most=1)  # a larger one grows beyond any float
        rising = sorted(set(self.milestones)) == list(self.milestones)
        if not rising or min(self.milestones, default=0) < 1:  # without any it is schedule=constant
            raise ValueError(f"schedule.milestones must be rising epochs of at least 1, got {self.milestones}")


@dataclass
class CosineSettings(ScheduleSettings):
    name: str = "cosine"
    final: float = 0.0  # share of the learning rate that is left after the last epoch

    def __post_init__(self) -> None:
        if not 0 <= self.final <= 1:
            raise ValueError(f"schedule.final must be in [0, 1], got {self.final}")


# A schedule is called with the number of epochs already trained and gives the factor on optimizer.lr.


@SCHEDULES.add("constant", ScheduleSettings)
def constant(s: ScheduleSettings, epochs: int) -> Schedule:
    return lambda epoch: 1.0


@SCHEDULES.add("multistep", MultiStepSettings)
def multistep(s: MultiStepSettings, epochs: int) -> Schedule:
    """gamma^(number of milestones passed)."""
    return lambda epoch: s.gamma ** sum(epoch >= m for m in s.milestones)


@SCHEDULES.add("cosine", CosineSettings)
def cosine(s: CosineSettings, epochs: int) -> Schedule:
    """final + (1 - final) (1 + cos(pi epoch / epochs)) / 2 (Loshchilov and Hutter 2017, without restarts)."""
    return lambda epoch: s.final + (1 - s.final) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def learning_rate(optimizer: OptimizerSettings, schedule: ScheduleSettings, epochs: int) -> Callable[[int], float]:
    """The learning rate of each epoch, counted from 0: optimizer.lr times the schedule's factor."""
    factor = SCHEDULES[schedule.name].build(schedule, epochs)
    return lambda epoch: optimizer.lr * factor(epoch)
