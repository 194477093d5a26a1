"""What a fixed linear map costs: time and memory of learnable, frozen, dense ETF and implicit ETF maps.

    python scripts/bench_layers.py --widths 400 1024 4096      writes outputs/bench/layers.json

Time: one map d -> d, forward and backward to its input, batch 512, against the dense frozen matrix product. Step: an
MLP of four maps, forward, backward and SGD step, the last two of this kind, against all four learnable. Bytes: what is
stored (parameters and buffers), what the optimizer adds (Adam's two moments), what a forward pass keeps for backward
besides the map itself, what a checkpoint holds, and how much the peak memory of a process grows (Linux) by ten training
steps with Adam of eight such maps behind a learnable one. The limit of an implicit map: its input read and its output
written once in each direction, at the copy bandwidth.
"""

import argparse
import io
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from nclab.bench.harness import Call, arguments, interleaved, limits, save
from nclab.bench.maps import BATCH, STEPS, make, step, steps_of_stack
from nclab.etf import FixedLinear, state_without_fixed
from nclab.etf.state import pack
from nclab.training.optim import AdamWSettings, SGDSettings, adamw, sgd

FRAMES = ("canonical", "block", "signed_permutation", "hadamard")
KINDS = ("learnable", "frozen", "random", *FRAMES)


def through(layer: nn.Module, x: Tensor, gradient: Tensor) -> None:
    """Forward, and backward to the input and to what is learnable."""
    torch.autograd.grad(layer(x), (x, *layer.parameters()), gradient)


def network(kind: str, d: int, device: str, batch: int) -> Call:
    """A training step of an MLP whose last two of four maps are of this kind."""
    maps = [make("learnable" if i < 2 else kind, d, device) for i in range(4)]
    model = nn.Sequential(*(layer for m in maps for layer in (m, nn.ReLU())))
    x = torch.randn(batch, d, device=device)
    return partial(step, model, sgd(SGDSettings(), model.parameters()), x)


def stored(kind: str, d: int, batch: int) -> dict[str, int]:
    """Bytes of one map: parameters and buffers, Adam's state, kept for backward, in a checkpoint."""
    layer = make(kind, d)
    kept: set[tuple[int, int]] = set()
    x = torch.randn(batch, d, requires_grad=True)
    own = {t.data_ptr() for t in (*layer.parameters(), *layer.buffers())}

    def note(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            kept.add((t.data_ptr(), t.untyped_storage().nbytes()))
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        y = layer(x)
    y.sum().backward()
    optimizer = adamw(AdamWSettings(), layer.parameters())
    optimizer.step()
    moments = (t for state in optimizer.state.values() for t in state.values())
    buffer = io.BytesIO()
    torch.save((state_without_fixed(layer), pack(layer) if isinstance(layer, FixedLinear) else None), buffer)
    return {
        "map_bytes": sum(t.nbytes for t in (*layer.parameters(), *layer.buffers())),
        "adam_bytes": sum(t.nbytes for t in moments),
        "kept_bytes": sum(size for _, size in kept),
        "checkpoint_bytes": buffer.tell(),
    }


def peak_growths(d: int, args: argparse.Namespace) -> dict[str, int]:
    """Bytes by which the peak memory of a fresh process grows when it builds and trains a stack of layers of a kind:
    one process that has imported everything, and a fork of it for each kind."""
    numbers = {"--widths": d, "--threads": args.threads, "--steps": args.steps, "--batch": args.batch}
    words = [str(word) for pair in numbers.items() for word in pair]
    command = [sys.executable, __file__, "--peak", *words, "--kinds", *args.kinds]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(args.kinds, map(int, done.stdout.split()), strict=True))


def print_peaks(kinds: list[str], d: int, steps: int, batch: int) -> None:
    """Forked while nothing has run: no thread is lost, no memory freed that a child could use."""
    adamw(AdamWSettings(), nn.Linear(1, 1).parameters())  # torch's first optimizer imports its compiler: two seconds
    for kind in kinds:
        if child := os.fork():
            _, code = os.waitpid(child, 0)
            if code:
                sys.exit(f"the process of {kind} ended with code {code}")
        else:
            print(peak_of_steps(kind, d, steps, batch), flush=True)
            os._exit(0)


def peak_of_steps(kind: str, d: int, steps: int, batch: int) -> int:
    x = torch.randn(batch, d)
    warm = nn.Linear(d, 8)  # what every process needs is there before
    step(warm, adamw(AdamWSettings(), warm.parameters()), x)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    steps_of_stack(kind, d, steps=steps, batch=batch)()
    return status("VmHWM") - before


def status(key: str) -> int:
    """Bytes of this process, by the kernel's name for them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def main() -> int:
    args = arguments(
        __doc__.splitlines()[0],
        "layers",
        widths=[400, 1024, 4096],
        kinds=[*KINDS],
        steps=STEPS,
        batch=BATCH,
        peak=False,
    )
    if args.peak:
        print_peaks(args.kinds, args.widths[0], args.steps, args.batch)
        return 0
    machine, rows = limits(args.device), []
    for d in args.widths:
        peaks = peak_growths(d, args)
        layers = {kind: make(kind, d, args.device) for kind in args.kinds}
        x = torch.randn(args.batch, d, device=args.device, requires_grad=True)
        gradient = torch.randn(args.batch, d, device=args.device)
        single = interleaved(args.repeats, *(partial(through, m, x, gradient) for m in layers.values()))
        steps = interleaved(args.repeats, *(network(kind, d, args.device, args.batch) for kind in args.kinds))
        dense, learnable = single[args.kinds.index("frozen")], steps[args.kinds.index("learnable")]
        limit = 4 * x.nbytes / machine["copy_bytes"]
        for kind, one, whole in zip(args.kinds, single, steps, strict=True):
            row = {"kind": kind, "d": d, "seconds": one, "speedup": dense / one, "limit_seconds": limit}
            row |= {"step_seconds": whole, "step_speedup": learnable / whole, **stored(kind, d, args.batch)}
            row["peak_bytes"] = peaks[kind]
            rows.append(row)
            print(
                f"d={d} {kind}: {one * 1e3:.2f} ms, {row['speedup']:.1f} times faster than frozen, limit "
                f"{limit * 1e3:.2f} ms; step {row['step_speedup']:.2f}; map {row['map_bytes']:,} B, Adam "
                f"{row['adam_bytes']:,}, kept {row['kept_bytes']:,}, checkpoint {row['checkpoint_bytes']:,}, peak "
                f"+{row['peak_bytes'] / 2**20:.0f} MiB",
                flush=True,
            )
    save(args.out, {"limits": machine, "batch": args.batch, "rows": rows}, args.device, args.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
