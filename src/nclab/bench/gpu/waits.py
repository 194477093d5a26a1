"""How often the host waits for the device: in measuring once a split, in training once an epoch, never a batch."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from nclab.bench.by_hand import feed, learner
from nclab.bench.gpu.row import Aim, Line, Row, at_once
from nclab.bench.harness import images
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.models.mlp import MLP
from nclab.training.evaluate import MetricsSettings, evaluate
from nclab.training.optim import SGDSettings, sgd
from nclab.training.step import train_epoch

MEASURING = Aim("waits of the host a batch of a measurement", "waits", most=0)
TRAINING = Aim("waits of the host a training step", "waits", most=0)
ONCE = Aim("waits of the host a measurement of two splits")
SHAPE, CLASSES, BATCH = (1, 28, 28), 10, 100
FEW, MANY = 500, 2000  # samples of a split


@contextmanager
def warned_of_waits() -> Iterator[None]:
    """Torch warns of every operation that waits for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waits(call: Callable[[], object]) -> int:
    """How many operations of the call waited for the device; one call before it is not counted."""
    call()
    with warnings.catch_warnings(record=True, action="always") as said, warned_of_waits():
        call()
    # Not that of the switch itself, which "does not yet detect all synchronizing operations".
    return sum("called a synchronizing" in str(warning.message) for warning in said)


def calls(n: int, device: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """A measurement and a training epoch of n samples a split."""
    splits = {part: Split(*images(n, CLASSES, SHAPE, seed=n)) for part in ("train", "test")}
    dataset = Dataset(splits, Classes(CLASSES), SHAPE).to(device)
    model = MLP(784, CLASSES, 4, 64).to(device)
    of_model, batches = learner(model, sgd(SGDSettings(), model.parameters())), feed(dataset, BATCH)
    settings = MetricsSettings(batch_size=BATCH)
    return lambda: evaluate(model, dataset, settings), lambda: train_epoch(of_model, batches)


def measure(device: str) -> list[Row]:
    few, many = calls(FEW, device), calls(MANY, device)
    more = (MANY - FEW) // BATCH
    (few_measuring, few_training), (measuring, training) = ([waits(call) for call in pair] for pair in (few, many))
    return [
        MEASURING.row(
            (measuring - few_measuring) / (2 * more), f"{few_measuring} of {FEW}, {measuring} of {MANY} a split"
        ),
        TRAINING.row((training - few_training) / more, f"{few_training} of {FEW}, {training} of {MANY} samples"),
        ONCE.row(measuring),
    ]


LINE = Line("waits", 30, (MEASURING, TRAINING, ONCE), at_once(measure))
