"""Peak memory of training steps with Adam: learnable, frozen and ETF layers."""

from collections.abc import Callable

import torch

from nclab.bench.gpu.row import Aim, Line, Row, at_once
from nclab.bench.maps import STACK, steps_of_stack
from nclab.training.memory import allocated_peak, begin_peak

D = 4096
LEARNABLE = Aim(f"peak of {STACK} learnable layers {D} x {D} behind one, Adam", "MiB")
# Dense: a weight in the place of a weight, its gradient and two moments; without a stored matrix: the first layer's.
MOST = {"frozen": 0.4, "random": 0.4, "canonical": 0.25, "hadamard": 0.25}
FIXED = {
    kind: Aim(f"the same {'frozen' if kind == 'frozen' else f'as ETF, frame {kind}'}", "of learnable", most=most)
    for kind, most in MOST.items()
}


def peak(kind: str, device: str, d: int = D) -> int:
    """Bytes that training steps need at most, weights included; the making of the layers is left out."""
    steps = steps_of_stack(kind, d, device)
    begin_peak(device)
    steps()
    return allocated_peak(device)


def measure(device: str, peak_of: Callable[[str, str], int] = peak) -> list[Row]:
    peaks = {}
    for kind in ("learnable", *FIXED):
        peaks[kind] = peak_of(kind, device)
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    mib = {kind: size / 2**20 for kind, size in peaks.items()}
    learnable = LEARNABLE.row(mib["learnable"])
    return [learnable, *(aim.row(mib[k] / mib["learnable"], f"{mib[k]:,.0f} MiB") for k, aim in FIXED.items())]


LINE = Line("layers", 30, (LEARNABLE, *FIXED.values()), at_once(measure))
