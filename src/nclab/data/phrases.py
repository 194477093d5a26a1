"""Phrases: 1,600 train and 400 test one-line reviews made here, half of each negative (class 0) and half positive (1).

Nothing to fetch. A grammar draws sentences of 4 to 20 words about a film: "the plot is never dull", "i think the music
is not good at all", "the cast is weak but the ending is not dull but funny". Words alone do not tell the class: "not
dull but funny" and "not funny but dull" have the same ones, and of two clauses joined by "but" the last decides. No
sentence of one split is in the other.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nclab.data.dataset import DATASETS
from nclab.data.text import TextDataset, TextSettings, tokenized
from nclab.data.tokenizer import normalized

SEED = 0
TRAIN, TEST = 800, 200  # sentences of a class
FEWEST_WORDS, MOST_WORDS = 4, 20

THINGS = ("acting", "cast", "dialogue", "direction", "ending", "humour", "music", "pace", "plot", "script", "story")
JUDGED = (
    ("awful", "bad", "boring", "clumsy", "dull", "lifeless", "stale", "stupid", "tedious", "weak"),
    ("brilliant", "charming", "clever", "fresh", "funny", "good", "great", "gripping", "lovely", "moving"),
)
DEGREES = ("", "", "quite", "really", "truly", "very")  # "" twice: as often as two others
OPENINGS = ("", "", "", "i think", "for me", "to be honest", "as far as i can tell")
CLOSINGS = ("", "", "", "in my opinion", "from start to end", "all in all", "once again")


@dataclass
class PhraseSettings(TextSettings):
    """The keys of conf/dataset/phrases.yaml: those of every text dataset, with defaults that fit short sentences."""

    length: int = 32
    vocabulary: int = 500


Pick = Callable[[Sequence[str]], str]


def _judgement(label: int, pick: Pick) -> str:
    """What is said of one thing: plainly, or by denying the opposite."""
    own, opposite = pick(JUDGED[label]), pick(JUDGED[1 - label])
    return pick(
        (
            f"{pick(DEGREES)} {own}",
            f"not {opposite} at all",
            f"never {opposite}",
            f"anything but {opposite}",
            f"not {opposite} but {own}",
        )
    )


def _sentence(label: int, pick: Pick) -> str:
    """One or two judgements with this sum; a first one that the second takes back does not count."""

    def clause(label: int) -> str:
        return f"the {pick(THINGS)} is {_judgement(label, pick)}"

    body = pick((clause(label), f"{clause(label)} and {clause(label)}", f"{clause(1 - label)} but {clause(label)}"))
    return normalized(f"{pick(OPENINGS)} {body} {pick(CLOSINGS)}")


def sentences() -> list[list[str]]:
    """All sentences of each class, in the order they are drawn, none of them twice."""
    draw = random.Random(SEED)

    def pick(choices: Sequence[str]) -> str:
        # By random() alone, the one method whose sequence Python promises to keep for a seed.
        return choices[int(draw.random() * len(choices))]

    drawn: list[dict[str, None]] = [{}, {}]  # ordered sets
    while min(map(len, drawn)) < TRAIN + TEST:
        for label, held in enumerate(drawn):
            sentence = _sentence(label, pick)
            if FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS:
                held[sentence] = None
    return [list(held)[: TRAIN + TEST] for held in drawn]


@DATASETS.add("phrases", PhraseSettings)
def build(settings: PhraseSettings, root: Path) -> TextDataset:
    drawn = sentences()
    return tokenized([texts[:TRAIN] for texts in drawn], [texts[TRAIN:] for texts in drawn], settings)
