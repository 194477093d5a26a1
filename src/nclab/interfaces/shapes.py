"""What one sample of a dataset is to a model: pixels of an image, tokens of a text, an array, or a row number.

All are tuples, so that `(1, 28, 28)` is an image wherever a model is built by hand.
"""

from math import prod
from typing import NamedTuple

PAD, UNKNOWN = 0, 1  # token that fills a text up to the common length, and the one for words outside the vocabulary


class ImageShape(NamedTuple):
    """Pixels (channels, height, width)."""

    channels: int
    height: int
    width: int


class TokenShape(NamedTuple):
    """Token numbers (length,), each in 0..vocabulary-1; PAD fills up, at the end."""

    length: int
    vocabulary: int


class ArrayShape(tuple[int, ...]):
    """Numbers of any dimensions, float32 or float64.

    >>> ArrayShape(16, 3)
    ArrayShape(16, 3)
    """

    __slots__ = ()

    def __new__(cls, *sizes: int) -> "ArrayShape":
        return super().__new__(cls, sizes)

    def __getnewargs__(self) -> tuple[int, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        return f"ArrayShape({', '.join(map(str, self))})"


class IndexShape(NamedTuple):
    """One row number in 0..count-1: the model holds what belongs to a row, such as a free feature."""

    count: int


Shape = ImageShape | TokenShape | ArrayShape | IndexShape | tuple[int, int, int]
CONTENTS = {TokenShape: "texts", ArrayShape: "arrays", IndexShape: "row numbers"}


def images_only(shape: Shape, model: str) -> ImageShape:
    """The shape of an image. Raises ValueError for other samples, which this model does not read."""
    if type(shape) in CONTENTS:
        hint = "; model=tf reads both" if isinstance(shape, TokenShape) else ""
        raise ValueError(f"model={model} reads images, and the dataset holds {CONTENTS[type(shape)]}{hint}")
    return ImageShape(*shape)


def flat_size(shape: Shape, model: str) -> int:
    """How many numbers a sample has. Raises ValueError for texts and row numbers, which are no vectors."""
    return prod(shape) if isinstance(shape, ArrayShape) else prod(images_only(shape, model))
