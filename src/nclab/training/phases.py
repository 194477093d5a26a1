"""Phases of a training: which rows of the train split each epoch may draw from, and what it is evaluated on.

A builder registered in `PHASES` is called as build(settings, seed) and gives a function of the dataset and the number
of epochs. One phase with all rows is the default; a sequence of tasks is one phase a task. What the phases make of the
dataset, such as a test split each, is `PhasesSettings.data`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nclab.data import Dataset, Split
from nclab.interfaces.registry import Registry

PHASES = Registry("phases", "nclab.training.sequences")


@dataclass
class PhasesSettings:
    name: str = "single"

    def data(self, dataset: Dataset, seed: int) -> Dataset:
        """The dataset as these phases see it, such as with a test split of each. A train split whose targets stay must
        stay the object that it is: several seeds share it. Raises ValueError where the dataset does not allow it."""
        return dataset


@dataclass(frozen=True)
class Phase:
    """`epochs` epochs on some rows of the train split.

    rows (n,): indices into the train split, None: all of them. splits: those that are evaluated, None: all; `train`
    must be among them, since class means are its. fresh_optimizer: whether it begins with an optimizer that remembers
    no earlier step. fresh_schedule: whether the schedule of the learning rate begins anew with it, over the epochs up
    to the next phase that does so.
    """

    name: str
    epochs: int
    rows: Tensor | None = None
    splits: tuple[str, ...] | None = None
    fresh_optimizer: bool = False
    fresh_schedule: bool = False


@dataclass(frozen=True)
class Portion:
    """The rows of the train split that a phase trains on: what a sampler orders."""

    split: Split
    rows: Tensor | None = None  # (n,); None: all

    def __len__(self) -> int:
        return len(self.split) if self.rows is None else len(self.rows)

    @property
    def targets(self) -> Tensor:
        return self.split.targets if self.rows is None else self.split.targets[self.rows]

    def of(self, positions: Tensor) -> Tensor:
        """Rows of the train split at these positions of the portion."""
        return positions if self.rows is None else self.rows[positions]


Phases = Callable[[Dataset, int], list[Phase]]  # of the dataset before `PhasesSettings.data` changed it


@PHASES.add("single", PhasesSettings)
def single(settings: PhasesSettings, seed: int) -> Phases:
    """One phase: all rows in every epoch."""
    return lambda dataset, epochs: [Phase("train", epochs)]


def rate_of_phases(phases: list[Phase], rate: Callable[[int], Callable[[int], float]]) -> Callable[[int], float]:
    """The learning rate of each epoch of the training, counted from 0. rate(n): that of a training of n epochs."""
    lengths: list[int] = []
    for phase in phases:
        if phase.fresh_schedule or not lengths:
            lengths.append(0)
        lengths[-1] += phase.epochs
    schedules = [(sum(lengths[:i]), rate(length)) for i, length in enumerate(lengths)]

    def learning_rate(epoch: int) -> float:
        begin, own = next((begin, own) for begin, own in reversed(schedules) if begin <= epoch)
        return own(epoch - begin)

    return learning_rate


def checked(phases: list[Phase], dataset: Dataset, epochs: int) -> list[Phase]:
    """The phases. Raises ValueError where they do not add up to `epochs`, draw from rows that are not there, or name a
    split that the dataset has not."""
    if sum(phase.epochs for phase in phases) != epochs or any(phase.epochs < 1 for phase in phases):
        came = ", ".join(f"{phase.name}: {phase.epochs}" for phase in phases)
        raise ValueError(f"phases must have at least one epoch each and {epochs} in all, got {came or 'none'}")
    for phase in phases:
        unknown = [split for split in phase.splits or () if split not in dataset.splits]
        if unknown or "train" not in (phase.splits or ("train",)):
            valid = ", ".join(dataset.splits)
            raise ValueError(
                f"phase {phase.name}: expected splits among {valid}, with train; got {', '.join(phase.splits)}"
            )
        if phase.rows is not None:
            low, high = (int(phase.rows.min()), int(phase.rows.max())) if len(phase.rows) else (0, -1)
            if len(phase.rows) == 1 or not 0 <= low <= high < len(dataset.train):
                came = {0: "none", 1: f"{low} alone"}.get(len(phase.rows), f"{low} to {high}")
                last = len(dataset.train) - 1
                raise ValueError(f"phase {phase.name}: expected two or more rows of 0 to {last}, got {came}")
    return phases
