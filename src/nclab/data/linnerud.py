"""Linnerud of scikit-learn: 20 men, three exercises each and three measures of the body; shipped in its wheel.

All 20 are the train split: there are too few for another. Inputs: chins, situps, jumps. Targets: weight, waist, pulse.
"""

from dataclasses import dataclass
from pathlib import Path

from nclab.data.dataset import DATASETS, Dataset
from nclab.data.regression import RegressionSettings, regression, wheel_tables

FILES = {  # in scikit-learn -> md5
    "linnerud_exercise.csv": "2f53dcc7be3d23b72b2e5c30c18d3e33",
    "linnerud_physiological.csv": "8910c85218a37d60ea73a66e85032723",
}


@dataclass
class LinnerudSettings(RegressionSettings):
    name: str = "linnerud"
    standardize: bool = True  # mean 0, variance 1 a number over the train split
    standardize_targets: bool = True  # mean 0, variance 1 a target over the train split


@DATASETS.add("linnerud", LinnerudSettings)
def build(settings: LinnerudSettings, root: Path) -> Dataset:
    """Linnerud: 20 men, three exercises and three measures of the body, shipped in scikit-learn's wheel."""
    x, y = wheel_tables(FILES, skiprows=1)
    return regression(settings, {"train": (x, y)})
