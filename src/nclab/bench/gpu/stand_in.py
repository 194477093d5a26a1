"""Datasets of noise in the place of files: random pixels cost as much as real ones, and the files may be missing."""

from pathlib import Path
from typing import Any

import torch

from nclab.bench.harness import images
from nclab.config.schema import RunConfig
from nclab.data import DATASETS, Dataset, Split
from nclab.data.dataset import DatasetSettings, as_settings_say
from nclab.data.reacher import EPISODES, STEPS
from nclab.data.regression import regression
from nclab.data.tokenizer import SPECIAL
from nclab.interfaces.targets import Classes
from nclab.training.step import PRECISIONS

IMAGES = {  # name -> pixels, images of train and test
    "mnist": ((1, 28, 28), 60_000, 10_000),
    "fashion_mnist": ((1, 28, 28), 60_000, 10_000),
    "cifar10": ((3, 32, 32), 50_000, 10_000),
}
TEXTS = 25_000  # of each split of imdb
TRAIN: dict[str, int] = {  # name -> samples of the train split
    **{name: train for name, (_, train, _) in IMAGES.items()},
    **{"imdb": TEXTS, "reacher": EPISODES * STEPS // 2},
    **{"digits": 1437, "mnist5k": 4000, "phrases": 1600, "diabetes": 354, "linnerud": 20},
}


def _images(settings: DatasetSettings) -> Dataset:
    shape, train, test = IMAGES[settings.name]
    return Dataset(
        {"train": Split(*images(train, 10, shape, 0)), "test": Split(*images(test, 10, shape, 1))}, Classes(10), shape
    )


def _texts(settings: DatasetSettings) -> Dataset:
    g = torch.Generator().manual_seed(0)
    length, vocabulary = settings.shape

    def split() -> Split:
        tokens = torch.randint(SPECIAL, vocabulary, (TEXTS, length), generator=g, dtype=torch.int32)
        return Split(tokens, torch.arange(TEXTS) % 2)

    return Dataset({"train": split(), "test": split()}, Classes(2), settings.shape)


def _reacher(settings: DatasetSettings) -> Dataset:
    rows = torch.randn(EPISODES * STEPS, 12, generator=torch.Generator().manual_seed(0))
    train, test = rows.split(len(rows) // 2)
    return regression(settings, {"train": (train[:, :10], train[:, 10:]), "test": (test[:, :10], test[:, 10:])})


STAND_INS = {**dict.fromkeys(IMAGES, _images), "imdb": _texts, "reacher": _reacher}


def train_size(settings: DatasetSettings) -> int:
    """About how many samples the train split has, without building it: classes and samples that are left out aside, and
    1,000 of a dataset that is not known here."""
    named: Any = settings
    match settings.name:
        case "teacher" | "free_values":
            whole = named.samples
        case "free_features":
            whole = sum(named.counts)
        case "etf_features":
            whole = named.classes * named.per_class
        case name:
            whole = TRAIN.get(name, 1000)
    return min(settings.train_size or whole, whole)


def stand_in(config: RunConfig, device: str) -> Dataset:
    """The dataset of a run, as its settings say, on the device: of noise where it would be read from files. Raises
    MissingDataError for files of which no size is known here."""
    settings = config.dataset
    make = STAND_INS.get(settings.name)
    made = make(settings) if make else DATASETS[settings.name].build(settings, Path("data"))
    return as_settings_say(made, settings, PRECISIONS[config.precision].floats).to(device)
