"""dataset=free_features: row numbers and their classes, for models that hold a free feature for every row."""

from dataclasses import dataclass
from pathlib import Path

import torch

from nclab.data.dataset import DATASETS, Dataset, DatasetSettings
from nclab.data.imbalance import Imbalance
from nclab.data.split import Split
from nclab.interfaces.shapes import IndexShape
from nclab.interfaces.targets import Classes
from nclab.interfaces.valid import OutOfRange


@dataclass
class FreeFeaturesSettings(DatasetSettings):
    """The numbers of rows of the classes are those of `nclab.data.imbalance.Imbalance`, n_max = per_class."""

    name: str = "free_features"
    classes: int = 10  # C, at least 2
    per_class: int = 20  # rows of the largest class
    imbalance: float = 1.0  # rows of the largest class, class 0, over those of the smallest, the last; 1: balanced

    def __post_init__(self) -> None:
        for key, least in (("classes", 2), ("per_class", 1)):
            if (came := getattr(self, key)) < least:
                raise OutOfRange(f"dataset.{key} must be at least {least}, got {came}", f"dataset.{key}")
        if not 1 <= self.imbalance <= self.per_class:
            raise ValueError(
                f"dataset.imbalance must be between 1 and dataset.per_class ({self.per_class}), got {self.imbalance:g}"
            )
        super().__post_init__()
        for key in ("train_size", "test_size", "valid_size", "label_noise", "source_classes", "source_list"):
            if came := getattr(self, key):
                raise ValueError(
                    f"dataset.{key} means nothing for free features, of which each row is one of a class like every "
                    f"other; expected it left out, the number of rows is dataset.per_class; got {came}"
                )

    @property
    def counts(self) -> list[int]:
        """Rows of each class, (C,)."""
        return Imbalance(self.imbalance, self.imbalance_profile).counts(self.per_class, self.classes)


@DATASETS.add("free_features", FreeFeaturesSettings)
def build(settings: FreeFeaturesSettings, root: Path) -> Dataset:
    """Row numbers in the order of their classes; there is no test split, since a free feature has no test sample."""
    counts = torch.tensor(settings.counts)
    labels = torch.arange(settings.classes).repeat_interleave(counts)  # (N,)
    return Dataset(
        {"train": Split(torch.arange(len(labels)), labels)}, Classes(settings.classes), IndexShape(len(labels))
    )
