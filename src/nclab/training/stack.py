"""S models of one structure as one batched model, for an epoch of training steps (`nclab.training.seeds`).

Weights, buffers (fixed layers among them) and optimizer state are stacked, (S, ...): `torch.func.vmap` runs the one
training step's forward pass on all of them, one optimizer steps the stacks, and every model gets its slice back.
"""

from collections import defaultdict
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from nclab.interfaces.batch import Batch, Output
from nclab.models import Classifier
from nclab.parallel.gradients import SummedGradients
from nclab.parallel.group import SINGLE
from nclab.system.signals import Stopped
from nclab.training.fit import Fit
from nclab.training.objective import Objective, penalised
from nclab.training.progress import Part
from nclab.training.step import PRECISIONS, batch_loss, compiled_step, train_steps

Tensors = dict[str, Tensor]
StackedRun = Callable[[Classifier, Objective, Tensors, Tensors, Batch], Tensor]  # -> losses (S,)


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
    if PRECISIONS[precision].autocast is not None:
        return None
    return compiled_step(stacked_losses) if compiled else stacked_losses


class Stack:
    """Weights, buffers and optimizer states of S fits of one structure as one `nclab.training.step.Trainee`.

    The sum over seeds of their objectives is minimised: no gradient of one depends on another.
    """

    closure = False  # a line search over all seeds at once would be another training

    def __init__(self, fits: list[Fit], run: StackedRun):
        self.fits, self.run = fits, run
        self.first = fits[0].learner
        models = [fit.model.train() for fit in fits]
        self.parameters, self.buffers = (
            {name: _stack([of[name] for of in tensors]) for name in tensors[0]}
            for tensors in ([parameters_by_name(m) for m in models], [dict(m.named_buffers()) for m in models])
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

    def beside(self, batch: Batch, out: Output | None) -> Tensor | None:
        """Objectives that have something there are not stacked."""

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
            for name, parameter in parameters_by_name(fit.model).items():
                for key, value in self.optimizer.state.get(self.parameters[name], {}).items():
                    fit.learner.optimizer.state[parameter][key] = (
                        torch.empty_like(parameter).copy_(value[seed])
                        if is_per_seed(key, value, self.parameters[name])
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
            (parameters_by_name(fit.model), self.parameters),
            (dict(fit.model.named_buffers()), self.buffers),
        ):
            for name, tensor in own.items():
                tensor.detach().copy_(stacks[name].detach()[seed])


def train_epoch_stacked(fits: list[Fit], run: StackedRun) -> list[float]:
    """`nclab.training.step.train_epoch` of S fits of one structure at once, each in its own random order; returns their
    mean losses."""
    stack, parts = Stack(fits, run), [fit.progress.part for fit in fits]
    like = next(fits[0].model.parameters())
    done = replace(parts[0], loss=like.new_tensor([float(part.loss) for part in parts]))  # (S,)
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
    named = [parameters_by_name(fit.model) for fit in fits]
    optimizer.param_groups = [
        {**group, "params": [parameters[name] for name, p in named[0].items() if any(p is q for q in group["params"])]}
        for group in fits[0].learner.optimizer.param_groups
    ]
    optimizer.state = defaultdict(dict)
    for name, parameter in named[0].items():
        states = [fit.learner.optimizer.state.get(own[name], {}) for fit, own in zip(fits, named, strict=True)]
        for key, value in states[0].items():
            per_seed = is_per_seed(key, value, parameter)
            optimizer.state[parameters[name]][key] = _stack([s[key] for s in states]) if per_seed else _clone(value)
    return optimizer


def parameters_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters())


def is_per_seed(key: str, value: Any, parameter: Tensor) -> bool:
    """Whether an entry of the optimizer's state has a number for every one of the parameter; the others (the count of
    steps) are the same in all seeds of a group."""
    return key != "step" and torch.is_tensor(value) and value.shape == parameter.shape


def _clone(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value
