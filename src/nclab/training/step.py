"""One training step, and an epoch of them: for one model, or for the stacks of several (`nclab.training.seeds`)."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from nclab.etf import ETFPolicy
from nclab.interfaces.batch import Batch, Output
from nclab.models import Classifier
from nclab.parallel.gradients import SummedGradients
from nclab.parallel.summed import summed
from nclab.training.complexity_term import complexity_term
from nclab.training.feed import Feed
from nclab.training.objective import Objective, Penalised, add_penalty_gradient, penalised, penalty_of
from nclab.training.progress import Part


@dataclass(frozen=True)
class Precision:
    """floats: the dtype of weights, fixed layers, inputs, targets that are values, optimizer state and everything that
    is measured. autocast: what the products of a training step are lowered to; None: nothing is."""

    floats: torch.dtype
    autocast: torch.dtype | None = None


PRECISIONS = {
    "float32": Precision(torch.float32),
    "bf16": Precision(torch.float32, autocast=torch.bfloat16),
    "float64": Precision(torch.float64),
}
MOST_GRAPHS = 256  # one a switch and batch shape; torch goes on uncompiled beyond its limit, without a word
Run = Callable[[Tensor], Output]
Watch = Callable[[Tensor, Batch], bool]


def set_products(tf32: bool) -> None:
    """Let the float32 matrix products and convolutions of a GPU be TF32, or not; torch alone lets convolutions be."""
    # torch's older call, of which some versions warn: it sets the older flags too. torch.compile reads those, and
    # refuses a batched product where they differ from the newer ones.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        # Torch refuses to tell this flag where it and those of convolutions and RNNs differ, and its compiler asks.
        torch.backends.cudnn.allow_tf32 = tf32
    for of in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
        of.fp32_precision = "tf32" if tf32 else "ieee"
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # that call lowers a CPU's products too


def compiled_step(run: Callable[..., Output]) -> Callable[..., Output]:
    """`run` by torch.compile, on a GPU as CUDA graphs: small models are bound by the launches of their kernels."""
    # What an earlier run of this process compiled must neither serve this one nor use up its recompilations.
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    return torch.compile(run, mode="reduce-overhead")


def training_run(model: Classifier, precision: str = "float32", compiled: bool = False) -> Run:
    """How a training step runs the model: inputs (B, ...) -> Output with a prediction in the model's own precision.

    bf16: under autocast, weights and optimizer state stay float32. float64: the model already is. compiled: see
    `compiled_step`; torch compiles anew when a layer is replaced. Evaluation neither lowers nor compiles: every logged
    metric is of the network in the precision of its weights.
    """
    run = compiled_step(model) if compiled else model
    first = next(model.parameters())
    device, own, dtype = first.device.type, first.dtype, PRECISIONS[precision].autocast
    if dtype is None:
        return lambda x: Output(*run(x))

    def lowered(x: Tensor) -> Output:
        with torch.autocast(device, dtype=dtype):
            prediction, features = run(x)
        return Output(prediction.to(own), features)

    return lowered


@dataclass
class Learner:
    """What is trained, and how.

    learning_rate(epoch) is that of an epoch counted from 0; run is `training_run` of the model; closure: see
    `nclab.training.optim.OptimizerSettings`.
    """

    model: Classifier
    objective: Objective
    policy: ETFPolicy
    optimizer: Optimizer
    learning_rate: Callable[[int], float]
    run: Run
    closure: bool = False


class Trainee(Protocol):
    """What `train_step` trains: one model, or the stacks of S."""

    optimizer: Optimizer
    penalised: Penalised
    closure: bool  # whether a step of the optimizer asks for the objective itself

    def order(self, part: Part) -> Tensor:
        """Rows of the train split of this epoch, (n,) or (S, n)."""

    def batch(self, rows: Tensor) -> Batch:
        """The batch of rows (b,) or (S, b)."""

    def loss(self, batch: Batch) -> tuple[Tensor, Output | None]:
        """Forward: the mean loss without penalty, () or (S,), and the output of a single model."""

    def beside(self, batch: Batch, out: Output | None) -> Tensor | None:
        """What autograd minimises beside that loss, (), and no loss that is told has; None: nothing."""

    def after_step(self, batch: Batch, out: Output | None, step: int) -> None:
        """What follows an optimizer step."""


class Single:
    """One model as a `Trainee`. `epoch` is the one under way, `steps` those that the epochs before had."""

    def __init__(self, learner: Learner, feed: Feed, epoch: int = 0, steps: int = 0):
        self.learner, self.feed, self.epoch, self.steps = learner, feed, epoch, steps
        self.optimizer, self.closure = learner.optimizer, learner.closure
        self.complexity = learner.objective.complexity
        self.penalised = penalised(learner.objective, learner.model)
        self._before_loss = partial(learner.policy.before_loss, learner.model, total=partial(summed, feed.world))

    def order(self, part: Part) -> Tensor:
        return self.feed.order(self.epoch, part)

    def batch(self, rows: Tensor) -> Batch:
        batch = self.feed.batch(rows)
        return replace(batch, inputs=batch.inputs.detach().requires_grad_()) if self.complexity else batch

    def loss(self, batch: Batch) -> tuple[Tensor, Output | None]:
        # Attention by matrix products: the fused kernels have no second derivative.
        with sdpa_kernel(SDPBackend.MATH) if self.complexity else nullcontext():
            return batch_loss(self.learner.run, self.learner.objective, batch, self._before_loss)

    def beside(self, batch: Batch, out: Output | None) -> Tensor | None:
        return complexity_term(self.complexity, batch, out) if self.complexity else None

    def after_step(self, batch: Batch, out: Output | None, step: int) -> None:
        self.learner.policy.after_step(self.learner.model, batch, out, self.steps + step)


def unchanged(batch: Batch, out: Output) -> Output:
    """What a policy without `before_loss` makes of an output."""
    return out


def batch_loss(
    run: Run, objective: Objective, batch: Batch, before_loss: Callable[[Batch, Output], Output] = unchanged
) -> tuple[Tensor, Output]:
    """The forward pass of the one step: run the model on a batch and take the mean loss, (), of what `before_loss`
    makes of its output."""
    out = before_loss(batch, run(batch.inputs))
    return objective.mean(out, batch), out


def train_step(
    trainee: Trainee, batch: Batch, step: int, gradients: SummedGradients, watch: Watch
) -> tuple[Tensor, bool]:
    """Forward, backward, penalty, optimizer step, policy. Returns the loss of the whole batch, () or (S,), and whether
    `watch` took it for the end: the weights are then those before the step."""
    loss, out = loss_and_gradient(trainee, batch, gradients)
    if watch(loss, batch):
        return loss, True
    add_penalty_gradient(trainee.penalised)  # to the sum over processes, once
    if trainee.closure:
        trainee.optimizer.step(objective_of(trainee, batch, gradients, loss))
    else:
        trainee.optimizer.step()
    trainee.after_step(batch, out, step)
    return loss, False


def loss_and_gradient(trainee: Trainee, batch: Batch, gradients: SummedGradients) -> tuple[Tensor, Output | None]:
    """Forward and backward: the loss of the whole batch without penalty, its gradient, and that of what is minimised
    `beside` it, in every `grad`, the output."""
    own_share, out = trainee.loss(batch)
    beside = trainee.beside(batch, out)
    forget_gradients(trainee.optimizer)
    return gradients.backward(own_share, beside), out


def objective_of(trainee: Trainee, batch: Batch, gradients: SummedGradients, loss: Tensor) -> Callable[[], float]:
    """What a step asks for several times: the objective of a batch at the present weights, and its gradient in every
    `grad`, the penalty in both. The first call is for the weights whose loss and gradients are there already."""
    there = [loss]

    def objective() -> float:
        if there:
            return float(there.pop()) + penalty_of(trainee.penalised)
        own, _ = loss_and_gradient(trainee, batch, gradients)
        add_penalty_gradient(trainee.penalised)
        return float(own) + penalty_of(trainee.penalised)

    return objective


def forget_gradients(optimizer: Optimizer) -> None:
    """The optimizer's `zero_grad`, without what that tells torch's profiler: a twelfth of a tiny model's step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def never(loss: Tensor, batch: Batch) -> bool:
    """The `Watch` of who does not look."""
    return False


def train_steps(
    trainee: Trainee,
    part: Part,
    batch_size: int,
    gradients: SummedGradients,
    check: Callable[[], None] = lambda: None,
    watch: Watch = never,
) -> Tensor | None:
    """The steps of one epoch, from where `part` stands. `check` may raise between two batches; where `watch` returns
    True the epoch ends before that batch's step, and the loss of that batch is returned.

    The last, smaller batch is trained on too, unless it is a single sample: batch norm has no variance then.
    """
    for i, rows in enumerate(trainee.order(part).split(batch_size, dim=-1)):
        size = rows.shape[-1]
        if i < part.batches or size == 1:
            continue
        check()
        loss, ended = train_step(trainee, trainee.batch(rows), part.batches, gradients, watch)
        if ended:
            return loss
        part.count(loss, size)
    return None


def train_epoch(
    learner: Learner,
    feed: Feed,
    part: Part | None = None,
    epoch: int = 0,
    steps: int = 0,
    check: Callable[[], None] = lambda: None,
    watch: Watch = never,
) -> float:
    """One epoch of one model, counted from 0, `steps` optimizer steps into its run; returns the mean loss, without its
    penalty, of the batches' samples: of the last batch alone where `watch` ended the epoch."""
    part = part or Part()
    learner.model.train()
    with SummedGradients(learner.model.parameters(), feed.world) as gradients:
        ended = train_steps(Single(learner, feed, epoch, steps), part, feed.batch_size, gradients, check, watch)
    return float(part.loss) / part.samples if ended is None else ended.item()
