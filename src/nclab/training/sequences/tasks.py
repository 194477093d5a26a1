"""phases=tasks: the classes in groups, one after the other (continual learning)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nclab.data import Dataset, Split
from nclab.etf.policy import site_seed
from nclab.interfaces.targets import Classes
from nclab.interfaces.valid import no_choice
from nclab.training.optim import at_least
from nclab.training.phases import PHASES, Phase, Phases, PhasesSettings

SCENARIOS = ("class", "task", "domain")
BEGINNINGS = ("restart", "keep")
NEEDS_CLASSES = "phases=tasks needs classes, and this dataset's targets are values"


@dataclass
class TasksSettings(PhasesSettings):
    """Every task has as many classes and as many epochs; its test samples are the split `task1`, `task2`, ..., so that
    the accuracy of split `taskj` after task i is A_ij."""

    name: str = "tasks"
    count: int | None = 5  # tasks; null: as many as phases.classes makes
    classes: int | None = None  # a task; null: all, shared evenly
    # class: one head for all classes | task: a head a task, of the classes of that task alone | domain: one head whose
    # outputs mean the classes of every task in turn: a label is the place of the class in its task
    incremental: str = "class"
    permute: bool = True  # the order of the classes is drawn from the seed; false: as they are numbered
    optimizer: str = "restart"  # what a task finds: restart: an optimizer without memory | keep: the one before
    schedule: str = "restart"  # restart: the schedule begins anew in every task | keep: it runs over all tasks

    def __post_init__(self) -> None:
        if self.count is None and self.classes is None:
            raise ValueError("phases=tasks needs phases.count or phases.classes, got null for both")
        if self.count is not None:
            at_least("phases.count", self.count, 2)
        if self.classes is not None:
            at_least("phases.classes", self.classes, 1)
        if self.incremental not in SCENARIOS:
            raise no_choice("phases.incremental", self.incremental, SCENARIOS)
        for key in ("optimizer", "schedule"):
            if getattr(self, key) not in BEGINNINGS:
                raise no_choice(f"phases.{key}", getattr(self, key), BEGINNINGS)

    def groups(self, classes: int, seed: int) -> list[list[int]]:
        """The classes of every task, each in rising order. Raises ValueError where they cannot be shared evenly."""
        for key in ("count", "classes"):
            if (number := getattr(self, key)) is not None and classes % number:
                raise ValueError(f"phases.{key}={number} does not divide the {classes} classes of the dataset")
        count = self.count or classes // self.classes
        each = self.classes or classes // self.count
        if count * each != classes:
            raise ValueError(
                f"phases.count={count} of phases.classes={each} each are {count * each} classes, and the dataset has "
                f"{classes}"
            )
        if each < 2 and self.incremental != "class":
            raise ValueError(f"phases.incremental={self.incremental}: expected two or more classes a task, got {each}")
        order = torch.arange(classes)
        if self.permute:
            order = torch.randperm(classes, generator=torch.Generator().manual_seed(site_seed(seed, "tasks")))
        return [sorted(group.tolist()) for group in order.split(each)]

    def data(self, dataset: Dataset, seed: int) -> Dataset:
        """With the test split of every task, and the labels or heads of the scenario."""
        if not isinstance(dataset.targets, Classes):
            raise ValueError(NEEDS_CLASSES)
        if "test" not in dataset.splits:
            raise ValueError(f"phases=tasks needs a split test, the dataset has {', '.join(dataset.splits)}")
        groups = self.groups(dataset.targets.count, seed)
        test = dataset.splits["test"]
        splits = dict(dataset.splits)
        for i, group in enumerate(groups):
            if (name := task_name(i)) in splits:
                raise ValueError(f"phases=tasks: the data have a split {name} already, the name of a task's test split")
            splits[name] = test[_of_classes(test.targets, group)]
            if not len(splits[name]):
                named = ", ".join(map(str, group))
                raise ValueError(f"phases=tasks: expected test samples of every task, got none of classes {named}")
        if self.incremental == "domain":
            return replace(dataset, splits=_as_places(splits, groups), targets=Classes(len(groups[0])))
        heads = tuple(map(tuple, groups)) if self.incremental == "task" else None
        return replace(dataset, splits=splits, targets=replace(dataset.targets, heads=heads))


@PHASES.add("tasks", TasksSettings)
def tasks(settings: TasksSettings, seed: int) -> Phases:
    """One phase a task: the samples of its classes alone."""

    def phases(dataset: Dataset, epochs: int) -> list[Phase]:
        if not isinstance(dataset.targets, Classes):
            raise ValueError(NEEDS_CLASSES)
        groups = settings.groups(dataset.targets.count, seed)
        if epochs % len(groups):
            raise ValueError(
                f"phases=tasks shares the epochs evenly: expected a multiple of its {len(groups)} tasks, got "
                f"epochs={epochs}"
            )
        targets, fresh = (
            dataset.train.targets,
            [getattr(settings, key) == "restart" for key in ("optimizer", "schedule")],
        )
        return [
            Phase(task_name(i), epochs // len(groups), _of_classes(targets, group).nonzero().flatten(), None, *fresh)
            for i, group in enumerate(groups)
        ]

    return phases


def task_name(task: int) -> str:
    """Of a task, counted from 0, and of its test split."""
    return f"task{task + 1}"


def _of_classes(targets: Tensor, classes: list[int]) -> Tensor:
    """Which targets (N,) are of these classes, a mask."""
    return torch.isin(targets, torch.tensor(classes, device=targets.device))


def _as_places(splits: Mapping[str, Split], groups: list[list[int]]) -> dict[str, Split]:
    """The splits with the place of each class in its group for a label."""
    place = {label: i for group in groups for i, label in enumerate(group)}
    places = torch.tensor([place[label] for label in range(len(place))])
    return {name: Split(s.samples, places.to(s.targets.device)[s.targets]) for name, s in splits.items()}
