"""An epoch of S seeds as one batched model, and one seed after another."""

from functools import partial
from types import SimpleNamespace

import torch

from nclab.bench.by_hand import feed, learner
from nclab.bench.harness import images
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.models.mlp import MLP
from nclab.models.vit import ViT
from nclab.training.optim import AdamWSettings, SGDSettings, adamw, sgd
from nclab.training.progress import Part, Progress
from nclab.training.stack import stacked_run, train_epoch_stacked
from nclab.training.step import train_epoch

CLASSES, BATCH = 10, 128
SETTINGS = {  # name -> side of an image, images, model
    "MLP-4x64, 8 x 8 pixels": (8, 1437, partial(MLP, 64, CLASSES, 4, 64)),
    "MLP-5x400, 8 x 8 pixels": (8, 1437, partial(MLP, 64, CLASSES, 5, 400)),
    "MLP-5x400, 28 x 28 pixels": (28, 6400, partial(MLP, 784, CLASSES, 5, 400)),
    "ViT-2x64, 8 x 8 pixels": (8, 1437, partial(ViT, (1, 8, 8), CLASSES)),
    "ViT-2x64, 28 x 28 pixels": (28, 3200, partial(ViT, (1, 28, 28), CLASSES, patch=7)),
}


def fits(name: str, seeds: int, device: str, most: int | None = None) -> list[SimpleNamespace]:
    """What an epoch of training reads of a `Fit`, one a seed. most: of the images, as many; None: all."""
    side, n, build = SETTINGS[name]
    split = Split(*images(min(n, most or n), CLASSES, (1, side, side), seed=0))
    dataset = Dataset({"train": split, "test": split}, Classes(CLASSES), (1, side, side)).to(device)
    made = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = build().to(device)
        of_model = (
            sgd(SGDSettings(), model.parameters()) if "MLP" in name else adamw(AdamWSettings(), model.parameters())
        )
        parts = {"learner": learner(model, of_model), "feed": feed(dataset, BATCH, (seed, seed))}
        made.append(SimpleNamespace(model=model, check=lambda: None, progress=Progress(part=Part()), **parts))
    return made


def in_turns(of_seeds: list[SimpleNamespace]) -> None:
    for f in of_seeds:
        train_epoch(f.learner, f.feed)


def as_one(of_seeds: list[SimpleNamespace]) -> None:
    for f in of_seeds:
        f.progress = Progress(part=Part())
    train_epoch_stacked(of_seeds, stacked_run())
