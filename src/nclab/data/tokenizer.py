"""Words of a text, their numbers, and texts as rows of numbers.

A text becomes its words in lower case: a word is a run of letters and digits, of any script, with single apostrophes
inside it ("don't", "o'clock", "1990's"; "'tis" is "tis"). All else only separates words: punctuation, underscores,
hyphens, and tags such as <br />, whatever is in them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from nclab.interfaces.shapes import PAD, UNKNOWN

VERSION = 1  # raise it with every change of what a text becomes: stored tokens are told apart by it
SPECIAL = 2  # PAD and UNKNOWN; the most frequent word is number 2

TAG = re.compile(r"</?[a-z][^<>]*>")  # begins with a letter, so that "i <3 it" is none
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
APOSTROPHES = "’´"  # what else stands for one


def normalized(text: str) -> str:
    """The words of the text, one space between two. "" if it has none.

    One text instead of a list of words: the 11.5 million words of IMDB would take 700 MB as a list.

    >>> normalized("It DIDN'T work...<br />Not <i>at all</i>, 5/10!")
    "it didn't work not at all 5 10"
    """
    text = text.lower()
    for character in APOSTROPHES:
        text = text.replace(character, "'")
    return " ".join(WORD.findall(TAG.sub(" ", text)))


def word_numbers(texts: Iterable[str], vocabulary: int) -> dict[str, int]:
    """The vocabulary - 2 most frequent words of normalized texts, most frequent first, numbered from 2 on. Among words
    that are equally frequent the first by alphabet comes first. Fewer, where the texts have no more."""
    counts = Counter()
    for text in texts:
        counts.update(text.split())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: vocabulary - SPECIAL]
    return {word: number for number, word in enumerate(ranked, SPECIAL)}


def encoded(texts: Sequence[str], numbers: dict[str, int], length: int) -> Tensor:
    """Normalized texts as tokens (N, length) int32: the first `length` words of each, then PAD up to the length.

    UNKNOWN stands for a word without a number, and for the one word that a text without any is taken to have: a row
    of PAD alone would leave a model nothing to read.
    """
    tokens = np.full((len(texts), length), PAD, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        words = text.split(" ", length)[:length]  # of "" it makes [""], which has no number
        row[: len(words)] = [numbers.get(word, UNKNOWN) for word in words]
    return torch.from_numpy(tokens)
