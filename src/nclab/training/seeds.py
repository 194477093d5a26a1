"""Many seeds in one process: as one batched model where one alone leaves the machine idle, else in turns.

Batched: weights, buffers (fixed maps among them) and optimizer state of S models are stacked, (S, ...), for one epoch:
`torch.func.vmap` runs the model's own forward on all of them, one optimizer steps the stacks, and every model gets its
slice back. In between each fit is an ordinary one: it is measured, switched, saved and resumed by itself, as if it
trained alone. Its numbers are those of its own run up to the order in which floats are added. Where a gradient is zero
but for rounding (a bias before a batch norm), Adam makes steps of full size of that; the network trained is the same,
yet a running mean lags behind.
"""

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from nclab.interfaces.batch import Batch, Output
from nclab.models import Classifier
from nclab.parallel.gradients import SummedGradients
from nclab.parallel.group import SINGLE
from nclab.system.machine import OutOfMemory
from nclab.system.signals import Stopped
from nclab.training.evaluate import Evaluation
from nclab.training.fit import FAILURES, Fit
from nclab.training.objective import Objective, penalised
from nclab.training.progress import Part, random_state, set_random_state
from nclab.training.step import batch_loss, compiled_step, train_steps

# A step with more operations in its forward pass than this keeps a CPU busy by itself: in turns the weights of one seed
# stay in the cache, batched those of all pass through it (an MLP-5x400 loses a fifth). And fewer seeds than this gain
# less than stacking costs. Both from scripts/bench_seeds.py.
MOST_FLOPS_ON_CPU = 5e7
LEAST_SEEDS_ON_CPU = 4

Tensors = dict[str, Tensor]
StackedRun = Callable[[Classifier, Objective, Tensors, Tensors, Batch], Tensor]  # -> losses (S,)


class Member:
    """One fit among several, with the state that torch's own random generators would have in a process of its own."""

    def __init__(self, fit: Fit):
        self.fit = fit
        self.random = random_state()

    @contextlib.contextmanager
    def own_random_state(self) -> Iterator[None]:
        """For what a single run does here too."""
        set_random_state(self.random)
        try:
            yield
        finally:
            self.random = random_state()


def train_all(
    members: list[Member], run: StackedRun | None, after_epoch: Callable[[], None] = lambda: None
) -> Iterator[tuple[Fit, Evaluation | Exception]]:
    """Trains all members to their ends; yields each fit when it is through, with its last evaluation, or with the
    error that took it out (one of FAILURES). The others go on.

    Those that are behind, after a resume, catch up first. Fits of one structure are trained as one model where that is
    faster (`least_to_pay`), else, and without `run`, in turns; where an adaptive policy fixes other maps in other
    seeds, they are several models until they agree again. All save their checkpoints in the same epochs, so that a
    resume finds them together; `after_epoch` is called when all have ended one. After a signal all that are not through
    are saved where they are, and Stopped is raised.
    """
    waiting = list(members)
    try:
        yield from _train_waiting(waiting, run, after_epoch)
    except Stopped as stopped:
        for member in waiting:
            try:
                with member.own_random_state():
                    member.fit.leave(stopped)
            except FAILURES as error:  # the others can still be saved
                yield member.fit, error
        raise


def _train_waiting(
    waiting: list[Member], stacked_run: StackedRun | None, after_epoch: Callable[[], None]
) -> Iterator[tuple[Fit, Evaluation | Exception]]:
    """`train_all`; those that are through leave the list."""
    members = list(waiting)
    ended: list[tuple[Fit, Evaluation | Exception]] = []

    def run(member: Member, work: Callable[[], None]) -> None:
        fit = member.fit
        try:
            with member.own_random_state():
                work()
                if fit.finished:
                    ended.append((fit, fit.result()))
                    waiting.remove(member)
        except FAILURES as error:
            ended.append((fit, error))
            waiting.remove(member)

    for member in members:
        run(member, member.fit.begin)
    least = least_to_pay(members[0].fit) if stacked_run and members else math.inf
    while ended or waiting:
        yield from ended
        ended.clear()
        epoch = min((member.fit.progress.epoch for member in waiting), default=0)
        due = [member for member in waiting if member.fit.progress.epoch == epoch]
        for member in due:
            member.fit.begin_epoch()
        for group in _groups(due, least):
            began = time.perf_counter()
            try:
                losses = _train_epoch(group, stacked_run)
            except OutOfMemory as error:
                ended.extend((member.fit, error) for member in group)
                waiting[:] = [member for member in waiting if member not in group]
                continue
            seconds = (time.perf_counter() - began) / len(group)
            for member, loss in zip(group, losses, strict=True):
                run(member, partial(member.fit.end_epoch, loss, seconds, len(group)))
        if any(member.fit.saved_epoch > epoch for member in due):
            for member in due:
                if member in waiting and member.fit.saved_epoch <= epoch:
                    run(member, member.fit.save)
        after_epoch()


def least_to_pay(fit: Fit) -> float:
    """How many such fits train faster as one batched model than in turns: two on a GPU, several on a CPU, and there
    only where a step is small; none where objective or policy must see each model. Counted, not timed, so that a run
    does not depend on the moment."""
    learner, dataset = fit.learner, fit.feed.dataset
    if not (learner.objective.stackable and learner.policy.stackable):
        return math.inf
    samples = dataset.train.samples[: fit.feed.batch_size]
    if samples.device.type != "cpu":
        return 2
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        learner.model.eval()(dataset.inputs(samples))
    return LEAST_SEEDS_ON_CPU if count.get_total_flops() <= MOST_FLOPS_ON_CPU else math.inf


def _train_epoch(group: list[Member], run: StackedRun) -> list[float]:
    if len(group) > 1:
        fits = [member.fit for member in group]
        with fits[0].training():
            return train_epoch_stacked(fits, run)
    with group[0].own_random_state():
        return [group[0].fit.train_epoch()]


def stacked_losses(
    model: Classifier, objective: Objective, parameters: Tensors, buffers: Tensors, batch: Batch
) -> Tensor:
    """The one training step's forward pass (`nclab.training.step.batch_loss`), mapped over S models: mean losses (S,).

    `model` lends its code, the numbers are those of the stacks; buffers that a training step changes (batch norm) are
    changed in place. What differs between the models must be a parameter or a buffer, and vmap refuses a model that
    draws random numbers.
    """

    def loss(p: Tensors, b: Tensors, inputs: Tensor, targets: Tensor, index: Tensor) -> Tensor:
        def run(x: Tensor) -> Output:
            return Output(*functional_call(model, (p, b), (x,)))

        return batch_loss(run, objective, Batch(inputs, targets, index, batch.of))[0]

    # Attention by matrix products: the CPU's fused kernel has no rule for vmap, which would loop over seeds, and those
    # of a GPU prepare no backward pass for tensors whose gradient is asked for outside of vmap only.
    with sdpa_kernel(SDPBackend.MATH):
        return vmap(loss)(parameters, buffers, batch.inputs, batch.targets, batch.index)


def stacked_run(precision: str = "float32", compiled: bool = False) -> StackedRun | None:
    """`stacked_losses` as training steps run it, see `training_run`; None for bf16: autocast rounds elsewhere under
    vmap, and the numbers would not be those of single runs."""
    if precision != "float32":
        return None
    return compiled_step(stacked_losses) if compiled else stacked_losses


class Stack:
    """Weights, buffers and optimizer states of S fits of one structure as one `nclab.training.step.Trainee`.

    The sum over seeds of their objectives is minimised: no gradient of one depends on another.
    """

    def __init__(self, fits: list[Fit], run: StackedRun):
        self.fits, self.run = fits, run
        self.first = fits[0].learner
        models = [fit.model.train() for fit in fits]
        self.parameters, self.buffers = (
            {name: _stack([of[name] for of in tensors]) for name in tensors[0]}
            for tensors in ([_by_name(m) for m in models], [dict(m.named_buffers()) for m in models])
        )
        for name, parameter in self.first.model.named_parameters():
            self.parameters[name].requires_grad_(parameter.requires_grad)
        self.optimizer = _stacked_optimizer(fits, self.parameters)
        self.penalised = penalised(self.first.objective, self.first.model, self.parameters)

    def order(self, part: Part) -> Tensor:
        return torch.stack([fit.feed.order(fit.progress.epoch, fit.progress.part) for fit in self.fits])  # (S, n)

    def batch(self, rows: Tensor) -> Batch:
        return self.fits[0].feed.stacked_batch([fit.feed for fit in self.fits], rows)

    def loss(self, batch: Batch) -> tuple[Tensor, Output | None]:
        return self.run(self.first.model, self.first.objective, self.parameters, self.buffers, batch), None

    def after_step(self, batch: Batch, out: Output | None, step: int) -> None:
        """Policies that do something here are not stacked."""

    def watch(self, losses: Tensor, batch: Batch) -> bool:
        """Let those whose loss is not finite see where that began; to the others their losses mean nothing."""
        if losses.device.type == "cpu" and not losses.isfinite().all():
            for seed, fit in enumerate(self.fits):
                if not fit.diverging and not losses[seed].isfinite():
                    self._hand_back_weights(seed)
                    own = Batch(batch.inputs[seed], batch.targets[seed], batch.index[seed], batch.of)
                    fit.watch(losses[seed].detach(), own)
        return False

    def hand_back(self, done: Part) -> list[float]:
        """Every fit gets its slice of the stacks, copied: a checkpoint of a view would hold the stack; and what was
        `done` of the epoch. Returns the sums of their losses."""
        for seed, fit in enumerate(self.fits):
            self._hand_back_weights(seed)
            for name, parameter in _by_name(fit.model).items():
                for key, value in self.optimizer.state.get(self.parameters[name], {}).items():
                    fit.learner.optimizer.state[parameter][key] = (
                        torch.empty_like(parameter).copy_(value[seed])
                        if _per_seed(key, value, self.parameters[name])
                        else _clone(value)
                    )
        sums = done.loss.tolist()  # one transfer from the device an epoch
        for fit, loss in zip(self.fits, sums, strict=True):
            part = fit.progress.part
            part.batches, part.samples, part.loss = done.batches, done.samples, loss
        return sums

    def _hand_back_weights(self, seed: int) -> None:
        fit = self.fits[seed]
        for own, stacks in (
            (_by_name(fit.model), self.parameters),
            (dict(fit.model.named_buffers()), self.buffers),
        ):
            for name, tensor in own.items():
                tensor.detach().copy_(stacks[name].detach()[seed])


def train_epoch_stacked(fits: list[Fit], run: StackedRun) -> list[float]:
    """`nclab.training.step.train_epoch` of S fits of one structure at once, each in its own random order; returns their
    mean losses."""
    stack, parts = Stack(fits, run), [fit.progress.part for fit in fits]
    device = fits[0].feed.dataset.train.targets.device
    done = replace(parts[0], loss=torch.tensor([float(part.loss) for part in parts], device=device))  # (S,)
    first = fits[0]
    try:
        with SummedGradients(stack.parameters.values(), SINGLE) as gradients:
            train_steps(stack, done, first.feed.batch_size, gradients, first.check, stack.watch)
    except Stopped:
        stack.hand_back(done)
        raise
    return [loss / done.samples for loss in stack.hand_back(done)]


def _stack(tensors: list[Tensor]) -> Tensor:
    """(S, ...). A matrix is laid out transposed, as its gradient comes out of a batched product: it is taken over
    without a copy, which for an MLP of width 400 is an eighth of a training step."""
    tensors = [tensor.detach() for tensor in tensors]
    return torch.stack([t.mT for t in tensors]).mT if tensors[0].ndim == 2 else torch.stack(tensors)


def _stacked_optimizer(fits: list[Fit], parameters: Tensors) -> Optimizer:
    """A copy of the first fit's optimizer that steps the stacks: its settings and its learning rate, the state of all.

    Right for optimizers whose update of a number depends on that number's gradients and state alone, as those of SGD
    and Adam do; the mean over a tensor, say, would run over the seeds too.
    """
    optimizer = copy(fits[0].learner.optimizer)
    named = [_by_name(fit.model) for fit in fits]
    optimizer.param_groups = [
        {**group, "params": [parameters[name] for name, p in named[0].items() if any(p is q for q in group["params"])]}
        for group in fits[0].learner.optimizer.param_groups
    ]
    optimizer.state = defaultdict(dict)
    for name, parameter in named[0].items():
        states = [fit.learner.optimizer.state.get(own[name], {}) for fit, own in zip(fits, named, strict=True)]
        for key, value in states[0].items():
            per_seed = _per_seed(key, value, parameter)
            optimizer.state[parameters[name]][key] = _stack([s[key] for s in states]) if per_seed else _clone(value)
    return optimizer


def _by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def _per_seed(key: str, value: Any, parameter: Tensor) -> bool:
    """Whether an entry of the optimizer's state has a number for every one of the parameter; the others (the count of
    steps) are the same in all seeds of a group."""
    return key != "step" and torch.is_tensor(value) and value.shape == parameter.shape


def _clone(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value


def _groups(members: list[Member], least: float = 1) -> list[list[Member]]:
    """Those that can be stacked, in the order of their first; groups of fewer than `least` in ones."""
    groups: dict[tuple, list[Member]] = {}
    for member in members:
        groups.setdefault(_structure(member.fit), []).append(member)
    parts = ([group] if len(group) >= least else [[member] for member in group] for group in groups.values())
    return [part for group in parts for part in group]


def _structure(fit: Fit) -> tuple:
    """What fits must have in common to be one batched model: which module stands where, shapes and dtypes of all
    tensors, settings and learning rate of the optimizer, kind of its state, its counts of steps and those of the epoch
    under way."""
    at = fit.progress.part.batches
    modules = tuple((name, type(module)) for name, module in fit.model.named_modules())
    named = _by_name(fit.model)
    tensors = tuple(
        (name, t.shape, t.dtype) for own in (named, dict(fit.model.named_buffers())) for name, t in own.items()
    )
    learnt = tuple(name for name, p in named.items() if p.requires_grad)
    names = {id(p): name for name, p in named.items()}
    settings = tuple(
        (
            *((key, str(value)) for key, value in group.items() if key != "params"),
            *(names[id(p)] for p in group["params"]),
        )
        for group in fit.learner.optimizer.param_groups
    )
    state = tuple(
        (names[id(p)], key, _kind(key, value, p) or id(fit))  # of no known kind: this fit trains alone
        for p, entries in fit.learner.optimizer.state.items()
        for key, value in entries.items()
    )
    return at, modules, tensors, learnt, settings, state


def _kind(key: str, value: Any, parameter: Tensor) -> str | None:
    """What seeds must share of an entry of the optimizer's state: its dtype, or its value where it has but one; None
    for a tensor of another shape, whose meaning is not known."""
    if _per_seed(key, value, parameter):
        return str(value.dtype)
    if torch.is_tensor(value):
        return str(value.item()) if value.numel() == 1 else None
    return repr(value)
