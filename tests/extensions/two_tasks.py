"""Two tasks in sequence: digits 0 to 4, then 5 to 9, each measured on a test split of its own all the time."""

from dataclasses import dataclass, replace
from pathlib import Path

from nclab.data import DATASETS, Dataset
from nclab.data.digits import build as build_digits
from nclab.data.images import ImageSettings
from nclab.data.split import Split
from nclab.training.phases import PHASES, Phase, Phases, PhasesSettings


@dataclass
class DigitTasks(ImageSettings):
    name: str = "digit_tasks"


@DATASETS.add("digit_tasks", DigitTasks)
def digit_tasks(settings: DigitTasks, root: Path) -> Dataset:
    whole = build_digits(settings, root)
    test = whole.splits["test"]
    of_task = {f"task{task + 1}": test.targets // 5 == task for task in range(2)}
    own = {name: Split(test.samples[rows], test.targets[rows]) for name, rows in of_task.items()}
    return replace(whole, splits={**whole.splits, **own})


@dataclass
class TwoTasks(PhasesSettings):
    name: str = "two_tasks"


@PHASES.add("two_tasks", TwoTasks)
def two_tasks(settings: TwoTasks, seed: int) -> Phases:
    """The first half of the epochs on classes 0 to 4, the second on 5 to 9."""

    def phases(dataset: Dataset, epochs: int) -> list[Phase]:
        first = dataset.train.targets < 5
        rows = [part.nonzero().flatten() for part in (first, ~first)]
        return [Phase("task1", epochs // 2, rows[0]), Phase("task2", epochs - epochs // 2, rows[1])]

    return phases
