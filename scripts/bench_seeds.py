"""Whether seeds=[...] pays on this machine: seconds a training epoch of S seeds as one batched model and one by one.

    python scripts/bench_seeds.py                       about five minutes on two cores
    python scripts/bench_seeds.py --threads 2 --seeds 4 8

Writes outputs/bench/seeds.json. Random pixels cost the same as real ones.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from nclab.data import Dataset, Split
from nclab.fit import train_epoch, training_forward
from nclab.models.mlp import MLP
from nclab.models.vit import ViT
from nclab.optim import AdamWSettings, SGDSettings, adamw, sgd
from nclab.record import provenance
from nclab.together import batched_forward, train_epoch_together

CLASSES = 10
SGD, ADAMW = (lambda p: sgd(SGDSettings(), p)), (lambda p: adamw(AdamWSettings(), p))
SETTINGS = {  # name -> side of an image, images, batch, model, optimizer
    "digits MLP-4x64": (8, 1437, 128, lambda: MLP(64, CLASSES, 4, 64), SGD),
    "digits MLP-5x400": (8, 1437, 128, lambda: MLP(64, CLASSES, 5, 400), SGD),
    "digits ViT-2x64": (8, 1437, 128, lambda: ViT((1, 8, 8), CLASSES), ADAMW),
    "MNIST MLP-5x400": (28, 12_800, 128, lambda: MLP(784, CLASSES, 5, 400), SGD),
    "MNIST ViT-2x64": (28, 6_400, 128, lambda: ViT((1, 28, 28), CLASSES, patch=7), ADAMW),
}


def images(side: int, n: int, device: str) -> Dataset:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 1, side, side), dtype=torch.uint8, generator=g)
    split = Split(pixels, torch.arange(n) % CLASSES)
    return Dataset(split, split, CLASSES, (1, side, side)).to(device)


def bench(name: str, seeds: int, repeats: int, device: str) -> dict[str, float]:
    side, n, batch_size, build, optimizer = SETTINGS[name]
    dataset = images(side, n, device)
    fits = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = build().to(device)
        generators = {key: torch.Generator().manual_seed(seed) for key in ("order", "augment")}
        one = {"model": model, "optimizer": optimizer(model.parameters()), "generators": generators}
        fits.append(SimpleNamespace(dataset=dataset, batch_size=batch_size, **one))

    def singly() -> None:
        for f in fits:
            train_epoch(f.model, dataset, f.optimizer, batch_size, f.generators, training_forward(f.model))

    times: dict[str, list[float]] = {"one_by_one": [], "together": []}
    calls = {"one_by_one": singly, "together": lambda: train_epoch_together(fits, batched_forward())}
    for repeat in range(repeats + 1):  # the first is to warm up
        for way, call in calls.items():  # in turns, so that a slow minute hits both
            began = time.perf_counter()
            call()  # ends with the losses on the CPU
            if repeat:
                times[way].append(time.perf_counter() - began)
    seconds = {way: statistics.median(t) for way, t in times.items()}
    return {"setting": name, "seeds": seeds, **seconds, "gain": seconds["one_by_one"] / seconds["together"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/seeds.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in SETTINGS:
        for seeds in arguments.seeds:
            rows.append(row := bench(name, seeds, arguments.repeats, arguments.device))
            print(
                f"{name}, {seeds} seeds: one by one {row['one_by_one']:.3f} s, together {row['together']:.3f} s, "
                f"{row['gain']:.2f} times as fast",
                flush=True,
            )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"epochs": rows, **provenance(arguments.device, arguments.threads)}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
