"""Training epochs of MLP, ViT and ResNet18 at full size, and how much of the device they use."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from nclab.bench.by_hand import feed, learner
from nclab.bench.gpu.products import noise
from nclab.bench.gpu.row import Aim, Line, Row, at_once
from nclab.bench.harness import seconds
from nclab.interfaces.shapes import ImageShape
from nclab.models import Classifier
from nclab.models.mlp import MLP
from nclab.models.resnet import ResNetSettings, build_resnet
from nclab.models.vit import ViT
from nclab.training.optim import AdamWSettings, SGDSettings, adamw, sgd
from nclab.training.step import train_epoch, training_run

CLASSES, BATCH, WARM = 10, 128, 20 * 128
SIDE = 8192  # of the matrix product that tells the device's rate


@dataclass(frozen=True)
class Setting:
    aim: Aim
    shape: tuple[int, int, int]
    images: int
    build: Callable[[], Classifier]
    precision: str = "float32"


def epoch_aim(name: str, most: float) -> Aim:
    return Aim(f"training epoch of {name}", "s", most=most)


SETTINGS = (
    Setting(
        epoch_aim("MLP-5x400, 60,000 images of 28 x 28", 1),
        (1, 28, 28),
        60_000,
        lambda: MLP(784, CLASSES, 5, 400),
    ),
    Setting(
        epoch_aim("ViT-2x64, patch 7, 60,000 images of 28 x 28", 2.5),
        (1, 28, 28),
        60_000,
        lambda: ViT((1, 28, 28), CLASSES, patch=7),
    ),
    Setting(
        epoch_aim("ResNet18 in bf16, 50,000 images of 3 x 32 x 32", 8),
        (3, 32, 32),
        50_000,
        lambda: build_resnet(ResNetSettings(stem="cifar"), ImageShape(3, 32, 32), CLASSES),
        "bf16",
    ),
)


def rate(device: str, dtype: torch.dtype, side: int = SIDE) -> float:
    """FLOP/s of a large matrix product: float32 without TF32, or bf16."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / min(seconds(lambda: a @ a, device) for _ in range(4))


def flops_of_a_step(model: nn.Module, step: Callable[[], object]) -> float:
    """Forward and backward, by torch's counter of products and convolutions."""
    with FlopCounterMode(display=False) as count:
        step()
    return float(count.get_total_flops())


def busy(call: Callable[[], object], device: str) -> float | None:
    """The share of the time of the call in which kernels run, by the profiler; None where it sees no kernel: on a CPU,
    or where the machine does not let it read the device's counters."""
    activity = ProfilerActivity.CUDA if device.startswith("cuda") else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiled:
        spent = seconds(call, device)
    return sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6 / spent or None


def timed(setting: Setting, device: str, images: int | None = None, side: int = SIDE) -> Row:
    """The row of a setting; images: of an epoch, None: its own."""
    n = images or setting.images
    model = setting.build().to(device)
    optimizer = adamw(AdamWSettings(), model.parameters()) if isinstance(model, ViT) else None
    optimizer = optimizer or sgd(SGDSettings(), model.parameters())
    of_model = learner(model, optimizer, run=training_run(model, setting.precision))
    short, whole = (feed(noise(size, setting.shape, device), BATCH) for size in (min(n, WARM), n))
    train_epoch(of_model, short)
    spent = seconds(lambda: train_epoch(of_model, whole), device)
    share = busy(lambda: train_epoch(of_model, short), device)
    one = feed(noise(BATCH, setting.shape, device), BATCH)
    flops = flops_of_a_step(model, lambda: train_epoch(of_model, one)) * n / BATCH
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    used = flops / spent / rate(device, dtype, side)
    kernels = "an unknown share" if share is None else f"{share:.0%}"
    return setting.aim.row(spent, f"kernels run {kernels} of the time, {used:.1%} of the product rate")


def measure(device: str) -> list[Row]:
    return [timed(setting, device) for setting in SETTINGS]


LINE = Line("epochs", 50, tuple(setting.aim for setting in SETTINGS), at_once(measure))
