"""Datasets of texts: token numbers on the device, which models read as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nclab.data.dataset import Dataset, DatasetSettings
from nclab.data.split import Split
from nclab.data.tokenizer import SPECIAL, encoded, word_numbers
from nclab.interfaces.shapes import PAD, TokenShape
from nclab.interfaces.targets import Classes
from nclab.interfaces.valid import OutOfRange

MOST_LENGTH = 2**12  # tokens; the longest review of IMDB has 2,473
MOST_VOCABULARY = 2**20  # tokens; the train reviews of IMDB have 81,375 words


@dataclass
class TextSettings(DatasetSettings):
    """The keys of a text dataset; a value out of its range raises ValueError."""

    length: int = 256  # tokens kept of a text, its first ones; shorter texts are filled up with token 0
    vocabulary: int = 10_000  # the most frequent words of the train split, with filling (0) and unknown word (1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least, most in (("length", 1, MOST_LENGTH), ("vocabulary", SPECIAL + 1, MOST_VOCABULARY)):
            if not least <= (value := getattr(self, key)) <= most:
                bound = f"least {least}" if value < least else f"most {most}"
                raise OutOfRange(f"dataset.{key} must be at {bound}, got {value}", f"dataset.{key}")

    @property
    def shape(self) -> TokenShape:
        return TokenShape(self.length, self.vocabulary)


@dataclass(frozen=True)
class TextDataset(Dataset, of=TokenShape):
    """Texts (N, T) int32, each row its tokens and then PAD up to the common length.

    ValueError for what no dataset may be (see Dataset), and if a token is outside 0..vocabulary-1, a text is empty
    (PAD alone), or PAD stands before a token.
    """

    noun: ClassVar[str] = "text"
    dtypes: ClassVar[tuple[torch.dtype, ...]] = (torch.int32,)
    augment: ClassVar[str] = "none"

    @property
    def size(self) -> tuple[int, ...]:
        return (self.shape.length,)

    def check(self, tokens: Tensor) -> None:
        most = self.shape.vocabulary - 1
        low, high = tokens.min().item(), tokens.max().item()
        if low < 0 or high > most:
            raise ValueError(f"expected tokens 0 to {most}, got {low} to {high}")
        pad = tokens == PAD
        for wrong, expected, came in (
            (pad.all(1), "at least one token in every text", "PAD alone"),
            ((pad[:, :-1] & ~pad[:, 1:]).any(1), "PAD at the end of a text only", "PAD before a token"),
        ):
            if wrong.any():
                raise ValueError(f"expected {expected}, got {came} in text {wrong.nonzero()[0].item()}")

    def under(self, settings: DatasetSettings) -> "TextDataset":
        return self  # length and vocabulary are in the tokens

    def inputs(
        self,
        samples: Tensor,
        generator: torch.Generator | None = None,
        rows: slice = slice(None),
        of: int | None = None,
    ) -> Tensor:
        """The tokens (B, T) int32 as they are, in training and in measuring."""
        return samples


def tokenized(train: Sequence[Sequence[str]], test: Sequence[Sequence[str]], settings: TextSettings) -> TextDataset:
    """The dataset of normalized texts: `train[c]` and `test[c]` are those of class c, and stay in this order.

    The vocabulary is that of all train texts given, before any dataset.train_size: the tokens of a text, and the
    size of a model's embedding, do not depend on how many texts a run keeps, so runs that differ in it are compared
    on the same inputs.
    """
    numbers = word_numbers((text for texts in train for text in texts), settings.vocabulary)
    splits = {}
    for name, classes in (("train", train), ("test", test)):
        tokens = encoded([text for texts in classes for text in texts], numbers, settings.length)
        labels = torch.tensor([label for label, texts in enumerate(classes) for _ in texts])
        splits[name] = Split(tokens, labels)
    return TextDataset(splits, Classes(len(train)), shape=settings.shape)
