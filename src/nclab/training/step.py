"""One epoch of training steps: how a step runs the model, in which order the samples come, and the steps themselves."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from nclab.data import Dataset
from nclab.models import Classifier
from nclab.parallel.gradients import SummedGradients
from nclab.parallel.group import SINGLE, ProcessGroup
from nclab.runfolder.checkpoint import Part
from nclab.training.objective import CROSS_ENTROPY, Loss

PRECISIONS = {"float32": None, "bf16": torch.bfloat16}  # of the training steps
MOST_GRAPHS = 256  # one a switch and batch shape; torch goes on uncompiled beyond its limit, without a word
Forward = Callable[[Tensor], Tensor]


def compiled_step(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`run` by torch.compile, on a GPU as CUDA graphs: small models are bound by the launches of their kernels."""
    # What an earlier run of this process compiled must neither serve this one nor use up its recompilations.
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    return torch.compile(run, mode="reduce-overhead")


def training_forward(model: Classifier, precision: str = "float32", compiled: bool = False) -> Forward:
    """How a training step runs the model: images (B, ch, h, w) -> logits (B, C) in float32.

    bf16: under autocast, weights and optimizer state stay float32. compiled: see `compiled_step`; torch compiles anew
    when a map is replaced. Evaluation uses neither: every logged metric is of the float32 network.
    """
    run = compiled_step(model) if compiled else model
    device = next(model.parameters()).device.type
    dtype = PRECISIONS[precision]

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            return run(x)[0].float()

    return forward


def train_epoch(
    model: Classifier,
    dataset: Dataset,
    optimizer: Optimizer,
    batch_size: int,
    generators: dict[str, Generator],
    forward: Forward,
    part: Part | None = None,
    check: Callable[[], None] = lambda: None,
    watch: Callable[[Tensor, Tensor], bool] = lambda loss, x: False,
    world: ProcessGroup = SINGLE,
    loss: Loss = CROSS_ENTROPY,
) -> float:
    """One epoch over the train split in random order; returns the mean loss, without its penalty, of the batches'
    samples.

    The last, smaller batch is trained on too, unless it is a single sample: batch norm has no variance then. `part`
    keeps count, so that an epoch which `check` ended by raising goes on where it stopped. A batch whose loss is taken
    for the end by `watch(loss, x)`, x what the model saw of it, is the last, before its step, and its loss is returned.
    Several processes draw the same order and the same changes of images; each takes its rows of the batch, some
    of the last one none.
    """
    model.train()
    part = part or Part()
    samples, labels = dataset.train.samples, dataset.train.labels
    parameters = dict(model.named_parameters())
    penalised = [parameters[name] for name in loss.penalised(model)]
    with SummedGradients(model.parameters(), world) as gradients:
        for i, batch in enumerate(epoch_order(part, labels, generators["order"]).split(batch_size)):
            if i < part.batches or len(batch) == 1:
                continue
            check()
            rows = world.share(len(batch))
            own = batch[rows]
            # index_select: on a CPU five times as fast as indexing with a tensor
            x = dataset.inputs(samples.index_select(0, own), generators["augment"], rows, len(batch))
            own_share = loss.mean(forward(x), labels.index_select(0, own), len(batch))
            optimizer.zero_grad(set_to_none=True)
            of_batch = gradients.backward(own_share)
            if watch(of_batch, x):
                return of_batch.item()
            loss.add_gradient(penalised)  # to the sum over processes, once
            optimizer.step()
            part.count(of_batch, len(batch))
    return float(part.loss) / part.samples


def epoch_order(part: Part, labels: Tensor, generator: Generator) -> Tensor:
    """A random order of the samples, (N,): that of the epoch under way, else a new one."""
    if part.order is None:
        part.order = generator.get_state()
    else:
        generator.set_state(part.order)
    return torch.randperm(len(labels), generator=generator).to(labels.device)
