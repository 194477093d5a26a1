"""A dataset is tensors on the device: samples (images, texts, arrays or row numbers) and targets of each split.

A new dataset is one module in this package, whose builder registers itself in `DATASETS`, and one YAML file
of the same name in conf/dataset/. A builder reads local files and nothing else; how they get there is the
business of `nclab.data.fetching`. What the kinds do not share is in `images.py`, `text.py` and `arrays.py`.
"""

import dataclasses
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from nclab.data.cut import cut
from nclab.data.held_out import ClassSplit, divided
from nclab.data.imbalance import Imbalance
from nclab.data.label_noise import noisy_labels, require_share
from nclab.data.split import Split
from nclab.interfaces.registry import Registry
from nclab.interfaces.shapes import ImageShape, Shape
from nclab.interfaces.targets import Classes, Targets
from nclab.system.words import at_home

DATASETS = Registry("dataset", "nclab.data")
CLEAN = "train_clean"  # with label noise: the split of the train samples with their true labels


class MissingDataError(FileNotFoundError):
    """The dataset's files are not under the data root; the message says which command fetches them."""

    # Not __init__, so that the error survives pickling on its way out of a cluster job.
    @classmethod
    def of(cls, name: str, root: Path, wanted: str) -> "MissingDataError":
        option = "" if root == data_root(None) else f" --root {shlex.quote(str(root))}"
        command = f"nclab-data fetch {name}{option}"
        return cls(f"{name} is not under {root} (looked for {wanted}); fetch it with: {command}")


@dataclass
class DatasetSettings:
    """The keys that every conf/dataset/*.yaml has; those of images, texts and arrays come on top."""

    name: str
    # samples kept of the train split: a fixed stratified subset, the same for every seed; null: all
    train_size: int | None = None
    test_size: int | None = None  # likewise of the test split
    # samples taken out of train, likewise, as split valid, by which a sweep may be judged; null: none
    valid_size: int | None = None
    # samples of the largest class of train, class 0, over those of the smallest, the last; class 0 is as large as the
    # data allow, before train_size; null: as the data are
    imbalance: float | None = None
    # between them: exponential | step (the first half of the classes is large, the second small)
    imbalance_profile: str = "exponential"
    # share of the train labels that become another class, the same for every seed; 1: all are drawn anew. Of the whole
    # split: under train_size and valid_size about this share. Accuracy on the true labels is that of split train_clean
    label_noise: float = 0.0
    # number of classes that are learnt, drawn by class_split, before all of the above; of the others the test samples
    # are held out (metrics.suite few_shot and ood); null: all are learnt
    source_classes: int | None = None
    class_split: int = 0  # seed of that draw, the same for every seed of a run
    source_list: list[int] | None = None  # or these classes, renumbered in this order, such as [0,1,2,3,4,5]

    def __post_init__(self) -> None:
        self.split_of_classes()
        require_share(self.label_noise)
        if self.imbalance is not None:
            Imbalance(self.imbalance, self.imbalance_profile)
        elif self.imbalance_profile != "exponential":
            raise ValueError(f"dataset.imbalance_profile={self.imbalance_profile} needs dataset.imbalance; got null")

    def split_of_classes(self) -> ClassSplit:
        """Which classes are learnt. Raises ValueError for keys that mean nothing."""
        return ClassSplit(
            self.source_classes, self.class_split, None if self.source_list is None else [*self.source_list]
        )

    @property
    def standardizes(self) -> bool:
        """Whether the model sees samples minus the mean, over the std of the train split."""
        return False

    @property
    def augmentation(self) -> str:
        """What happens to a training batch; a key of AUGMENTATIONS."""
        return "none"


@dataclass(frozen=True)
class Dataset(ABC):
    """Splits of samples with targets of one kind, and how the samples become what the model sees.

    `Dataset(...)` makes the kind that its shape says (as pathlib.Path makes a PosixPath): a TextDataset of a
    TokenShape, an ArrayDataset of an ArrayShape, an IndexDataset of an IndexShape, else an ImageDataset.

    Each kind has `augment`, the name of what `inputs` does to a training batch; "none": nothing.

    ValueError if there is no split "train", a split has no sample or samples that are not of `shape`, targets are not
    of the kind of `targets`, or a class has no sample in train (its class mean would not exist). Other splits may lack
    classes.
    """

    kinds: ClassVar[dict[type, type["Dataset"]]] = {}  # of shape -> of dataset
    noun: ClassVar[str]  # what the messages call a sample
    dtypes: ClassVar[tuple[torch.dtype, ...]]  # that samples may have

    splits: Mapping[str, Split]  # "train" always, first; "test", "valid" and others where the data have them
    targets: Targets
    shape: Shape  # of one sample, as models are told
    # samples of none of the classes: of another dataset, their targets mean nothing (`nclab.data.outside`); or of held-
    # out classes, which their targets number (`nclab.data.held_out`)
    outside: Split | None = dataclasses.field(default=None, kw_only=True)
    held_out: int = dataclasses.field(default=0, kw_only=True)  # how many classes these are; 0: another dataset's
    # of what `inputs` makes of pixels; of arrays and values `cast` makes them so
    floats: torch.dtype = dataclasses.field(default=torch.float32, kw_only=True)

    def __init_subclass__(cls, of: type) -> None:
        Dataset.kinds[of] = cls

    def __new__(cls, *given: Any, **named: Any) -> "Dataset":
        if cls is Dataset:
            shape = named.get("shape", given[2] if len(given) > 2 else None)
            cls = Dataset.kinds.get(type(shape), Dataset.kinds[ImageShape])  # a plain tuple is an image's
        return super().__new__(cls)

    def __post_init__(self) -> None:
        if "train" not in self.splits:
            raise ValueError(f"expected a split train, got {', '.join(self.splits) or 'none'}")
        # Train comes first, wherever it is given: measures are taken and written in this order.
        object.__setattr__(self, "splits", {"train": self.splits["train"], **self.splits})
        for name, split in self.splits.items():
            try:
                self._check_split(split)
            except ValueError as error:
                raise ValueError(f"{name} split: {error}") from None
        if self.outside is not None:
            self._check_samples(self.outside.samples)
        groups = self.targets.groups(self.train.targets)
        if groups is not None:
            counts = groups.bincount(minlength=self.targets.dim).tolist()
            if empty := [label for label, count in enumerate(counts) if count == 0]:
                which = ", ".join(map(str, empty))
                raise ValueError(f"train split: expected {self.noun}s of every class, got none of class {which}")

    def _check_split(self, split: Split) -> None:
        self._check_samples(split.samples)
        self.targets.check(split.targets)

    def _check_samples(self, samples: Tensor) -> None:
        if samples.dtype not in self.dtypes or tuple(samples.shape[1:]) != self.size:
            kind = "" if samples.dtype in self.dtypes else f" of {samples.dtype}"
            raise ValueError(f"expected {self.noun}s of shape {self.size}, got {tuple(samples.shape[1:])}{kind}")
        if len(samples) == 0:
            raise ValueError(f"expected at least one {self.noun}, got no {self.noun}")
        self.check(samples)

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    @abstractmethod
    def size(self) -> tuple[int, ...]:
        """Of the tensor that holds one sample."""

    @abstractmethod
    def check(self, samples: Tensor) -> None:
        """Raise ValueError for samples that hold values they may not."""

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
        return self._changed(lambda tensor: tensor.to(device))

    def cast(self, floats: torch.dtype) -> "Dataset":
        """The same dataset in another precision, float32 or float64: samples and targets that are floats, and what
        `inputs` gives. Called once, so that no training step casts."""
        change = lambda tensor: tensor.to(floats) if tensor.is_floating_point() else tensor  # noqa: E731
        return self._changed(change, floats)

    def _changed(self, change: Callable[[Tensor], Tensor], floats: torch.dtype | None = None) -> "Dataset":
        """The dataset with every tensor changed; splits that share their samples still do."""
        held = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed: dict[str, Any] = {key: change(value) for key, value in held.items() if isinstance(value, Tensor)}
        samples = {id(split.samples): change(split.samples) for split in self.splits.values()}
        changed["splits"] = {
            name: Split(samples[id(split.samples)], change(split.targets)) for name, split in self.splits.items()
        }
        if self.outside is not None:
            changed["outside"] = Split(change(self.outside.samples), change(self.outside.targets))
        return dataclasses.replace(self, **changed, floats=floats or self.floats)


def data_root(configured: str | Path | None) -> Path:
    """Where datasets lie: the configured folder, else $NCLAB_DATA, else data/ in the current directory."""
    return Path(at_home(str(configured or os.environ.get("NCLAB_DATA") or "data")))


def load_dataset(
    settings: DatasetSettings,
    root: str | Path,
    device: torch.device | str = "cpu",
    floats: torch.dtype = torch.float32,
) -> Dataset:
    """The dataset that the settings describe, whole on `device`, in the precision `floats`. Downloads nothing.

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
    try:
        dataset = entry.build(settings, Path(root))
    except MissingDataError:
        raise
    except OSError as error:
        raise ValueError(f"{settings.name} cannot be read: expected files under {root}, got {error}") from None
    return as_settings_say(dataset, settings, floats).to(device)


def as_settings_say(dataset: Dataset, settings: DatasetSettings, floats: torch.dtype = torch.float32) -> Dataset:
    """A dataset as its builder makes it, with the classes, labels, sizes and precision of the settings. Raises
    ValueError where they do not fit it."""
    dataset = _of_source_classes(dataset, settings)
    noisy = _noisy_targets(dataset, settings)
    kept = _sized(dataset, settings)
    if noisy is not None:
        kept = _with_noise(kept, noisy[_kept_rows(dataset, settings)], settings)
    return kept.cast(floats).under(settings)


def _of_source_classes(dataset: Dataset, settings: DatasetSettings) -> Dataset:
    """The dataset with the source classes of the settings alone, and samples of the others outside."""
    split = settings.split_of_classes()
    if split.key is None:
        return dataset
    try:
        if not isinstance(dataset.targets, Classes):
            raise ValueError(f"expected targets that are classes, got {type(dataset.targets).__name__.lower()}")
        count = dataset.targets.count
        source = split.source_of(count)
        splits, outside = divided(dataset.splits, source, count)
        held_out = count - len(source)
        return dataclasses.replace(
            dataset, splits=splits, targets=Classes(len(source)), outside=outside, held_out=held_out
        )
    except ValueError as error:
        raise ValueError(f"{split.key} of {settings.name}: {error}") from None


def _sized(dataset: Dataset, settings: DatasetSettings) -> Dataset:
    """The dataset with its splits as large as the settings say."""
    if settings.imbalance is not None and not isinstance(dataset.targets, Classes):
        kind = type(dataset.targets).__name__.lower()
        raise ValueError(f"dataset.imbalance of {settings.name}: expected targets that are classes, got {kind}")
    splits = _cut(dataset, dataset.splits, settings)
    try:
        return dataclasses.replace(dataset, splits=splits)
    except ValueError as error:  # a class lost its last sample
        keys = ", ".join(f"dataset.{name}_size={size}" for name, size in _sizes(settings).items())
        raise ValueError(f"{keys} of {settings.name} leaves too few: {error}") from None


def _sizes(settings: DatasetSettings) -> dict[str, int]:
    """Split -> the size that the settings give it."""
    sizes = {"valid": settings.valid_size, "train": settings.train_size, "test": settings.test_size}
    return {name: size for name, size in sizes.items() if size is not None}


def _cut(dataset: Dataset, splits: Mapping[str, Split], settings: DatasetSettings) -> dict[str, Split]:
    """`cut` as the settings say; `splits` are those of the dataset, or hold rows for samples."""
    imbalance = None
    if settings.imbalance is not None:
        imbalance = Imbalance(settings.imbalance, settings.imbalance_profile)
    return cut(splits, _sizes(settings), imbalance, dataset.targets.dim, settings.name)


def _kept_rows(dataset: Dataset, settings: DatasetSettings) -> Tensor:
    """Rows of the whole train split that `_cut` keeps (N,)."""
    targets = dataset.train.targets
    rows = {**dataset.splits, "train": Split(torch.arange(len(targets)), targets)}
    return _cut(dataset, rows, settings)["train"].samples


def _noisy_targets(dataset: Dataset, settings: DatasetSettings) -> Tensor | None:
    """The labels (N,) of the whole train split with the label noise of the settings; None: there is none.

    Drawn before anything cuts the split: a sample has the same label at every imbalance, train_size and valid_size.
    """
    if not settings.label_noise:
        return None
    where = f"dataset.label_noise of {settings.name}"
    if not isinstance(dataset.targets, Classes):
        raise ValueError(f"{where}: expected targets that are classes, got {type(dataset.targets).__name__.lower()}")
    if CLEAN in dataset.splits:
        raise ValueError(f"{where}: the data have a split {CLEAN} already, the name of train with its true labels")
    return noisy_labels(dataset.train.targets, settings.label_noise, dataset.targets.count)


def _with_noise(dataset: Dataset, noisy: Tensor, settings: DatasetSettings) -> Dataset:
    """The dataset with the labels `noisy` (N,) of its train samples. All other splits keep their labels; CLEAN holds
    the train samples with their true labels."""
    train = dataset.train
    said = f"dataset.label_noise={settings.label_noise} of {settings.name}"
    if torch.equal(noisy, train.targets):
        raise ValueError(
            f"{said} changes none of the {len(train)} train labels; expected a share that changes one at least, or "
            "0 for none"
        )
    splits = {**dataset.splits, "train": Split(train.samples, noisy), CLEAN: train}
    try:
        return dataclasses.replace(dataset, splits=splits)
    except ValueError as error:  # a class lost its last label
        raise ValueError(f"{said} leaves too few: {error}") from None
