"""Source classes, which are learnt, and held-out classes, on which a trained network's features are judged."""

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nclab.data.split import Split
from nclab.interfaces.targets import Classes
from nclab.interfaces.valid import OutOfRange

if TYPE_CHECKING:
    from nclab.data.dataset import Dataset, DatasetSettings


def require_class_split(settings: "DatasetSettings") -> None:
    """Raise ValueError for keys of held-out classes that mean nothing, whatever the dataset."""
    s = settings
    if s.source_classes is not None and s.source_list is not None:
        raise ValueError(
            "dataset.source_list and dataset.source_classes both choose the classes that are learnt; leave out one, "
            f"got {s.source_list} and {s.source_classes}"
        )
    if s.source_classes is not None and s.source_classes < 2:
        raise OutOfRange(f"dataset.source_classes must be at least 2, got {s.source_classes}", "dataset.source_classes")
    if s.source_list is not None and (len(s.source_list) < 2 or len(set(s.source_list)) < len(s.source_list)):
        raise ValueError(f"dataset.source_list: expected two or more different classes, got {list(s.source_list)}")
    if not 0 <= s.class_split < 2**63:
        said = f"dataset.class_split must be between 0 and 2^63 - 1, got {s.class_split}"
        raise OutOfRange(said, "dataset.class_split")
    if s.class_split and s.source_classes is None:
        raise ValueError(
            f"dataset.class_split={s.class_split} needs dataset.source_classes, the number of classes that it draws"
        )


def key_of(settings: "DatasetSettings") -> str | None:
    """The key by which classes are held out; None: none are."""
    for key in ("source_classes", "source_list"):
        if getattr(settings, key) is not None:
            return f"dataset.{key}"
    return None


def with_held_out(dataset: "Dataset", settings: "DatasetSettings") -> "Dataset":
    """The dataset with the source classes of the settings alone, numbered from 0: those of a list in its order, drawn
    ones in the order of their numbers. `outside` are the samples of all others in the test split (in train, where there
    is none), whose targets number these classes from 0, and `held_out` is how many classes they are.

    Raises ValueError for classes that this dataset has not, and where none is left to hold out.
    """
    key = key_of(settings)
    if key is None:
        return dataset
    where = f"{key} of {settings.name}"
    if not isinstance(dataset.targets, Classes):
        raise ValueError(f"{where}: expected targets that are classes, got {type(dataset.targets).__name__.lower()}")
    count = dataset.targets.count
    if settings.source_list is not None:
        source = list(settings.source_list)
        if not all(0 <= label < count for label in source):
            raise ValueError(f"{where}: expected classes in 0..{count - 1}, got {source}")
    else:
        generator = torch.Generator().manual_seed(settings.class_split)
        source = torch.randperm(count, generator=generator)[: settings.source_classes].sort().values.tolist()
    chosen = settings.source_classes or len(source)
    if not chosen < count:
        raise ValueError(
            f"{where}: expected 2 to {count - 1} of its {count} classes, so that one is held out, got {chosen}"
        )
    held_out = [label for label in range(count) if label not in source]
    splits = {name: _of_classes(split, source, count) for name, split in dataset.splits.items()}
    pool = _of_classes(dataset.splits.get("test", dataset.train), held_out, count)
    try:
        return dataclasses.replace(
            dataset, splits=splits, targets=Classes(len(source)), outside=pool, held_out=len(held_out)
        )
    except ValueError as error:  # a split has none of these classes
        raise ValueError(f"{where}: {error}") from None


def _of_classes(split: Split, classes: list[int], count: int) -> Split:
    """The samples of these classes, whose targets become their places in the list."""
    place: Tensor = torch.full((count,), -1)
    place[torch.tensor(classes)] = torch.arange(len(classes))
    targets = place[split.targets]
    there = targets >= 0
    return Split(split.samples[there], targets[there])
