"""What a training keeps in memory: counted once, at its end, from what is there; nothing is counted in the loop."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from nclab.etf.state import fixed_layers
from nclab.interfaces.batch import Batch
from nclab.models import Classifier
from nclab.system.machine import peak_resident_bytes
from nclab.training.feed import Feed
from nclab.training.objective import Objective
from nclab.training.optim import optimizer_bytes
from nclab.training.step import Run, batch_loss


def memory(
    model: Classifier, optimizer: Optimizer, objective: Objective, feed: Feed, run_of: Callable[[Classifier], Run]
) -> dict[str, Any]:
    """Bytes by what holds them, of one process at the end of a training; what `summary.json` has as `memory`.

    weights_learnable_bytes, weights_fixed_bytes, statistics_bytes: `weight_bytes`. gradients_bytes: `gradient_bytes`.
    optimizer_bytes: the optimizer's state. activations_bytes: `activation_bytes` of a batch of full size. peak_bytes,
    peak_of: `peak`. Where layers became fixed on the way, the peak is that of the time before.
    """
    highest = peak(next(model.parameters()).device)  # before anything is run to be counted
    weights = weight_bytes(model)
    return {
        "weights_learnable_bytes": weights["learnable"],
        "weights_fixed_bytes": weights["fixed"],
        "statistics_bytes": weights["statistics"],
        "gradients_bytes": gradient_bytes(model),
        "optimizer_bytes": optimizer_bytes(optimizer),
        "activations_bytes": activation_bytes(model, run_of, objective, first_batch(feed)),
        **highest,
    }


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


def activation_bytes(model: Classifier, run_of: Callable[[Classifier], Run], objective: Objective, batch: Batch) -> int:
    """Bytes that the forward pass of a training step keeps for its backward pass, besides weights and the batch.

    Measured on a copy of the network: every storage that autograd saves counts once. A layer without a gradient of its
    weight needs no input kept, unless what follows or precedes it does.
    """
    copy = deepcopy(model).train()
    there = (*copy.parameters(), *copy.buffers(), batch.inputs, batch.targets, batch.index)
    known = {t.untyped_storage().data_ptr() for t in there}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        loss, _ = batch_loss(run_of(copy), objective, batch)  # held, so that no storage is used a second time
    del loss
    return sum(kept.values())


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


def peak(device: torch.device) -> dict[str, Any]:
    """peak_bytes, and peak_of: what they are.

    On a GPU the most that torch had allocated there since `begin_peak`, the dataset and other seeds included. On a CPU
    the largest resident set of the process since it began, with Python, its libraries, the dataset and what the process
    trained before this run.
    """
    if device.type == "cuda":
        return {"peak_bytes": torch.cuda.max_memory_allocated(device), "peak_of": "tensors on the GPU"}
    return {"peak_bytes": peak_resident_bytes(), "peak_of": "resident set of the process"}
