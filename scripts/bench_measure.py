"""What measuring collapse costs: against the straightforward way, against two bare passes, against the machine.

    python scripts/bench_measure.py --dims 512 2048       writes outputs/bench/measure.json

The straightforward way is float32 class means, the d x d covariances, a pseudo-inverse of Sigma_B and NCC by distances
in R^d. `two passes` are the bare operations that no algorithm of two passes can save: a one-hot matmul (C, N) x (N, d)
and a product (N, d) x (d, C-1). The limit: 4 N d C operations, and features read twice.
"""

import sys
from functools import partial

import torch
from torch import Tensor

from nclab.bench.harness import arguments, at_limit, interleaved, limits, save
from nclab.metrics import measure

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
    features @ torch.ones(features.shape[1], CLASSES - 1, device=features.device)


def main() -> int:
    args = arguments(__doc__.splitlines()[0], "measure", n=60_000, dims=[512, 2048])
    machine, rows = limits(args.device), []
    for d in args.dims:
        g = torch.Generator().manual_seed(0)
        labels = torch.randint(0, CLASSES, (args.n,), generator=g)
        features = torch.randn(CLASSES, d, generator=g)[labels] + torch.randn(args.n, d, generator=g)
        features, labels = features.to(args.device), labels.to(args.device)
        calls = (
            partial(f, features, labels) for f in (partial(measure, num_classes=CLASSES), straightforward, two_passes)
        )
        ours, theirs, bare = interleaved(args.repeats, *calls, device=args.device)
        size = args.n * d
        row = {
            "n": args.n,
            "d": d,
            "seconds": ours,
            "straightforward_seconds": theirs,
            "two_passes_seconds": bare,
            "speedup": theirs / ours,
            "over_two_passes": ours / bare,
            "limit_seconds": at_limit(4 * size * CLASSES, 2 * size * features.element_size(), machine),
            "nc1": measure(features, labels, CLASSES)["nc1"],
            "straightforward_nc1": straightforward(features, labels)[0],
        }
        rows.append(row)
        print(
            f"N={args.n:,} d={d}: {ours:.3f} s, {row['speedup']:.1f} times faster than d x d, "
            f"{row['over_two_passes']:.2f} of two bare passes, limit {row['limit_seconds']:.3f} s; "
            f"NC1 {row['nc1']:.6g} against {row['straightforward_nc1']:.6g}"
        )
    save(args.out, {"limits": machine, "rows": rows}, args.device, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
