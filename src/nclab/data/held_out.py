"""Source classes, which are learnt, and held-out classes, on which a trained network's features are judged."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nclab.data.split import Split
from nclab.interfaces.valid import OutOfRange


@dataclass(frozen=True)
class ClassSplit:
    """Which classes are learnt: a number of them, drawn by a seed, or those of a list; neither: all.

    ValueError for keys that mean nothing, whatever the dataset."""

    source_classes: int | None = None
    class_split: int = 0
    source_list: list[int] | None = None

    def __post_init__(self) -> None:
        number, seed, listed = self.source_classes, self.class_split, self.source_list
        if number is not None and listed is not None:
            raise ValueError(
                "dataset.source_list and dataset.source_classes both choose the classes that are learnt; leave out "
                f"one, got {listed} and {number}"
            )
        if number is not None and number < 2:
            raise OutOfRange(f"dataset.source_classes must be at least 2, got {number}", "dataset.source_classes")
        if listed is not None and (len(listed) < 2 or len(set(listed)) < len(listed)):
            raise ValueError(f"dataset.source_list: expected two or more different classes, got {listed}")
        if not 0 <= seed < 2**63:
            raise OutOfRange(f"dataset.class_split must be between 0 and 2^63 - 1, got {seed}", "dataset.class_split")
        if seed and number is None:
            raise ValueError(
                f"dataset.class_split={seed} needs dataset.source_classes, the number of classes that it draws"
            )

    @property
    def key(self) -> str | None:
        """The key by which classes are held out; None: none are."""
        if self.source_list is not None:
            return "dataset.source_list"
        return None if self.source_classes is None else "dataset.source_classes"

    def source_of(self, count: int) -> list[int]:
        """The classes of `count` that are learnt: listed ones in their order, drawn ones in that of their numbers.

        Raises ValueError for classes that are not there, and where none is left to hold out."""
        if self.source_list is not None:
            if not all(0 <= label < count for label in self.source_list):
                raise ValueError(f"expected classes in 0..{count - 1}, got {self.source_list}")
            source = self.source_list
        else:
            generator = torch.Generator().manual_seed(self.class_split)
            source = torch.randperm(count, generator=generator)[: self.source_classes].sort().values.tolist()
        if len(source) >= count:
            asked = self.source_classes or len(source)
            raise ValueError(f"expected 2 to {count - 1} of its {count} classes, so that one is held out, got {asked}")
        return source


def divided(splits: Mapping[str, Split], source: list[int], count: int) -> tuple[dict[str, Split], Split]:
    """(the splits with the classes of `source` alone, whose targets become their places in it; the samples of all
    others of `count` in the test split, or in train where there is none, their targets likewise from 0)."""
    others = [label for label in range(count) if label not in source]
    kept = {name: _of_classes(split, source, count) for name, split in splits.items()}
    return kept, _of_classes(splits.get("test", splits["train"]), others, count)


def _of_classes(split: Split, classes: list[int], count: int) -> Split:
    place: Tensor = torch.full((count,), -1)
    place[torch.tensor(classes)] = torch.arange(len(classes))
    targets = place[split.targets]
    there = targets >= 0
    return Split(split.samples[there], targets[there])
