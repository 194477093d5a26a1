"""Fixed random subsets. Those of labelled samples keep the proportions of the classes."""

import torch
from torch import Tensor

# One seed for every split and subset of the house: which images a run sees is part of the dataset, not of
# the run, so runs that differ in seed are compared on the same images.
SUBSET_SEED = 0


def stratified_indices(labels: Tensor, size: int) -> Tensor:
    """Indices of `size` of the labels (N,), ascending, each class in proportion.

    Class c gets n_c * size / N images; the fractions are settled by largest remainder, ties to the smaller
    class number. ValueError unless 1 <= size <= N, and for labels below 0.
    """
    total = _checked_total(labels, size)
    if (lowest := int(labels.min())) < 0:
        raise ValueError(f"expected labels from 0 on, got {lowest}")
    share = labels.bincount() * size
    quota = share // total  # (C,)
    neediest = (share % total).argsort(descending=True, stable=True)
    quota[neediest[: size - int(quota.sum())]] += 1

    return (ranks_in_class(labels) < quota[labels]).nonzero().flatten()


def ranks_in_class(labels: Tensor) -> Tensor:
    """Place of each of the labels (N,) among those of its class, from 0, in one random order: always the same one."""
    shuffled = _shuffled(len(labels))
    grouped = shuffled[labels[shuffled].argsort(stable=True)]  # by class, in random order within one
    counts = labels.bincount()
    ranks = torch.empty_like(labels)
    ranks[grouped] = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[grouped]]
    return ranks


def subset_indices(targets: Tensor, size: int) -> Tensor:
    """Indices of `size` of the targets, ascending: stratified for classes (N,), plainly random for values (N, n).

    ValueError unless 1 <= size <= N.
    """
    if targets.ndim == 1:
        return stratified_indices(targets, size)
    return _shuffled(_checked_total(targets, size))[:size].sort().values


def _checked_total(targets: Tensor, size: int) -> int:
    if not 1 <= size <= len(targets):
        raise ValueError(f"subset size must be between 1 and {len(targets)}, got {size}")
    return len(targets)


def _shuffled(total: int) -> Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(SUBSET_SEED))
