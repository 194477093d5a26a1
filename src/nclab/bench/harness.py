"""What benchmarks share: calls timed in turns, the machine's own limits, and one JSON file a benchmark.

A figure is a ratio of two times of one run on one machine; seconds alone mean nothing elsewhere. Beside it stands the
physical limit: the time that the same operations and bytes take at the machine's measured matrix-product rate and
memory bandwidth.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nclab.runfolder.provenance import provenance
from nclab.system.machine import default_threads, keep_freed_memory

GEMM_SIDE = 2048
COPY_BYTES = 2**28
Call = Callable[[], object]


def arguments(about: str, name: str, **defaults: Any) -> argparse.Namespace:
    """The command line that all benchmarks share (device, threads, repeats, out) and keys of one's own, whose type is
    that of their default (False: a flag); sets the process up as a training run would be."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--repeats", type=int, default=5, help="each figure is the median of as many")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench") / f"{name}.json")
    for key, default in defaults.items():
        kind = {"type": type(default[0]), "nargs": "+"} if isinstance(default, list) else {"type": type(default)}
        kind = {"action": "store_true"} if default is False else kind
        parser.add_argument(f"--{key.replace('_', '-')}", default=default, **kind)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_freed_memory()
    return chosen


def wait(device: str) -> None:
    """Let the device finish what was asked of it: calls to a GPU return at once."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def seconds(call: Call, device: str = "cpu") -> float:
    wait(device)
    began = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - began


def rounds(repeats: int, *calls: Call, device: str = "cpu") -> list[list[float]]:
    """Seconds of each call in every round, after one that is not measured. The calls take turns, so that a slow minute
    of the machine hits all of them."""
    times = [[seconds(call, device) for call in calls] for _ in range(repeats + 1)][1:]
    return [list(of_call) for of_call in zip(*times, strict=True)]


def interleaved(repeats: int, *calls: Call, device: str = "cpu") -> list[float]:
    """Median seconds of each call, over `rounds`."""
    return [statistics.median(of_call) for of_call in rounds(repeats, *calls, device=device)]


def ratio(name: str, over: list[float], under: list[float]) -> dict[str, Any]:
    """`name`: the ratio of the medians of two calls' rounds; `name_spread`: the least and the greatest of one."""
    each = [a / b for a, b in zip(over, under, strict=True)]
    return {name: statistics.median(over) / statistics.median(under), f"{name}_spread": [min(each), max(each)]}


def limits(device: str) -> dict[str, float]:
    """What the machine can do at most, with the threads that are set: float32 matrix products in FLOP/s, and bytes/s
    read by a sum and moved (read and written) by a copy. The best of several, not the median: a limit."""
    a = torch.randn(GEMM_SIDE, GEMM_SIDE, device=device)
    x = torch.ones(COPY_BYTES // 4, device=device)
    y = torch.empty_like(x)

    def best(call: Call) -> float:
        return min(seconds(call, device) for _ in range(7))

    return {
        "gemm_flops": 2 * GEMM_SIDE**3 / best(lambda: a @ a),
        "read_bytes": COPY_BYTES / best(lambda: x.sum()),
        "copy_bytes": 2 * COPY_BYTES / best(lambda: y.copy_(x)),
    }


def at_limit(flops: float, read: float, machine: dict[str, float]) -> float:
    """Seconds that so many operations and bytes read take at the machine's limits, the longer of the two."""
    return max(flops / machine["gemm_flops"], read / machine["read_bytes"])


def images(n: int, num_classes: int, shape: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """uint8 noise (n, ch, h, w) and balanced labels: random pixels cost the same as real ones."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=g), torch.arange(n) % num_classes


def save(out: Path, result: dict[str, Any], device: str, threads: int) -> None:
    """Write the result with date, versions and hardware, and say where."""
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {"date": date.today().isoformat(), **provenance(device, threads)}
    out.write_text(json.dumps({**result, **about}, indent=1) + "\n")
    print(out)
