"""Datasets of images: uint8 pixels on the device, and how a model sees them."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nclab.data.augment import AUGMENTATIONS
from nclab.data.dataset import Dataset, DatasetSettings
from nclab.interfaces.shapes import ImageShape
from nclab.interfaces.valid import no_choice

PIXELS = ("unit", "standardize")


@dataclass
class ImageSettings(DatasetSettings):
    """The keys of an image dataset; a value outside its choices raises ValueError."""

    pixels: str = "unit"  # unit: [0, 1] | standardize: mean 0, variance 1 a channel over the train split
    augment: str = "none"  # none | crop_flip: shift by up to 4 pixels and mirror, training batches only

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, choices in {"pixels": PIXELS, "augment": AUGMENTATIONS}.items():
            if getattr(self, key) not in choices:
                raise no_choice(f"dataset.{key}", getattr(self, key), choices)

    @property
    def standardizes(self) -> bool:
        return self.pixels == "standardize"

    @property
    def augmentation(self) -> str:
        return self.augment


@dataclass(frozen=True)
class ImageDataset(Dataset, of=ImageShape):
    """Images (N, ch, h, w) uint8, and how their pixels become what the model sees.

    ValueError for what no dataset may be (see Dataset), and if a pixel exceeds `pixel_max`.
    """

    noun: ClassVar[str] = "image"
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.uint8,)

    pixel_max: int = 255  # the pixel value that becomes 1.0
    augment: str = "none"
    mean: Tensor | None = None  # (ch, 1, 1) `floats`, of pixels in [0, 1]; None: pixels stay in [0, 1]
    std: Tensor | None = None  # (ch, 1, 1) `floats`

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.shape)

    def check(self, samples: Tensor) -> None:
        if (brightest := samples.max().item()) > self.pixel_max:
            raise ValueError(f"expected pixels up to {self.pixel_max}, got {brightest}")

    def under(self, settings: DatasetSettings) -> "ImageDataset":
        dataset = dataclasses.replace(self, augment=settings.augmentation)
        return dataset.standardized() if settings.standardizes else dataset

    def inputs(
        self,
        samples: Tensor,
        generator: torch.Generator | None = None,
        rows: slice = slice(None),
        of: int | None = None,
    ) -> Tensor:
        """What the model sees of a batch of this dataset's images (B, ch, h, w) uint8: `floats`, same shape.

        In [0, 1], or standardised if the dataset has a mean and std. With a generator (training) the
        dataset's augmentation comes first, so that the border it brings in is black; without one (measuring)
        there is none. Images that are the `rows` of a batch of `of` images change as they do in that batch.
        """
        if generator is not None:
            samples = AUGMENTATIONS[self.augment](samples, generator, rows, of)
        pixels = samples.to(self.floats).div_(self.pixel_max)
        return pixels if self.mean is None else pixels.sub_(self.mean).div_(self.std)

    def standardized(self) -> "ImageDataset":
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
        return dataclasses.replace(self, **{key: v.to(self.floats).reshape(-1, 1, 1) for key, v in moments.items()})
