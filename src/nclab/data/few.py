"""A dataset of a few samples, to see whether a run works at all."""

import dataclasses

import torch
from torch import Tensor

from nclab.data.dataset import Dataset
from nclab.data.split import Split
from nclab.data.stratify import ranks_in_class, subset_indices

LEAST = 2  # samples of a class: one alone has no variability within the class


def few(dataset: Dataset, size: int) -> Dataset:
    """The dataset with at most `size` samples of every split, or LEAST of each class where that is more, and without
    augmentation: always the same ones, in proportion to the classes.

    Splits that share their samples still do. Samples of held-out classes stay, for a metric may ask for so many of
    each.
    """
    kept: dict[int, tuple[Tensor, Tensor]] = {}  # id of samples -> rows, these samples
    splits = {}
    for name, split in dataset.splits.items():
        if id(split.samples) not in kept:
            rows = _rows(split.targets.cpu(), size).to(split.targets.device)
            kept[id(split.samples)] = rows, split.samples[rows]
        rows, samples = kept[id(split.samples)]
        splits[name] = Split(samples, split.targets[rows])
    changed: dict[str, object] = {"splits": splits}
    if dataset.outside is not None and not dataset.held_out:
        changed["outside"] = dataset.outside[torch.arange(min(size, len(dataset.outside)))]
    if any(field.name == "augment" for field in dataclasses.fields(dataset)):
        changed["augment"] = "none"
    return dataclasses.replace(dataset, **changed)


def _rows(targets: Tensor, size: int) -> Tensor:
    """Rows (n,) of a split with these targets, ascending."""
    size = min(size, len(targets))
    if targets.ndim > 1:
        return subset_indices(targets, size)
    counts = targets.bincount()
    quota = targets[subset_indices(targets, size)].bincount(minlength=len(counts)).maximum(counts.clamp(max=LEAST))
    for _ in range(int(quota.sum()) - size):
        largest = int(quota.argmax())
        if quota[largest] <= LEAST:
            break
        quota[largest] -= 1
    return (ranks_in_class(targets) < quota[targets]).nonzero().flatten()
