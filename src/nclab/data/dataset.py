"""A dataset is four tensors on the device: samples (images or texts) and labels of a train and a test split.

A new dataset is one module in this package, whose builder registers itself in `DATASETS`, and one YAML file
of the same name in conf/dataset/. A builder reads local files and nothing else; how they get there is the
business of `nclab.data.fetching`. What images and texts do not share is in `images.py` and `text.py`.
"""

import dataclasses
import os
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from nclab.data.split import Split
from nclab.interfaces.registry import Registry
from nclab.interfaces.shapes import ImageShape, Shape

DATASETS = Registry("dataset", "nclab.data")


class MissingDataError(FileNotFoundError):
    """The dataset's files are not under the data root; the message says which command fetches them."""

    # Not __init__, so that the error survives pickling on its way out of a cluster job.
    @classmethod
    def of(cls, name: str, root: Path, wanted: str) -> "MissingDataError":
        option = "" if root == data_root(None) else f" --root {shlex.quote(str(root))}"
        command = f"python scripts/fetch_data.py {name}{option}"
        return cls(f"{name} is not under {root} (looked for {wanted}); fetch it with: {command}")


@dataclass
class DatasetSettings:
    """The keys that every conf/dataset/*.yaml has; those of images and texts come on top."""

    name: str
    train_size: int | None = None  # samples kept of the train split: the same ones in every run; None: all
    test_size: int | None = None  # likewise of the test split


@dataclass(frozen=True)
class Dataset(ABC):
    """Both splits, and how their samples become what the model sees.

    `Dataset(...)` makes the kind that its shape says (as pathlib.Path makes a PosixPath): a TextDataset of a
    TokenShape, else an ImageDataset.

    Each kind has `augment`, the name of what `inputs` does to a training batch; "none": nothing.

    ValueError if the samples of a split are not of `shape`, a label is outside 0..num_classes-1, or a class has no
    sample (its class mean would not exist).
    """

    kinds: ClassVar[dict[type, type["Dataset"]]] = {}  # of shape -> of dataset
    noun: ClassVar[str]  # what the messages call a sample

    train: Split
    test: Split
    num_classes: int
    shape: Shape  # of one sample, as models are told

    def __init_subclass__(cls, of: type) -> None:
        Dataset.kinds[of] = cls

    def __new__(cls, *given, **named) -> "Dataset":
        if cls is Dataset:
            shape = named.get("shape", given[3] if len(given) > 3 else None)
            cls = Dataset.kinds.get(type(shape), Dataset.kinds[ImageShape])  # a plain tuple is an image's
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, split in (("train", self.train), ("test", self.test)):
            if tuple(split.samples.shape[1:]) != self.size:
                came = tuple(split.samples.shape[1:])
                raise ValueError(f"{name} split: expected {self.noun}s of shape {self.size}, got {came}")
            if len(split) == 0:
                raise ValueError(f"{name} split: expected at least one {self.noun} of every class, got no {self.noun}")
            low, high = split.labels.min().item(), split.labels.max().item()
            if low < 0 or high >= self.num_classes:
                expected = f"0 to {self.num_classes - 1}"
                raise ValueError(f"{name} split: expected labels {expected}, got {low} to {high}")
            self.check(name, split)
            counts = split.labels.bincount(minlength=self.num_classes).tolist()
            if empty := [label for label, count in enumerate(counts) if count == 0]:
                which = ", ".join(map(str, empty))
                raise ValueError(f"{name} split: expected {self.noun}s of every class, got none of class {which}")

    @property
    @abstractmethod
    def size(self) -> tuple[int, ...]:
        """Of the tensor that holds one sample."""

    @abstractmethod
    def check(self, name: str, split: Split) -> None:
        """Raise ValueError, naming the split, for samples that hold values they may not."""

    @abstractmethod
    def under(self, settings: DatasetSettings) -> "Dataset":
        """The same samples, seen as the settings say."""

    @abstractmethod
    def inputs(
        self,
        samples: Tensor,
        generator: torch.Generator | None = None,
        rows: slice = slice(None),
        of: int | None = None,
    ) -> Tensor:
        """What the model sees of a batch (B, ...) of this dataset's samples; a generator says that it is for training.
        Samples that are the `rows` of a batch of `of` change as they do in that batch."""

    def to(self, device: torch.device | str) -> "Dataset":
        held = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved = {key: value.to(device) for key, value in held.items() if isinstance(value, Split | Tensor)}
        return dataclasses.replace(self, **moved)


def data_root(configured: str | Path | None) -> Path:
    """Where datasets lie: the configured folder, else $NCLAB_DATA, else data/ in the current directory."""
    return Path(configured or os.environ.get("NCLAB_DATA") or "data")


def load_dataset(settings: DatasetSettings, root: str | Path, device: torch.device | str = "cpu") -> Dataset:
    """The dataset that the settings describe, whole on `device`. Downloads nothing.

    Plain DatasetSettings stand for the dataset's own settings with the defaults of all other keys. Raises
    MissingDataError (not under root), ChecksumError (a ValueError: a file is damaged), KeyError (unknown name),
    TypeError (settings of another kind), ValueError (files that cannot be read, sizes that do not fit; see Dataset).
    """
    if not isinstance(settings, DatasetSettings):
        raise TypeError(f"expected DatasetSettings, got {type(settings).__name__}")
    entry = DATASETS[settings.name]
    if type(settings) is DatasetSettings:
        settings = entry.settings(**vars(settings))
    if not isinstance(settings, entry.settings):
        expected = entry.settings.__name__
        raise TypeError(f"expected {expected} of dataset '{settings.name}', got {type(settings).__name__}")
    if type(settings) is DatasetSettings:
        raise TypeError(f"dataset '{settings.name}' must be registered with ImageSettings or TextSettings")
    try:
        dataset = entry.build(settings, Path(root))
    except MissingDataError:
        raise
    except OSError as error:
        raise ValueError(f"{settings.name} cannot be read: expected files under {root}, got {error}") from None
    sizes = {"train": settings.train_size, "test": settings.test_size}
    splits = {}
    for name, size in sizes.items():
        try:
            splits[name] = getattr(dataset, name).subset(size)
        except ValueError as error:
            raise ValueError(f"dataset.{name}_size of {settings.name}: {error}") from None
    try:
        dataset = dataclasses.replace(dataset, **splits)
    except ValueError as error:  # a class lost its last sample
        sizes = ", ".join(f"dataset.{name}_size={size}" for name, size in sizes.items() if size is not None)
        raise ValueError(f"{sizes} of {settings.name} leaves too few: {error}") from None
    return dataset.under(settings).to(device)
