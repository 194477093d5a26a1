"""Texts: the tokenizer, the checks of a text dataset, its settings, and the sentences made by a grammar."""

import copy
import pickle
from collections import Counter
from hashlib import md5

import numpy as np
import pytest
import torch
from conftest import composed
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from nclab.data import (
    Dataset,
    DatasetSettings,
    ImageDataset,
    ImageSettings,
    Split,
    TextDataset,
    TextSettings,
    load_dataset,
    phrases,
)
from nclab.data.phrases import PhraseSettings
from nclab.data.text import tokenized
from nclab.data.tokenizer import encoded, normalized, word_numbers

# ---- words
from nclab.interfaces.shapes import PAD, UNKNOWN, TokenShape
from nclab.interfaces.targets import Classes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's GREAT -- 10/10!", "it's great 10 10"),
        ("good<br /><br />bad<BR>end", "good bad end"),
        ('a <a href="x y">link</a> here', "a link here"),
        ("I <3 it, a < b > c", "i 3 it a b c"),
        ("an open <br", "an open br"),
        ("'tis the boys' rock'n'roll o''clock", "tis the boys rock'n'roll o clock"),
        ("don’t, won´t", "don't won't"),
        ("snake_case well-made e.g. 3.5", "snake case well made e g 3 5"),
        ("Café ŽIŽEK 映画", "café žižek 映画"),
        ("a\u0085b\u00a0c\n\td", "a b c d"),
        ("...!?", ""),
        ("", ""),
    ],
)
def test_words_of_a_text(text, words):
    assert normalized(text) == words
    assert normalized(words) == words


def slow_words(text: str) -> list[str]:
    """Character by character, for texts without tags."""
    found, word = [], ""
    characters = [*text.lower(), " "]
    for here, after in zip(characters, [*characters[1:], " "], strict=True):
        if here.isalnum() or (here == "'" and word and after.isalnum()):
            word += here
        elif word:
            found, word = [*found, word], ""
    return found


def test_words_equal_a_character_by_character_reference():
    draw = np.random.default_rng(0)
    for _ in range(300):
        text = "".join(draw.choice([*"aB'3é _-.\n"], draw.integers(40)))
        assert normalized(text).split() == slow_words(text), text


def test_the_vocabulary_is_the_most_frequent_words_and_ties_go_by_alphabet():
    texts = ["b a c", "b d", "c b"]
    assert word_numbers(texts, 5) == {"b": 2, "c": 3, "a": 4}
    assert word_numbers(texts, 3) == {"b": 2}
    assert list(word_numbers(texts, 100).items()) == [("b", 2), ("c", 3), ("a", 4), ("d", 5)]
    assert word_numbers(["", ""], 9) == {}


@pytest.mark.fast
def test_tokens_of_a_hand_made_example():
    tokens = encoded(["b a x", "", "a", "a b a b a"], {"a": 2, "b": 3}, 4)
    assert tokens.dtype == torch.int32
    assert tokens.tolist() == [[3, 2, UNKNOWN, PAD], [UNKNOWN, PAD, PAD, PAD], [2, PAD, PAD, PAD], [2, 3, 2, 3]]


def test_tokens_equal_a_slow_reference():
    draw = np.random.default_rng(0)
    texts = [" ".join(f"w{int(n)}" for n in draw.geometric(0.05, draw.integers(12))) for _ in range(200)]
    counts = Counter(word for text in texts for word in text.split())
    ranked = sorted(sorted(counts), key=counts.get, reverse=True)[:28]
    expected = []
    for text in texts:
        row = [2 + ranked.index(w) if w in ranked else UNKNOWN for w in text.split()] or [UNKNOWN]
        expected.append([*row[:7], *[PAD] * 7][:7])
    assert encoded(texts, word_numbers(texts, 30), 7).tolist() == expected


def test_the_vocabulary_is_of_train_texts_alone():
    dataset = tokenized([["a a"], ["b"]], [["z z z z"], ["b a"]], TextSettings("imdb", length=2, vocabulary=9))
    assert dataset.train.samples.tolist() == [[2, 2], [3, 0]]
    assert dataset.splits["test"].samples.tolist() == [[1, 1], [3, 2]]
    assert dataset.train.targets.tolist() == dataset.splits["test"].targets.tolist() == [0, 1]


# ---- the dataset


def texts(*rows: list[int], vocabulary: int = 9) -> Dataset:
    split = Split(torch.tensor(rows, dtype=torch.int32), torch.arange(len(rows)) % 2)
    return Dataset({"train": split, "test": split}, Classes(2), TokenShape(len(rows[0]), vocabulary))


def test_the_shape_says_the_kind_of_dataset():
    made = texts([2, 0], [3, 4])
    images = Split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.arange(2))
    assert (type(made), made.augment, made.shape) == (TextDataset, "none", (2, 9))
    splits = {"train": images}
    assert type(Dataset(splits, Classes(2), (1, 3, 3))) is type(Dataset(splits, Classes(2), shape=(1, 3, 3)))
    assert type(Dataset(splits, Classes(2), (1, 3, 3))) is ImageDataset
    with pytest.raises(
        ValueError, match=r"train split: expected images of shape \(1, 3, 3\), got \(2,\) of torch.int32"
    ):
        Dataset(made.splits, Classes(2), (1, 3, 3))
    with pytest.raises(
        ValueError, match=r"train split: expected texts of shape \(2,\), got \(1, 3, 3\) of torch.uint8"
    ):
        Dataset(splits, Classes(2), TokenShape(2, 9))
    for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert type(again) is TextDataset
        assert torch.equal(again.train.samples, made.train.samples)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[2, 9], [3, 0]], "train split: expected tokens 0 to 8, got 0 to 9"),
        ([[2, -1], [3, 0]], "train split: expected tokens 0 to 8, got -1 to 3"),
        ([[2, 3], [0, 0]], "expected at least one token in every text, got PAD alone in text 1"),
        ([[2, 3], [2, 2], [0, 4]], "expected PAD at the end of a text only, got PAD before a token in text 2"),
        ([[2, 0, 4], [2, 3, 0]], "expected PAD at the end of a text only, got PAD before a token in text 0"),
        ([[2, 3]], "expected texts of every class, got none of class 1"),
    ],
)
def test_texts_that_hold_what_they_may_not(rows, message):
    with pytest.raises(ValueError, match=message):
        texts(*rows)


def test_a_split_of_tokens_is_int32():
    labels = torch.arange(2)
    for samples, came in (
        (torch.ones(2, 3).long(), "2 dimensions of torch.int64"),
        (torch.ones(2, 3, 1).int(), "3 dimensions of torch.int32"),
    ):
        with pytest.raises(ValueError, match=rf"samples: expected one of .*texts \(N, T\) int32.*; got {came}"):
            Split(samples, labels)


def test_a_model_sees_the_tokens_as_they_are_wherever_they_lie():
    dataset = texts([2, 0], [3, 4])
    batch = dataset.train.samples
    assert dataset.inputs(batch) is batch
    assert torch.equal(dataset.inputs(batch, torch.Generator(), slice(0, 2), 8), batch)
    moved = dataset.to("cpu")
    assert torch.equal(moved.splits["test"].samples, dataset.splits["test"].samples)
    assert (type(moved), moved.shape) == (TextDataset, dataset.shape)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_texts_move_to_a_gpu():
    moved = load_dataset(DatasetSettings("phrases"), ".", "cuda")
    assert {t.device.type for s in (moved.train, moved.splits["test"]) for t in (s.samples, s.targets)} == {"cuda"}
    assert torch.equal(moved.train.samples.cpu(), load_dataset(DatasetSettings("phrases"), ".").train.samples)


# ---- settings


@pytest.mark.parametrize(
    ("key", "value", "bound"),
    [
        ("length", 0, "least 1"),
        ("length", 4097, "most 4096"),
        ("vocabulary", 2, "least 3"),
        ("vocabulary", 2**20 + 1, "most 1048576"),
    ],
)
def test_settings_out_of_range_raise(key, value, bound):
    for settings in (TextSettings, PhraseSettings):
        with pytest.raises(ValueError, match=rf"dataset\.{key} must be at {bound}, got {value}"):
            settings("phrases", **{key: value})


def test_settings_are_those_of_the_dataset(tmp_path):
    with pytest.raises(TypeError, match="expected PhraseSettings of dataset 'phrases', got ImageSettings"):
        load_dataset(ImageSettings("phrases"), tmp_path)
    with pytest.raises(TypeError, match="expected ImageSettings of dataset 'digits', got TextSettings"):
        load_dataset(TextSettings("digits"), tmp_path)


def test_only_what_changes_the_inputs_changes_the_name_of_a_run():
    names = [
        composed("dataset=phrases", *more).run_name
        for more in ((), ("dataset.length=32",), ("dataset.length=31",), ("dataset.vocabulary=499",))
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


# ---- phrases


def test_phrases_are_the_same_everywhere():
    text = "\n".join(sentence for held in phrases.sentences() for sentence in held)
    assert md5(text.encode()).hexdigest() == "c05ab39b5b1a3e98486057cdde02813b"


def test_phrases_are_balanced_short_and_in_one_split_alone():
    drawn = phrases.sentences()
    assert [len(set(held)) for held in drawn] == [1000, 1000]
    assert not set(drawn[0]) & set(drawn[1])
    lengths = {len(sentence.split()) for held in drawn for sentence in held}
    assert (min(lengths), max(lengths)) == (4, 20)
    dataset = load_dataset(DatasetSettings("phrases"), ".")
    rows = [{row.numpy().tobytes() for row in s.samples} for s in (dataset.train, dataset.splits["test"])]
    assert not rows[0] & rows[1]
    assert [s.targets.bincount().tolist() for s in (dataset.train, dataset.splits["test"])] == [[800, 800], [200, 200]]
    assert not (dataset.splits["test"].samples == UNKNOWN).any()
    assert dataset.shape == TokenShape(32, 500)


def test_the_order_of_words_counts_in_phrases():
    """A linear classifier of single words fails where one that sees pairs and triples does well."""
    drawn = phrases.sentences()
    score = {}
    for longest in (1, 3):
        count = CountVectorizer(ngram_range=(1, longest), token_pattern=r"\S+")
        train = count.fit_transform(drawn[0][:800] + drawn[1][:800])
        model = LogisticRegression(max_iter=2000).fit(train, [0] * 800 + [1] * 800)
        test = count.transform(drawn[0][800:] + drawn[1][800:])
        score[longest] = model.score(test, [0] * 200 + [1] * 200)
    assert 0.55 < score[1] < 0.75
    assert score[3] > 0.85


def test_subsets_of_phrases_keep_their_tokens_and_classes(tmp_path):
    whole = load_dataset(DatasetSettings("phrases"), tmp_path)
    part = load_dataset(PhraseSettings("phrases", train_size=60, test_size=11), tmp_path)
    assert (part.train.targets.bincount().tolist(), len(part.splits["test"])) == ([30, 30], 11)
    rows = {row.numpy().tobytes(): int(y) for row, y in zip(whole.train.samples, whole.train.targets, strict=True)}
    for row, label in zip(part.train.samples, part.train.targets, strict=True):
        assert rows[row.numpy().tobytes()] == label
    shorter = load_dataset(PhraseSettings("phrases", length=5, vocabulary=20), tmp_path)
    kept = whole.train.samples[:, :5]
    assert torch.equal(shorter.train.samples, torch.where(kept < 20, kept, UNKNOWN))
    assert list(tmp_path.iterdir()) == []
