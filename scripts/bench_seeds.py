"""Whether seeds=[...] pays: seconds a training epoch of S seeds as one batched model and one after another.

    python scripts/bench_seeds.py --threads 1           writes outputs/bench/seeds.json

On a CPU `seeds=[...]` batches the small ones of these settings only (`seeds.least_to_pay`); here all are.
"""

import sys
from functools import partial
from types import SimpleNamespace

import torch

from nclab.bench.by_hand import feed, learner
from nclab.bench.harness import arguments, images, interleaved, limits, save
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.models.mlp import MLP
from nclab.models.vit import ViT
from nclab.training.optim import AdamWSettings, SGDSettings, adamw, sgd
from nclab.training.progress import Part, Progress
from nclab.training.seeds import least_to_pay
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


def fits(name: str, seeds: int, device: str) -> list[SimpleNamespace]:
    """What an epoch of training reads of a `Fit`, one a seed."""
    side, n, build = SETTINGS[name]
    split = Split(*images(n, CLASSES, (1, side, side), seed=0))
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


def main() -> int:
    args = arguments(__doc__.splitlines()[0], "seeds", seeds=[1, 2, 4, 8, 16], settings=[*SETTINGS])
    machine, rows = limits(args.device), []
    for name in args.settings:
        for seeds in args.seeds:
            of_seeds = fits(name, seeds, args.device)
            turns, stacked = interleaved(
                args.repeats,
                partial(in_turns, of_seeds),
                partial(as_one, of_seeds),
                device=args.device,
            )
            row = {"setting": name, "seeds": seeds, "in_turns_seconds": turns, "stacked_seconds": stacked}
            rows.append(row | {"gain": turns / stacked, "batched_by_default": seeds >= least_to_pay(of_seeds[0])})
            print(f"{name}, {seeds} seeds: in turns {turns:.3f} s, stacked {stacked:.3f} s, gain {turns / stacked:.2f}")
    save(args.out, {"limits": machine, "rows": rows}, args.device, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
