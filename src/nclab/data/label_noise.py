"""Wrong train labels: symmetric label noise, up to random labels."""

import torch
from torch import Tensor

# One seed for every run, as for subsets (see `stratify`): which labels are wrong is part of the dataset, so that runs
# which differ in policy or seed learn the same labels.
LABEL_NOISE_SEED = 1


def require_share(share: float) -> None:
    """Raise ValueError unless 0 <= share <= 1."""
    if not 0 <= share <= 1:
        raise ValueError(f"dataset.label_noise is a share of the train labels: expected 0 to 1, got {share}")


def noisy_labels(labels: Tensor, share: float, classes: int) -> Tensor:
    """The labels (N,), of which a share is replaced; the same for the same N, share and number of classes C.

    0 <= share < 1: exactly round(share * N) labels are wrong. Which ones is drawn uniformly, and each becomes one of
    the C - 1 other classes with the same probability (symmetric noise). A larger share keeps the wrong labels of a
    smaller one.
    share 1: random labels. Every label is drawn anew from all C classes, so that about N / C are right by chance and a
    label says nothing about its sample (at a share just below 1 it still says which class it is not).

    Raises ValueError for a share out of range, and for noise where C < 2.

    >>> noisy_labels(torch.tensor([0, 1, 2, 0, 1, 2]), 0.5, classes=3).ne(torch.tensor([0, 1, 2, 0, 1, 2])).sum().item()
    3
    """
    require_share(share)
    if not share:
        return labels.clone()
    if classes < 2:
        raise ValueError(f"dataset.label_noise: expected two classes or more, got {classes}")
    total = len(labels)
    generator = torch.Generator().manual_seed(LABEL_NOISE_SEED)
    if share == 1:
        return torch.randint(classes, (total,), generator=generator)
    order = torch.randperm(total, generator=generator)
    steps = torch.randint(1, classes, (total,), generator=generator)  # of all samples, whatever the share
    noisy = labels.clone()
    wrong = order[: round(share * total)]
    noisy[wrong] = (labels[wrong] + steps[wrong]) % classes
    return noisy
