"""Handwritten digits of scikit-learn: 1,797 images of 8 x 8 in 17 grey levels, shipped in its wheel.

1,437 train and 360 test images (80/20, stratified, fixed): 139 to 146 and 35 to 37 a class.
"""

import io
from pathlib import Path

import numpy as np
import torch

from nclab.data.checksum import from_wheel
from nclab.data.dataset import DATASETS, Dataset
from nclab.data.images import ImageSettings
from nclab.data.split import Split
from nclab.interfaces.targets import Classes

TEST_SIZE = 360
MD5 = "a0339c30a8a5312a1b6f9e5c719dcce5"  # of the unpacked table


@DATASETS.add("digits", ImageSettings)
def build(settings: ImageSettings, root: Path) -> Dataset:
    table = io.BytesIO(from_wheel("sklearn", "datasets/data/digits.csv.gz", MD5))
    rows = torch.from_numpy(np.loadtxt(table, np.uint8, delimiter=","))  # (N, 65), pixels 0..16, then the label
    everything = Split(rows[:, :-1].reshape(-1, 1, 8, 8).contiguous(), rows[:, -1].long())
    train, test = everything.divide(TEST_SIZE)
    return Dataset({"train": train, "test": test}, Classes(10), shape=(1, 8, 8), pixel_max=16)
