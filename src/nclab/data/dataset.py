"""A dataset is four tensors on the device: uint8 images and labels of a train and a test split.

A new dataset is one module in this package, whose builder registers itself in `DATASETS`, and one YAML file
of the same name in conf/dataset/. A builder reads local files and nothing else; how they get there is the
business of `nclab.data.fetching`.
"""

import dataclasses
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nclab.data.augment import AUGMENTATIONS
from nclab.data.stratify import stratified_indices
from nclab.registry import Registry

DATASETS = Registry("dataset", "nclab.data")
PIXELS = ("unit", "standardize")


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
    """The keys of conf/dataset/*.yaml; a value outside its choices raises ValueError."""

    name: str
    train_size: int | None = None  # images kept of the train split: the same ones in every run; None: all
    test_size: int | None = None  # likewise of the test split
    pixels: str = "unit"  # unit: [0, 1] | standardize: minus mean, over std of the train split, per channel
    augment: str = "none"  # none | crop_flip: shift by up to 4 pixels, mirror; training batches only

    def __post_init__(self) -> None:
        for key, choices in {"pixels": PIXELS, "augment": AUGMENTATIONS}.items():
            if getattr(self, key) not in choices:
                valid = ", ".join(choices)
                raise ValueError(f"dataset.{key}: expected one of {valid}; got '{getattr(self, key)}'")


@dataclass(frozen=True)
class Split:
    """Samples and their labels, row by row; ValueError if dtype, shape or count is wrong."""

    samples: Tensor  # (N, ch, h, w) uint8
    labels: Tensor  # (N,) int64

    def __post_init__(self) -> None:
        for field, dims, dtype in (("samples", 4, torch.uint8), ("labels", 1, torch.int64)):
            tensor = getattr(self, field)
            if tensor.ndim != dims or tensor.dtype != dtype:
                came = f"{tensor.ndim} of {tensor.dtype}"
                raise ValueError(f"{field}: expected {dims} dimensions of {dtype}, got {came}")
        if len(self.samples) != len(self.labels):
            raise ValueError(f"expected one label a sample, got {len(self.samples)} and {len(self.labels)}")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        return Split(self.samples.to(device), self.labels.to(device))

    def subset(self, size: int | None) -> "Split":
        """A fixed stratified subset, the same for every seed of a run; None keeps all."""
        if size is None:
            return self
        chosen = stratified_indices(self.labels, size)
        return Split(self.samples[chosen], self.labels[chosen])

    def divide(self, test_size: int) -> tuple["Split", "Split"]:
        """Fixed stratified (train, test) of a set that comes undivided."""
        held_out = torch.zeros(len(self), dtype=torch.bool)
        held_out[stratified_indices(self.labels, test_size)] = True
        kept = ~held_out
        return (
            Split(self.samples[kept], self.labels[kept]),
            Split(self.samples[held_out], self.labels[held_out]),
        )


@dataclass(frozen=True)
class Dataset:
    """Both splits, and how their uint8 pixels become what the model sees.

    ValueError if the images of a split are not of `shape`, a pixel exceeds `pixel_max`, a label is outside
    0..num_classes-1, or a class has no image (its class mean would not exist).
    """

    train: Split
    test: Split
    num_classes: int
    shape: tuple[int, int, int]  # (ch, h, w)
    pixel_max: int = 255  # the pixel value that becomes 1.0
    augment: str = "none"
    mean: Tensor | None = None  # (ch, 1, 1) float32, of pixels in [0, 1]; None: pixels stay in [0, 1]
    std: Tensor | None = None  # (ch, 1, 1) float32

    def __post_init__(self) -> None:
        for name, split in (("train", self.train), ("test", self.test)):
            if tuple(split.samples.shape[1:]) != tuple(self.shape):
                came = tuple(split.samples.shape[1:])
                raise ValueError(f"{name} split: expected images of shape {tuple(self.shape)}, got {came}")
            if len(split) == 0:
                raise ValueError(f"{name} split: expected at least one image of every class, got no image")
            low, high = split.labels.min().item(), split.labels.max().item()
            if low < 0 or high >= self.num_classes:
                expected = f"0 to {self.num_classes - 1}"
                raise ValueError(f"{name} split: expected labels {expected}, got {low} to {high}")
            if (brightest := split.samples.max().item()) > self.pixel_max:
                raise ValueError(f"{name} split: expected pixels up to {self.pixel_max}, got {brightest}")
            counts = split.labels.bincount(minlength=self.num_classes).tolist()
            if empty := [label for label, count in enumerate(counts) if count == 0]:
                which = ", ".join(map(str, empty))
                raise ValueError(f"{name} split: expected images of every class, got none of class {which}")

    def to(self, device: torch.device | str) -> "Dataset":
        tensors = {key: None if (t := getattr(self, key)) is None else t.to(device) for key in ("mean", "std")}
        return dataclasses.replace(self, train=self.train.to(device), test=self.test.to(device), **tensors)

    def inputs(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
        rows: slice = slice(None),
        of: int | None = None,
    ) -> Tensor:
        """What the model sees of a batch of this dataset's images (B, ch, h, w) uint8: float32, same shape.

        In [0, 1], or standardised if the dataset has a mean and std. With a generator (training) the
        dataset's augmentation comes first, so that the border it brings in is black; without one (measuring)
        there is none. Images that are the `rows` of a batch of `of` images change as they do in that batch.
        """
        if generator is not None:
            images = AUGMENTATIONS[self.augment](images, generator, rows, of)
        pixels = images.to(torch.float32).div_(self.pixel_max)
        return pixels if self.mean is None else pixels.sub_(self.mean).div_(self.std)

    def standardized(self) -> "Dataset":
        """The same dataset whose `inputs` subtract the mean and divide by the std of the train split.

        Per channel over all pixels, std with 1/N; ValueError if a channel is constant.
        """
        levels = torch.arange(self.pixel_max + 1, device=self.train.samples.device).double()
        count = torch.zeros(self.shape[0], len(levels), device=levels.device, dtype=torch.float64)  # (ch, levels)
        for images in self.train.samples.split(4096):  # in parts: bincount makes int64 of each
            for channel, histogram in enumerate(count):
                histogram += images[:, channel].flatten().bincount(minlength=len(levels))
        share = count / count.sum(1, keepdim=True)
        mean = share @ levels  # (ch,)
        variance = (share * (levels - mean[:, None]).square()).sum(1)
        if constant := (count.count_nonzero(1) == 1).nonzero().flatten().tolist():
            raise ValueError(f"cannot standardize: expected pixels that vary, channel {constant[0]} is constant")
        moments = {"mean": mean / self.pixel_max, "std": variance.sqrt() / self.pixel_max}
        return dataclasses.replace(self, **{key: v.float().reshape(-1, 1, 1) for key, v in moments.items()})


def data_root(configured: str | Path | None) -> Path:
    """Where datasets lie: the configured folder, else $NCLAB_DATA, else data/ in the current directory."""
    return Path(configured or os.environ.get("NCLAB_DATA") or "data")


def load_dataset(settings: DatasetSettings, root: str | Path, device: torch.device | str = "cpu") -> Dataset:
    """The dataset that the settings describe, whole on `device`. Downloads nothing.

    Raises MissingDataError (not under root), ChecksumError (a ValueError: a file is damaged), KeyError
    (unknown name), ValueError (files that cannot be read, sizes that do not fit; see Dataset).
    """
    if not isinstance(settings, DatasetSettings):
        raise TypeError(f"expected DatasetSettings, got {type(settings).__name__}")
    try:
        dataset = DATASETS[settings.name].build(settings, Path(root))
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
        dataset = dataclasses.replace(dataset, **splits, augment=settings.augment)
    except ValueError as error:  # a class lost its last image
        sizes = ", ".join(f"dataset.{name}_size={size}" for name, size in sizes.items() if size is not None)
        raise ValueError(f"{sizes} of {settings.name} leaves too few: {error}") from None
    if settings.pixels == "standardize":
        dataset = dataset.standardized()
    return dataset.to(device)
