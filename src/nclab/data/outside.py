"""Samples of none of a dataset's classes: those of another dataset, seen as this one's are."""

import dataclasses
from pathlib import Path

import torch

from nclab.data.dataset import DATASETS, Dataset, DatasetSettings, load_dataset
from nclab.interfaces.valid import no_choice


def load_with_outside(
    settings: DatasetSettings, root: str | Path, device: torch.device | str, outside: str | None
) -> Dataset:
    """`load_dataset`, with `outside` the test split (train, where it has none) of the dataset of that name under the
    defaults of its keys; None: without.

    Raises what `load_dataset` does, and ValueError for an unknown name and for samples of another shape or range.
    """
    dataset = load_dataset(settings, root, device)
    if outside is None:
        return dataset
    if outside not in DATASETS.names():
        raise no_choice("metrics.ood_dataset", outside, DATASETS.names())
    other = load_dataset(DATASETS[outside].settings(name=outside), root, device)
    split = other.splits.get("test", other.train)
    try:
        return dataclasses.replace(dataset, outside=split)
    except ValueError as error:
        raise ValueError(f"metrics.ood_dataset={outside}: {error}, beside dataset={settings.name}") from None
