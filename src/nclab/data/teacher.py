"""A regression that a random teacher makes: inputs x ~ N(0, I), targets f(x) with a covariance of a stated spectrum.

f is a linear layer, or a network x -> tanh -> n values, with weights drawn at random; an affine map behind it gives the
targets of the train split mean 0 and exactly this spectrum. Always the same data, whatever the seed of a run.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nclab.data.dataset import DATASETS, Dataset
from nclab.data.regression import RegressionSettings, regression, require_spectrum, with_spectrum
from nclab.interfaces.valid import OutOfRange, no_choice

DRAW = 2024  # seeds inputs, teacher and eigenvectors
TEACHERS = ("network", "linear")


@dataclass
class TeacherSettings(RegressionSettings):
    name: str = "teacher"
    samples: int = 1000  # of the train split
    test_samples: int = 1000  # of the test split
    inputs: int = 10  # numbers of a sample, N(0, 1) each
    # eigenvalues of the covariance of the train targets; as many targets. The default is that of dataset=reacher
    spectrum: list[float] = field(default_factory=lambda: [0.0114, 0.0049])
    teacher: str = "network"  # network: one hidden layer of tanh | linear: at most as many targets as inputs
    hidden: int = 64  # units of the network teacher

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("samples", 2), ("test_samples", 1), ("inputs", 1), ("hidden", 1)):
            if (came := getattr(self, key)) < least:
                raise OutOfRange(f"dataset.{key} must be at least {least}, got {came}", f"dataset.{key}")
        require_spectrum(self.spectrum, self.samples)
        if self.teacher not in TEACHERS:
            raise no_choice("dataset.teacher", self.teacher, TEACHERS)
        most = self.inputs if self.teacher == "linear" else self.hidden
        if len(self.spectrum) > most:
            came = len(self.spectrum)
            raise OutOfRange(f"dataset.spectrum must have at most {most} numbers, got {came}", "dataset.spectrum")


@DATASETS.add("teacher", TeacherSettings)
def build(settings: TeacherSettings, root: Path) -> Dataset:
    """A regression that a random network or linear layer makes, with targets of a stated covariance spectrum."""
    generator = torch.Generator().manual_seed(DRAW)
    f = _teacher(settings, generator)
    counts = {"train": settings.samples, "test": settings.test_samples}
    inputs = {name: _normal(count, settings.inputs, generator) for name, count in counts.items()}
    mean, matrix = with_spectrum(f(inputs["train"]), settings.spectrum, generator)
    return regression(settings, {name: (x, (f(x) - mean) @ matrix) for name, x in inputs.items()})


def _teacher(settings: TeacherSettings, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    n = len(settings.spectrum)
    if settings.teacher == "linear":
        weight = _normal(settings.inputs, n, generator)
        return lambda x: x @ weight
    first = _normal(settings.inputs, settings.hidden, generator) / settings.inputs**0.5
    shift, last = _normal(1, settings.hidden, generator), _normal(settings.hidden, n, generator)
    return lambda x: torch.tanh(2 * x @ first + shift) @ last


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, dtype=torch.float64, generator=generator)
