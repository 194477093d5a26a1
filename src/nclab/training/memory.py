"""What a training keeps in memory: counted once, at its end, from what is there; nothing is counted in the loop."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from nclab.etf import ETFPolicy
from nclab.etf.state import fixed_layers
from nclab.interfaces.batch import Batch
from nclab.models import Classifier
from nclab.system.machine import out_of_memory, peak_resident_bytes
from nclab.training.feed import Feed
from nclab.training.objective import Objective
from nclab.training.optim import optimizer_bytes
from nclab.training.step import Run, batch_loss, unchanged


def memory(
    model: Classifier,
    optimizer: Optimizer,
    objective: Objective,
    policy: ETFPolicy,
    feed: Feed,
    run_of: Callable[[Classifier], Run],
    peak_of_steps: int | None,
    warn: Callable[[str], None],
) -> dict[str, Any]:
    """Bytes by what holds them, of one process at the end of a training; what `summary.json` has as `memory`.

    weights_learnable_bytes, weights_fixed_bytes, statistics_bytes: `weight_bytes`. gradients_bytes: `gradient_bytes`.
    optimizer_bytes: the optimizer's state. activations_bytes: `activation_bytes` of a batch of full size; None where
    memory runs out, which is told to `warn`. peak_bytes, peak_of: `peak`. Where layers became fixed on the way, the
    peak is that of the time before. The gradients are freed: the training is over, and the count needs room.
    """
    highest = peak(next(model.parameters()).device, peak_of_steps)  # before anything is run to be counted
    weights = weight_bytes(model)
    optimizer.zero_grad(set_to_none=True)
    return {
        "weights_learnable_bytes": weights["learnable"],
        "weights_fixed_bytes": weights["fixed"],
        "statistics_bytes": weights["statistics"],
        "gradients_bytes": gradient_bytes(model),
        "optimizer_bytes": optimizer_bytes(optimizer),
        "activations_bytes": _if_it_fits(activation_bytes, warn, model, run_of, objective, policy, feed),
        **highest,
    }


def _if_it_fits(
    count: Callable[..., int],
    warn: Callable[[str], None],
    model: Classifier,
    run_of: Callable[[Classifier], Run],
    objective: Objective,
    policy: ETFPolicy,
    feed: Feed,
) -> int | None:
    """`count`, or None where memory runs out: a training that is through must not be lost for a count."""
    try:
        return count(model, run_of, objective, first_batch(feed), policy)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        warn("memory.activations_bytes is null: out of memory while counting it; the training is not affected")
        return None


def weight_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of the network's own tensors.

    learnable: parameters that are trained. fixed: parameters that are held, and all that fixed layers store: a matrix,
    or of an implicit frame the few numbers that it was drawn as. statistics: the other buffers, as those of batch norm.
    """
    of_fixed = {id(t) for layer in fixed_layers(model).values() for t in layer.buffers()}
    found = {"learnable": 0, "fixed": 0, "statistics": 0}
    for parameter in model.parameters():
        found["learnable" if parameter.requires_grad else "fixed"] += parameter.nbytes
    for buffer in model.buffers():
        found["fixed" if id(buffer) in of_fixed else "statistics"] += buffer.nbytes
    return found


def gradient_bytes(model: nn.Module) -> int:
    """Bytes of the gradients that a step makes: a number for every number that is learnt, and none for a fixed one."""
    return sum(p.nbytes for p in model.parameters() if p.requires_grad)


def activation_bytes(
    model: Classifier,
    run_of: Callable[[Classifier], Run],
    objective: Objective,
    batch: Batch,
    policy: ETFPolicy | None = None,
) -> int:
    """Bytes that the forward pass of a training step keeps for its backward pass, besides weights and the batch.

    Measured on a copy of the network: every storage that autograd saves counts once. A layer without a gradient of its
    weight needs no input kept, unless what follows or precedes it does. In bf16 the copies of weights that autocast
    makes are weights too, and left out; a copy of the batch counts. With compile=true too, the count is that of the
    uncompiled network.
    """
    copy = deepcopy(model).train()
    weights = (*copy.parameters(), *copy.buffers())
    there = (*weights, batch.inputs, batch.targets, batch.index)
    known = {t.untyped_storage().data_ptr() for t in there}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    casts = _CastsOf(weights, known)
    before_loss = partial(policy.before_loss, copy) if policy else unchanged
    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor), casts:
        # Held, so that no storage is used a second time.
        loss, _ = batch_loss(run_of(copy), objective, batch, before_loss)
    del loss
    return sum(kept.values())


class _CastsOf(TorchDispatchMode):
    """Adds to the storages `known` those of casts of `tensors` to another dtype, and holds these: as long as one is
    held, no other tensor has its storage."""

    def __init__(self, tensors: Sequence[Tensor], known: set[int]):
        super().__init__()
        self.sources, self.known = {t.untyped_storage().data_ptr() for t in tensors}, known
        self.held: list[Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch then does not wrap __torch_dispatch__, and its compiler is not imported."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].untyped_storage().data_ptr() in self.sources:
            self.known.add(result.untyped_storage().data_ptr())
            self.held.append(result)
        return result


def first_batch(feed: Feed) -> Batch:
    """This process's part of a batch of full size, of the first rows of the train split; no generator is used."""
    split = feed.dataset.train
    size = min(feed.batch_size, len(split))
    own = feed.world.share(size)
    index = torch.arange(own.start, own.stop, device=split.targets.device)
    return Batch(feed.dataset.inputs(split.samples[own]), split.targets[own], index, size)


def begin_peak(device: torch.device | str) -> None:
    """Count the peak of a GPU from now on; the operating system's count of a process cannot be begun anew."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def allocated_peak(device: torch.device | str) -> int:
    """Bytes: the most that torch had allocated on a GPU since `begin_peak`; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else 0


def peak(device: torch.device, of_steps: int | None) -> dict[str, Any]:
    """peak_bytes, and peak_of: what they are.

    On a GPU `of_steps`: the most that torch had allocated there in the training steps of any epoch, the dataset and
    other seeds included, measurements left out; None where a resume had no epoch left to train. On a CPU the largest
    resident set of the process since it began, with Python, its libraries, the dataset, measurements and what the
    process trained before this run.
    """
    if device.type == "cuda":
        return {"peak_bytes": of_steps, "peak_of": "tensors on the GPU in training steps"}
    return {"peak_bytes": peak_resident_bytes(), "peak_of": "resident set of the process"}
