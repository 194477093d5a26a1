"""Pictures of any mode and size as uint8 arrays of one shape."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nclab.data.images import ImageSettings
from nclab.interfaces.valid import OutOfRange

SUFFIXES = (".png", ".jpg", ".jpeg")
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "P", "CMYK", "YCbCr")
KIND = {1: "grey", 3: "coloured"}  # channels -> word
MOST_SIDE = 2**12  # pixels


@dataclass
class PictureSettings(ImageSettings):
    """The keys of a dataset of pictures; a value out of its range raises ValueError."""

    size: int | None = None  # pixels a side that every picture is resized to; null: they have one size
    channels: int | None = None  # 1: grey | 3: colour | null: as all pictures are

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None and not 1 <= self.size <= MOST_SIDE:
            raise OutOfRange(f"dataset.size must be between 1 and {MOST_SIDE}, got {self.size}", "dataset.size")
        if self.channels not in (None, 1, 3):
            said = f"dataset.channels must be 1 (grey), 3 (colour) or null, got {self.channels}"
            raise OutOfRange(said, "dataset.channels")


def opened(path: Path) -> Image.Image:
    """A PNG or JPEG file, decoded. Raises ValueError, naming it, for a damaged or another one."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            picture.load()
            return picture
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected a PNG or JPEG picture, got another or a damaged one ({error})") from None


def channels_of(picture: Image.Image) -> int:
    return 1 if picture.mode in GREY else 3


def pixels(picture: Image.Image, label: str | Path, channels: int, size: int | None) -> np.ndarray:
    """The picture as (ch, h, w) uint8, resized (bilinear, antialiased) to a square of `size`."""
    if picture.mode not in GREY + COLOUR:
        raise ValueError(f"{label}: expected 8 bits a channel ({', '.join(GREY + COLOUR)}), got mode {picture.mode}")
    picture = picture.convert("L" if channels == 1 else "RGB")
    if size is not None and picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(picture, np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def stacked(
    pictures: Iterable[Image.Image], labels: Sequence[str | Path], channels: int, size: int | None, convert: bool
) -> torch.Tensor:
    """All pictures (N, ch, h, w) uint8. Raises ValueError, naming the picture, for one of another size than the first.

    Args:
        pictures: as many as there are labels.
        labels: what the messages call each.
        convert: whether grey pictures may become coloured ones, or the reverse; else such a picture is an error too.
    """
    held = None
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        array = pixels(picture, label, channels, size)
        if not convert and (came := channels_of(picture)) != channels:
            expected, got = (KIND[count] for count in (channels, came))
            raise ValueError(
                f"{label}: expected a {expected} picture as the first, got a {got} one; set dataset.channels=1 or 3"
            )
        if held is None:
            held = np.empty((len(labels), *array.shape), np.uint8)
        if array.shape != held.shape[1:]:
            (height, width), (h, w) = held.shape[2:], array.shape[1:]
            raise ValueError(
                f"{label}: expected {width} x {height} pixels as the first, got {w} x {h}; set dataset.size"
            )
        held[i] = array
    return torch.from_numpy(held)
