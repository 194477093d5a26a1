"""What measuring collapse costs: against the straightforward way, against two bare passes, against the machine.

    python scripts/bench_measure.py --dims 512 2048       writes outputs/bench/measure.json

The straightforward way is float32 class means, the d x d covariances, a pseudo-inverse of Sigma_B and NCC by distances
in R^d, as the peers' libraries do it. `two passes` are the bare operations that no algorithm of two passes can save:
class sums by index and a product (N, d) x (d, min(C-1, d)). The limit: the operations of both, and features read twice.
`classifier` is the classifier's input, whose logits are there, as in a training; `with_logits` is `measure` of it,
which makes them: one more product (N, d) x (d, C). Samples lie `spread` around means of unit variance: at 1 the nearest
mean must be looked for, at 0.1 the triangle inequality tells it.
"""

import statistics
import sys
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from nclab.bench.harness import arguments, at_limit, limits, ratio, rounds, save
from nclab.metrics import CollapseMeter, measure

BLOCK = 2048  # rows of a bare product: no algorithm needs all of it at once


def straightforward(features: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """NC1 and NCC accuracy with d x d matrices in float32."""
    means = torch.zeros(classes, features.shape[1], device=features.device).index_add_(0, labels, features)
    means /= torch.bincount(labels, minlength=classes)[:, None]
    centred = means - means.mean(0)
    z = features - means[labels]
    sigma_w = z.T @ z / len(z)  # (d, d)
    sigma_b = centred.T @ centred / classes  # (d, d)
    nc1 = torch.trace(sigma_w @ torch.linalg.pinv(sigma_b, hermitian=True)) / classes
    ncc = (torch.cdist(features, means).argmin(1) == labels).float().mean()
    return float(nc1), float(ncc)


def two_passes(features: Tensor, labels: Tensor, classes: int) -> None:
    d = features.shape[1]
    torch.zeros(classes, d, device=features.device).index_add_(0, labels, features)
    directions = torch.ones(min(classes - 1, d), d, device=features.device)
    for block in features.split(BLOCK):
        directions @ block.T  # the thin side first, which is faster


def of_stream(features: Tensor, labels: Tensor, classes: int, *classifier: Tensor) -> dict[str, float]:
    """A hidden layer, or with logits (N, C) and weight (C, d) the classifier's input."""
    meter = CollapseMeter(classes)
    meter.add_means(features, labels)
    meter.add_spread(features, labels, *classifier)
    return meter.compute(*classifier[1:])


def one(args: Any, machine: dict[str, float], classes: int, d: int, spread: float) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    labels = torch.randperm(args.n, generator=g) % classes
    means = torch.randn(classes, d, generator=g)
    features = (means[labels] + spread * torch.randn(args.n, d, generator=g)).to(args.device)
    labels, weight = labels.to(args.device), means.to(args.device)
    data = features, labels, classes
    calls = {
        "two_passes": partial(two_passes, *data),
        "hidden": partial(of_stream, *data),
        "classifier": partial(of_stream, *data, features @ weight.T, weight),
        "with_logits": partial(measure, *data, weight),
        "straightforward": partial(straightforward, *data),
    }
    taken = dict(zip(calls, rounds(args.repeats, *calls.values(), device=args.device), strict=True))
    spent, bare = {name: statistics.median(times) for name, times in taken.items()}, taken["two_passes"]
    size = args.n * d
    flops = 2 * size * min(classes - 1, d) + size
    return {
        **{"n": args.n, "classes": classes, "d": d, "spread": spread},
        **{f"{name}_seconds": seconds for name, seconds in spent.items()},
        **ratio("hidden_over_two_passes", taken["hidden"], bare),
        **ratio("classifier_over_two_passes", taken["classifier"], bare),
        **ratio("with_logits_over_two_passes", taken["with_logits"], bare),
        **ratio("speedup", taken["straightforward"], taken["hidden"]),
        "limit_seconds": at_limit(flops, 2 * size * features.element_size(), machine),
        "nc1": measure(*data)["nc1"],
        "straightforward_nc1": straightforward(*data)[0],
    }


def main() -> int:
    args = arguments(
        __doc__.splitlines()[0], "measure", n=60_000, dims=[512, 2048], classes=[10, 100, 1000], spreads=[1.0, 0.1]
    )
    machine, rows = limits(args.device), []
    for classes, d, spread in product(args.classes, args.dims, args.spreads):
        row = one(args, machine, classes, d, spread)
        rows.append(row)
        print(
            f"N={args.n:,} C={classes} d={d} spread {spread:g}: {row['hidden_seconds']:.3f} s, "
            f"{row['speedup']:.1f} times faster than d x d; of two bare passes {row['hidden_over_two_passes']:.2f}, "
            f"classifier's input {row['classifier_over_two_passes']:.2f}, with logits "
            f"{row['with_logits_over_two_passes']:.2f}; NC1 {row['nc1']:.6g} against {row['straightforward_nc1']:.6g}"
        )
    save(args.out, {"limits": machine, "rows": rows}, args.device, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
