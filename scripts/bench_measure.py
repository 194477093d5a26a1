"""What measuring costs, as ratios in one run: against the straightforward way, and against a training epoch.

    make bench                                    about three minutes on two cores
    python scripts/bench_measure.py --dims 512

Writes outputs/bench/measure.json. The straightforward way is float32 class means, the d x d covariances, a
pseudo-inverse of Sigma_B and NCC by distances in R^d. `two passes` are the bare operations that no algorithm of two
passes can save: a one-hot matmul (C, N) x (N, d) and a product (N, d) x (d, C-1).
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from nclab.data import Dataset, Split
from nclab.evaluate import MetricsSettings, evaluate
from nclab.fit import train_epoch, training_forward
from nclab.metrics import measure
from nclab.models.mlp import MLP
from nclab.record import provenance

CLASSES = 10


def straightforward(features: Tensor, labels: Tensor) -> tuple[float, float]:
    """NC1 and NCC accuracy with d x d matrices in float32."""
    means = torch.stack([features[labels == c].mean(0) for c in range(CLASSES)])
    centred = means - means.mean(0)
    z = features - means[labels]
    sigma_w = z.T @ z / len(z)  # (d, d)
    sigma_b = centred.T @ centred / CLASSES  # (d, d)
    nc1 = torch.trace(sigma_w @ torch.linalg.pinv(sigma_b, hermitian=True)) / CLASSES
    ncc = (torch.cdist(features, means).argmin(1) == labels).float().mean()
    return float(nc1), float(ncc)


def two_passes(features: Tensor, labels: Tensor) -> None:
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).float()
    one_hot.T @ features
    features @ torch.ones(features.shape[1], CLASSES - 1)


def interleaved(repeats: int, *calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call; the calls take turns, so that a slow minute hits all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, seconds in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    return [statistics.median(t) for t in times]


def bench_measure(n: int, d: int, repeats: int) -> dict[str, float]:
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (n,), generator=g)
    features = torch.randn(CLASSES, d, generator=g)[labels] + torch.randn(n, d, generator=g)
    ours, theirs = measure(features, labels, CLASSES), straightforward(features, labels)
    seconds = interleaved(
        repeats,
        lambda: measure(features, labels, CLASSES),
        lambda: straightforward(features, labels),
        lambda: two_passes(features, labels),
    )
    return {
        "n": n,
        "d": d,
        "seconds_nclab": seconds[0],
        "seconds_straightforward": seconds[1],
        "seconds_two_passes": seconds[2],
        "speedup": seconds[1] / seconds[0],
        "over_two_passes": seconds[0] / seconds[2],
        "nc1_nclab": ours["nc1"],
        "nc1_straightforward": theirs[0],
    }


def bench_epoch(n: int, repeats: int) -> dict[str, float]:
    """The paper's MLP-5x400 on images of Fashion-MNIST's size and number; random pixels cost the same as real ones."""
    g = torch.Generator().manual_seed(0)
    split = {
        name: Split(
            torch.randint(0, 256, (size, 1, 28, 28), dtype=torch.uint8, generator=g),
            torch.arange(size) % CLASSES,
        )
        for name, size in (("train", n), ("test", n // 6))
    }
    dataset = Dataset(split["train"], split["test"], CLASSES, (1, 28, 28))
    model = MLP(784, CLASSES, 5, 400)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    generators = {"order": torch.Generator(), "augment": torch.Generator()}
    forward = training_forward(model)
    train, whole = interleaved(
        repeats,
        lambda: train_epoch(model, dataset, optimizer, 128, generators, forward),
        lambda: evaluate(model, dataset, MetricsSettings()),
    )
    return {"n": n, "seconds_train": train, "seconds_measure": whole, "measure_over_train": whole / train}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=60_000, help="samples")
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 2048], help="feature dimensions")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/measure.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [bench_measure(arguments.n, d, arguments.repeats) for d in arguments.dims]
    for r in rows:
        print(
            f"N={r['n']:,} d={r['d']}: {r['seconds_nclab']:.3f} s, {r['speedup']:.1f} times faster than d x d, "
            f"{r['over_two_passes']:.2f} of two bare passes; "
            f"NC1 {r['nc1_nclab']:.6g} against {r['nc1_straightforward']:.6g}"
        )
    epoch = bench_epoch(arguments.n, arguments.repeats)
    print(
        f"MLP-5x400, {epoch['n']:,} images: training epoch {epoch['seconds_train']:.2f} s, full measurement of every "
        f"probe, train and test, {epoch['seconds_measure']:.2f} s = {epoch['measure_over_train']:.2f} of it"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"measure": rows, "epoch": epoch, **provenance("cpu", arguments.threads)}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
