"""Any dataset of torchvision whose samples are a picture and a class: `dataset=torchvision dataset.set=KMNIST`.

Its splits are what the class takes as train=True or False, or as split="train", "test", "val" or "valid". Further
arguments of the class are given as options: `dataset.set=EMNIST dataset.options={split:balanced}`. The files are those
that torchvision keeps under dataset.path (null: the data root), and nothing is downloaded unless dataset.download=true.

`dataset.path` is part of what a run is, as it is written: the same files at another path make another run.
"""

import inspect
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nclab.data.dataset import DATASETS, Dataset, MissingDataError
from nclab.data.fetching.fetch import alone
from nclab.data.images import ImageDataset
from nclab.data.own import divided, kind_of, require_path
from nclab.data.pictures import PictureSettings, channels_of, stacked
from nclab.data.split import Split
from nclab.interfaces.shapes import ImageShape
from nclab.interfaces.valid import no_choice
from nclab.system.words import at_home

BY_SPLIT = {"train": "train", "test": "test", "val": "valid", "valid": "valid"}  # torchvision's name -> ours


@dataclass
class TorchvisionSettings(PictureSettings):
    """The keys of conf/dataset/torchvision.yaml; a value out of its range raises ValueError."""

    set: str = field(kw_only=True)  # name of a class in torchvision.datasets
    path: str | None = None  # folder of its files, ~ included; part of the name of a run; null: data_root
    download: bool = False  # true: download files that are not there
    options: dict[str, Any] | None = None  # further arguments of the class: {split: balanced} of EMNIST

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.set.isidentifier():
            raise ValueError(f"dataset.set must be a class of torchvision.datasets, such as KMNIST; got {self.set!r}")
        if self.path is not None:
            require_path(self.path, "a folder")


def parameters_of(kind: type) -> set[str]:
    """Names that the class takes, those that it passes on to its parents included."""
    return {name for parent in kind.__mro__ if parent is not object for name in inspect.signature(parent).parameters}


def class_named(name: str) -> type:
    """The class of torchvision. Raises ValueError for one without a train split."""
    from torchvision import datasets  # here, because it takes seconds and no other dataset needs it

    kinds = {held: getattr(datasets, held) for held in datasets.__all__}
    valid = [
        held for held, kind in kinds.items() if isinstance(kind, type) and {"train", "split"} & parameters_of(kind)
    ]
    if name not in valid:
        raise no_choice("dataset.set", name, sorted(valid))
    return kinds[name]


def held_splits(kind: type, settings: TorchvisionSettings, root: Path) -> Iterator[tuple[str, Any]]:
    """(our name of the split, torchvision's dataset) of every split that there is."""
    takes = parameters_of(kind)
    given = {**(settings.options or {}), **({"download": settings.download} if "download" in takes else {})}
    if "train" in takes:
        ways = [(split, {"train": split == "train"}) for split in ("train", "test")]
    else:
        ways = [(ours, {"split": theirs}) for theirs, ours in BY_SPLIT.items()]
    for split, way in ways:
        try:
            yield split, kind(root, **way, **given)
        except TypeError as error:
            raise ValueError(f"dataset.options of {settings.set}: {error}") from None
        except (RuntimeError, OSError) as error:
            hint = "" if settings.download else "; dataset.download=true fetches what torchvision can"
            raise MissingDataError(f"{settings.set} is not under {root}{hint} ({error})") from None
        except ValueError as error:
            # What torchvision says of a split that this class has not.
            if split == "train" or not str(error).startswith("Unknown value"):
                raise ValueError(f"{settings.set}: {error}") from None


def read_split(held: Any, name: str, channels: int | None, size: int | None, convert: bool) -> Split:
    """Pictures and class numbers of torchvision's dataset. ValueError, naming the sample, for others."""
    pictures, targets = [], []
    for row in range(len(held)):
        picture, target = held[row]
        if not isinstance(picture, Image.Image) or not isinstance(target, int | np.integer):
            came = f"{type(picture).__name__} and {type(target).__name__}"
            raise ValueError(f"{name}: expected a picture and a class number, got {came} in sample {row}")
        pictures.append(picture)
        targets.append(int(target))
    labels = [f"{name}, picture {row}" for row in range(len(pictures))]
    samples = stacked(pictures, labels, channels or channels_of(pictures[0]), size, convert)
    return Split(samples, torch.tensor(targets))


@DATASETS.add("torchvision", TorchvisionSettings)
def build(settings: TorchvisionSettings, root: Path) -> ImageDataset:
    kind = class_named(settings.set)
    place = root if settings.path is None else Path(at_home(settings.path))
    splits, classes = {}, None
    # Several processes of one run would write the same files.
    with alone(f"torchvision-{settings.set}", place) if settings.download else nullcontext():
        for split, held in held_splits(kind, settings, place):
            channels = settings.channels or (splits["train"].samples.shape[1] if splits else None)
            convert = settings.channels is not None
            splits[split] = read_split(held, f"{settings.set} {split}", channels, settings.size, convert)
            classes = classes or getattr(held, "classes", None)
    train = splits["train"]
    count = int(train.targets.max()) + 1
    named = isinstance(classes, list | tuple) and len(classes) == count and all(isinstance(n, str) for n in classes)
    targets = kind_of(train.targets, tuple(classes) if named else None)
    try:
        return Dataset(divided(splits, settings.test_size), targets, ImageShape(*train.samples.shape[1:]))
    except ValueError as error:
        raise ValueError(f"{settings.set}: {error}") from None
