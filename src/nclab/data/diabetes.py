"""Diabetes of scikit-learn: 442 patients, 10 numbers each, one target; shipped in its wheel.

354 train and 88 test patients (fixed, at random). The numbers are the raw ones: age, sex, body mass index, blood
pressure and six serum measurements; the target is the progress of the disease after a year, 25 to 346.
"""

from dataclasses import dataclass
from pathlib import Path

from nclab.data.dataset import DATASETS, Dataset
from nclab.data.regression import RegressionSettings, regression, wheel_tables
from nclab.data.split import Split

TEST_SIZE = 88
FILES = {  # in scikit-learn -> md5 of the unpacked table
    "diabetes_data_raw.csv.gz": "e022ac43b66f542dff1d4b331d7eef66",
    "diabetes_target.csv.gz": "3e3835cad7a1565b5142786dfbd64bc6",
}


@dataclass
class DiabetesSettings(RegressionSettings):
    name: str = "diabetes"
    standardize: bool = True  # mean 0, variance 1 a number over the train split
    standardize_targets: bool = True  # mean 0, variance 1 of the target over the train split


@DATASETS.add("diabetes", DiabetesSettings)
def build(settings: DiabetesSettings, root: Path) -> Dataset:
    """Diabetes: 442 patients, 10 numbers and one target, shipped in scikit-learn's wheel."""
    x, y = wheel_tables(FILES)
    everything = Split(x, y.reshape(-1, 1))
    train, test = everything.divide(TEST_SIZE)
    return regression(settings, {name: (s.samples, s.targets) for name, s in (("train", train), ("test", test))})
