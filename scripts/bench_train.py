"""What an epoch costs: training and full measurement of the paper's MLP-5x400 against its bare matrix products.

    python scripts/bench_train.py                         writes outputs/bench/train.json

Batch 128, 60,000 and 10,000 images of 28 x 28, SGD with momentum. `bare` are the matrix products of one training epoch,
forward, weight gradients and input gradients, and nothing else. `plain` is the same training by a short loop,
all images in memory and the same optimizer: what a step costs here beside its model. `dataloader` is a loop over
torchvision's way of handing out images, a PIL image and ToTensor each, which no fast loop uses for data of this size.
"""

import statistics
import sys
from collections.abc import Callable
from itertools import pairwise

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

from nclab.bench.by_hand import feed, learner, plain_epoch
from nclab.bench.harness import arguments, images, limits, ratio, rounds, save
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.models.mlp import MLP
from nclab.training.evaluate import MetricsSettings, evaluate
from nclab.training.optim import SGDSettings, sgd
from nclab.training.step import train_epoch

CLASSES, SHAPE, DEPTH, WIDTH, BATCH = 10, (1, 28, 28), 5, 400, 128


def bare_products(sizes: list[int], n: int, device: str) -> tuple[float, Callable[[], None]]:
    """(operations, call) of the matrix products of one training epoch."""
    weights = [torch.randn(o, i, device=device) for i, o in pairwise(sizes)]
    features = [torch.randn(BATCH, size, device=device) for size in sizes]
    gradients = [torch.randn(BATCH, size, device=device) for size in sizes]

    def epoch() -> None:
        for _ in range(n // BATCH):
            for x, w in zip(features, weights, strict=False):
                x @ w.T
            for layer in range(len(weights) - 1, -1, -1):
                gradients[layer + 1].T @ features[layer]
                if layer:
                    gradients[layer + 1] @ weights[layer]

    products = [3 * w.numel() for w in weights]
    products[0] = 2 * weights[0].numel()  # images need no gradient
    return 2.0 * sum(products) * (n // BATCH) * BATCH, epoch


class Pictures(torch.utils.data.Dataset):
    """What torchvision's MNIST does for a sample."""

    def __init__(self, split: Split):
        self.split, self.transform = split, ToTensor()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.split.samples[i, 0].numpy())), int(self.split.targets[i])


def dataloader_epoch(model: nn.Module, split: Split, optimizer: torch.optim.Optimizer, device: str) -> None:
    model.train()
    for x, y in DataLoader(Pictures(split), BATCH, shuffle=True):
        logits, _ = model(x.to(device))
        optimizer.zero_grad()
        functional.cross_entropy(logits, y.to(device)).backward()
        optimizer.step()


def main() -> int:
    args = arguments(__doc__.splitlines()[0], "train", n=60_000)
    machine = limits(args.device)
    sizes = {"train": args.n, "test": args.n // 6}
    splits = {part: Split(*images(n, CLASSES, SHAPE, seed=n)) for part, n in sizes.items()}
    dataset = Dataset(splits, Classes(CLASSES), SHAPE).to(args.device)
    torch.manual_seed(0)
    model = MLP(784, CLASSES, DEPTH, WIDTH).to(args.device)
    plain, slow = (MLP(784, CLASSES, DEPTH, WIDTH).to(args.device) for _ in range(2))
    optimizer = sgd(SGDSettings(), model.parameters())
    plain_optimizer = sgd(SGDSettings(), plain.parameters())
    slow_optimizer = torch.optim.SGD(slow.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    of_model, batches = learner(model, optimizer), feed(dataset, BATCH)
    flops, bare = bare_products([784, *[WIDTH] * (DEPTH - 1), CLASSES], args.n, args.device)
    bares, trains, plains, measures, loaders = taken = rounds(
        args.repeats,
        bare,
        lambda: train_epoch(of_model, batches),
        lambda: plain_epoch(lambda x: plain(x).prediction, dataset, plain_optimizer, BATCH),
        lambda: evaluate(model, dataset, MetricsSettings()),
        lambda: dataloader_epoch(slow, splits["train"], slow_optimizer, args.device),
        device=args.device,
    )
    bare_s, train_s, plain_s, measure_s, loader_s = map(statistics.median, taken)
    result = {
        "n": args.n,
        "bare_seconds": bare_s,
        "bare_gflops": flops / bare_s / 1e9,
        "train_seconds": train_s,
        "plain_seconds": plain_s,
        "measure_seconds": measure_s,
        "dataloader_seconds": loader_s,
        **ratio("train_over_bare", trains, bares),
        **ratio("measure_over_train", measures, trains),
        **ratio("train_over_plain", trains, plains),
        **ratio("dataloader_over_train", loaders, trains),
        "both_over_bare": (train_s + measure_s) / bare_s,
        "limit_seconds": flops / machine["gemm_flops"],
    }
    print(
        f"MLP-5x400, {args.n:,} images: bare products {bare_s:.2f} s, training {train_s:.2f} s = "
        f"{result['train_over_bare']:.2f} times, with full measurement {train_s + measure_s:.2f} s = "
        f"{result['both_over_bare']:.2f} times; measuring is {result['measure_over_train']:.2f} of training; "
        f"plain loop {plain_s:.2f} s, training {result['train_over_plain']:.3f} times that; "
        f"DataLoader loop {loader_s:.1f} s = {result['dataloader_over_train']:.1f} times our training"
    )
    save(args.out, {"limits": machine, **result}, args.device, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
