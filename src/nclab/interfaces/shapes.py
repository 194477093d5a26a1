"""What one sample of a dataset is to a model: the pixels of an image or the tokens of a text.

Both are tuples, so that `(1, 28, 28)` is an image wherever a model is built by hand.
"""

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


Shape = ImageShape | TokenShape | tuple[int, int, int]


def images_only(shape: Shape, model: str) -> ImageShape:
    """The shape of an image. Raises ValueError for tokens, which this model does not read."""
    if isinstance(shape, TokenShape):
        raise ValueError(f"model={model} reads images, and the dataset holds texts; model=tf reads both")
    return ImageShape(*shape)
