"""Many seeds in one process: as one batched model where one alone leaves the machine idle, else in turns.

Batched, fits of one structure are one model for an epoch (`nclab.training.stack`). In between each fit is an ordinary
one: it is measured, switched, saved and resumed by itself, as if it trained alone. Its numbers are those of its own run
up to the order in which floats are added. Where a gradient is zero but for rounding (a bias before a batch norm), Adam
makes steps of full size of that; the network trained is the same, yet a running mean lags behind.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nclab.system.machine import OutOfMemory
from nclab.system.signals import Stopped
from nclab.training.evaluate import Evaluation
from nclab.training.fit import FAILURES, Fit
from nclab.training.progress import random_state, set_random_state
from nclab.training.stack import StackedRun, is_per_seed, parameters_by_name, train_epoch_stacked

# A step with more operations in its forward pass than this keeps a CPU busy by itself: in turns the weights of one seed
# stay in the cache, batched those of all pass through it (an MLP-5x400 loses a fifth). And fewer seeds than this gain
# less than stacking costs. Both from scripts/bench_seeds.py.
MOST_FLOPS_ON_CPU = 5e7
LEAST_SEEDS_ON_CPU = 4


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
    try:
        while ended or waiting:
            yield from ended
            ended.clear()
            epoch = min((member.fit.progress.epoch for member in waiting), default=0)
            due = [member for member in waiting if member.fit.progress.epoch == epoch]
            for member in due:
                run(member, member.fit.begin_epoch)
            due = [member for member in due if member in waiting]
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
    except Stopped:
        yield from ended  # those that were through before the signal
        raise


def least_to_pay(fit: Fit) -> float:
    """How many such fits train faster as one batched model than in turns: two on a GPU, several on a CPU, and there
    only where a step is small; none where objective, policy or optimizer must see each model. Counted, not timed, so
    that a run does not depend on the moment."""
    learner, dataset = fit.learner, fit.feed.dataset
    if learner.closure or not (learner.objective.stackable and learner.policy.stackable):
        return math.inf
    samples = dataset.train.samples[: fit.feed.batch_size]
    if samples.device.type != "cpu":
        return 2
    from torch.utils.flop_counter import FlopCounterMode  # which imports triton: not at the start of every run

    with torch.no_grad(), FlopCounterMode(display=False) as count:
        learner.model.eval()(dataset.inputs(samples))
    return LEAST_SEEDS_ON_CPU if count.get_total_flops() <= MOST_FLOPS_ON_CPU else math.inf


def _train_epoch(group: list[Member], run: StackedRun) -> list[float]:
    if len(group) > 1:
        fits = [member.fit for member in group]
        with contextlib.ExitStack() as training:
            for fit in fits:
                training.enter_context(fit.training())
            return train_epoch_stacked(fits, run)
    with group[0].own_random_state():
        return [group[0].fit.train_epoch()]


def _groups(members: list[Member], least: float = 1) -> list[list[Member]]:
    """Those that can be stacked, in the order of their first; groups of fewer than `least` in ones."""
    if least == math.inf:
        return [[member] for member in members]
    groups: dict[tuple, list[Member]] = {}
    for member in members:
        groups.setdefault(_structure(member.fit), []).append(member)
    parts = ([group] if len(group) >= least else [[member] for member in group] for group in groups.values())
    return [part for group in parts for part in group]


def _structure(fit: Fit) -> tuple:
    """What fits must have in common to be one batched model: which module stands where, shapes and dtypes of all
    tensors, settings and learning rate of the optimizer, kind of its state, its counts of steps and those of the epoch
    under way, labels."""
    # Phases may give each seed labels of its own, and a batch of several reads those of the first.
    at = fit.progress.part.batches, fit.feed.samples(fit.progress.epoch), id(fit.feed.dataset.train.targets)
    modules = tuple((name, type(module)) for name, module in fit.model.named_modules())
    named = parameters_by_name(fit.model)
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
    for a list and for a tensor of another shape, whose meaning is not known."""
    if is_per_seed(key, value, parameter):
        return str(value.dtype)
    if torch.is_tensor(value):
        return str(value.item()) if value.numel() == 1 else None
    return None if isinstance(value, list | tuple | dict) else repr(value)
