"""Samples of none of a dataset's classes: those of another dataset, seen as this one's are."""

import dataclasses
from pathlib import Path

import torch

from nclab.data.dataset import DATASETS, Dataset, DatasetSettings, load_dataset
from nclab.interfaces.valid import no_choice


def load_with_outside(
    settings: DatasetSettings,
    root: str | Path,
    device: torch.device | str,
    outside: str | None,
    floats: torch.dtype = torch.float32,
) -> Dataset:
    """`load_dataset`, with `outside` the test split (train, where it has none) of the dataset of that name under the
    defaults of its keys; None: without.

    Raises what `load_dataset` does, and ValueError for a name that is unknown, this dataset's own or that of a dataset
    with a key that has no default (npz, image_folder, torchvision), for samples of another shape or range, and beside
    held-out classes.
    """
    if outside is not None:
        _require_other(outside, settings.name)
        if key := settings.split_of_classes().key:
            raise ValueError(
                f"{key} holds out classes, which are the samples of none of the classes; leave out "
                f"metrics.ood_dataset, got {outside}"
            )
    dataset = load_dataset(settings, root, device, floats)
    if outside is None:
        return dataset
    other = load_dataset(DATASETS[outside].settings(name=outside), root, device, floats)
    split = other.splits.get("test", other.train)
    try:
        return dataclasses.replace(dataset, outside=split)
    except ValueError as error:
        raise ValueError(f"metrics.ood_dataset={outside}: {error}, beside dataset={settings.name}") from None


def _require_other(outside: str, own: str) -> None:
    """Raise ValueError where `outside` is no dataset that its name alone describes, or is the run's own."""
    if outside in DATASETS.names() and outside != own and not _needs_keys(outside):
        return
    raise no_choice(
        "metrics.ood_dataset", outside, [name for name in DATASETS.names() if name != own and not _needs_keys(name)]
    )


def _needs_keys(name: str) -> bool:
    """Whether a key of this dataset, besides its name, has no default."""
    return any(
        field.default is field.default_factory is dataclasses.MISSING and field.name != "name"
        for field in dataclasses.fields(DATASETS[name].settings)
    )
