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

from nclab.models import Classifier
from nclab.runfolder.checkpoint import random_state, set_random_state
from nclab.runfolder.display import SeedsDisplay
from nclab.system.machine import OutOfMemory
from nclab.system.signals import Stopped
from nclab.training.evaluate import Evaluation
from nclab.training.fit import FAILURES, Fit
from nclab.training.step import compiled_step, epoch_order

# A step with more operations in its forward pass than this keeps a CPU busy by itself: in turns the weights of one seed
# stay in the cache, batched those of all pass through it (an MLP-5x400 loses a fifth). And fewer seeds than this gain
# less than stacking costs. Both from scripts/bench_seeds.py.
MOST_FLOPS_ON_CPU = 5e7
LEAST_SEEDS_ON_CPU = 4

Tensors = dict[str, Tensor]
Forward = Callable[[Classifier, Tensors, Tensors, Tensor], Tensor]


class Member:
    """One fit among several, with the state that torch's own random generators would have in a process of its own."""

    def __init__(self, fit: Fit):
        self.fit = fit
        self.random = random_state()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """For what a single run does here too."""
        set_random_state(self.random)
        try:
            yield
        finally:
            self.random = random_state()


def train_all(
    members: list[Member], forward: Forward | None, display: SeedsDisplay
) -> Iterator[tuple[Fit, Evaluation | Exception]]:
    """Trains all members to their ends; yields each fit when it is through, with its last evaluation, or with the
    error that took it out (one of FAILURES). The others go on.

    Those that are behind, after a resume, catch up first. Fits of one structure are trained as one model where that is
    faster (`least_to_pay`), else, and without `forward`, in turns; where an adaptive policy fixes other maps in other
    seeds, they are several models until they agree again. All save their checkpoints in the same epochs, so that a
    resume finds them together. After a signal all that are not through are saved where they are, and Stopped is raised.
    """
    waiting = list(members)
    try:
        yield from _train_waiting(waiting, forward, display)
    except Stopped as stopped:
        for member in waiting:
            try:
                with member.alone():
                    member.fit.leave(stopped)
            except FAILURES as error:  # the others can still be saved
                yield member.fit, error
        raise


def _train_waiting(
    waiting: list[Member], forward: Forward | None, display: SeedsDisplay
) -> Iterator[tuple[Fit, Evaluation | Exception]]:
    """`train_all`; those that are through leave the list."""
    members = list(waiting)
    ended: list[tuple[Fit, Evaluation | Exception]] = []

    def run(member: Member, work: Callable[[], None]) -> None:
        fit = member.fit
        try:
            with member.alone():
                work()
                if fit.finished:
                    ended.append((fit, fit.result()))
                    waiting.remove(member)
        except FAILURES as error:
            ended.append((fit, error))
            waiting.remove(member)

    for member in members:
        run(member, member.fit.begin)
    least = least_to_pay(members[0].fit) if forward and members else math.inf
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
                losses = _train_epoch(group, forward)
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
        display.flush()


def least_to_pay(fit: Fit) -> float:
    """How many such fits train faster as one batched model than in turns: two on a GPU, several on a CPU, and there
    only where a step is small. Counted, not timed, so that a run does not depend on the moment."""
    images = fit.dataset.train.samples[: fit.batch_size]
    if images.device.type != "cpu":
        return 2
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        fit.model.eval()(fit.dataset.inputs(images))
    return LEAST_SEEDS_ON_CPU if count.get_total_flops() <= MOST_FLOPS_ON_CPU else math.inf


def _train_epoch(group: list[Member], forward: Forward) -> list[float]:
    if len(group) > 1:
        fits = [member.fit for member in group]
        with fits[0].training():
            return train_epoch_together(fits, forward)
    with group[0].alone():
        return [group[0].fit.train_alone()]


def stacked_logits(model: Classifier, parameters: Tensors, buffers: Tensors, x: Tensor) -> Tensor:
    """Images (S, B, ch, h, w) -> logits (S, B, C) of S models. `model` lends its code, the numbers are those of the
    stacks; buffers that a training step changes (batch norm) are changed in place. What differs between the models must
    be a parameter or a buffer, and vmap refuses a model that draws random numbers."""
    # Attention by matrix products: the CPU's fused kernel has no rule for vmap, which would loop over seeds, and those
    # of a GPU prepare no backward pass for tensors whose gradient is asked for outside of vmap only.
    with sdpa_kernel(SDPBackend.MATH):
        return vmap(lambda p, b, images: functional_call(model, (p, b), (images,))[0])(parameters, buffers, x)


def batched_forward(precision: str = "float32", compiled: bool = False) -> Forward | None:
    """`stacked_logits` as training steps run it, see `training_forward`; None for bf16: autocast rounds
    elsewhere under vmap, and the numbers would not be those of single runs."""
    if precision != "float32":
        return None
    return compiled_step(stacked_logits) if compiled else stacked_logits


def train_epoch_together(fits: list[Fit], forward: Forward) -> list[float]:
    """`train_epoch` of S fits of one structure at once, each in its own random order; returns their mean
    losses. The sum over seeds of their objectives is minimised: no gradient of one depends on another."""
    first = fits[0]
    models = [fit.model.train() for fit in fits]
    parameters, buffers = (
        {name: _stack([of[name] for of in tensors]) for name in tensors[0]}
        for tensors in ([_by_name(m) for m in models], [dict(m.named_buffers()) for m in models])
    )
    for name, parameter in first.model.named_parameters():
        parameters[name].requires_grad_(parameter.requires_grad)
    optimizer = _stacked_optimizer(fits, parameters)
    penalised = [parameters[name] for name in first.loss.penalised(first.model)]
    labels = first.dataset.train.labels
    parts = [fit.progress.part for fit in fits]
    orders = [epoch_order(fit.progress.part, labels, fit.generators["order"]) for fit in fits]
    done = replace(parts[0], loss=torch.tensor([float(part.loss) for part in parts], device=labels.device))  # (S,)
    for i, batch in enumerate(torch.stack(orders).split(first.batch_size, dim=1)):  # (S, B)
        size = batch.shape[1]
        if i < done.batches or size == 1:
            continue
        if first.stop.number is not None:
            break
        x = _inputs(fits, batch)  # (S, B, ch, h, w)
        logits = forward(first.model, parameters, buffers, x)  # (S, B, C)
        each = first.loss.each(logits.flatten(0, 1), labels[batch].flatten())  # (S B)
        losses = each.unflatten(0, batch.shape).mean(1)  # (S,)
        if losses.device.type == "cpu" and not losses.isfinite().all():
            _watch(fits, losses, x, parameters, buffers)
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        first.loss.add_gradient(penalised)
        optimizer.step()
        done.count(losses.detach(), size)
    _hand_back(fits, parameters, buffers, optimizer)
    sums = done.loss.tolist()  # one transfer from the device an epoch
    for part, loss in zip(parts, sums, strict=True):
        part.batches, part.samples, part.loss = done.batches, done.samples, loss
    first.stop.check()
    return [loss / done.samples for loss in sums]


def _watch(fits: list[Fit], losses: Tensor, x: Tensor, parameters: Tensors, buffers: Tensors) -> None:
    """Let those whose loss is a number no more see where that began; to the others their losses mean nothing."""
    for seed, fit in enumerate(fits):
        if not fit.diverging and not losses[seed].isfinite():
            _hand_back_weights(fit, seed, parameters, buffers)
            fit.watch(losses[seed].detach(), x[seed])


def _inputs(fits: list[Fit], batch: Tensor) -> Tensor:
    """What the models see: each its own images (S, B) -> (S, B, ch, h, w), changed by its own random numbers."""
    dataset, images = fits[0].dataset, fits[0].dataset.train.samples
    if dataset.augment == "none":
        return dataset.inputs(images.index_select(0, batch.flatten())).unflatten(0, batch.shape)
    generators = [fit.generators["augment"] for fit in fits]
    return torch.stack(
        [dataset.inputs(images.index_select(0, rows), g) for rows, g in zip(batch, generators, strict=True)]
    )


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
    optimizer = copy(fits[0].optimizer)
    named = [_by_name(fit.model) for fit in fits]
    optimizer.param_groups = [
        {**group, "params": [parameters[name] for name, p in named[0].items() if any(p is q for q in group["params"])]}
        for group in fits[0].optimizer.param_groups
    ]
    optimizer.state = defaultdict(dict)
    for name, parameter in named[0].items():
        states = [fit.optimizer.state.get(own[name], {}) for fit, own in zip(fits, named, strict=True)]
        for key, value in states[0].items():
            per_seed = _per_seed(key, value, parameter)
            optimizer.state[parameters[name]][key] = _stack([s[key] for s in states]) if per_seed else _clone(value)
    return optimizer


def _hand_back(fits: list[Fit], parameters: Tensors, buffers: Tensors, optimizer: Optimizer) -> None:
    """Every fit gets its slice of the stacks, copied: a checkpoint of a view would hold the stack."""
    for seed, fit in enumerate(fits):
        _hand_back_weights(fit, seed, parameters, buffers)
        for name, parameter in _by_name(fit.model).items():
            state = optimizer.state.get(parameters[name], {})
            for key, value in state.items():
                fit.optimizer.state[parameter][key] = (
                    torch.empty_like(parameter).copy_(value[seed])
                    if _per_seed(key, value, parameters[name])
                    else _clone(value)
                )


def _hand_back_weights(fit: Fit, seed: int, parameters: Tensors, buffers: Tensors) -> None:
    for own, stacks in ((_by_name(fit.model), parameters), (dict(fit.model.named_buffers()), buffers)):
        for name, tensor in own.items():
            tensor.detach().copy_(stacks[name].detach()[seed])


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
        for group in fit.optimizer.param_groups
    )
    state = tuple(
        (names[id(p)], key, _kind(key, value, p) or id(fit))  # of no known kind: this fit trains alone
        for p, entries in fit.optimizer.state.items()
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
