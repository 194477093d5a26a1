"""Handwritten digits of scikit-learn: 1,797 images of 8 x 8 in 17 grey levels, shipped in its wheel.

1,437 train and 360 test images (80/20, stratified, fixed): 139 to 146 and 35 to 37 a class.
"""

from pathlib import Path

import torch

from nclab.data.dataset import DATASETS, Dataset, DatasetSettings, Split

TEST_SIZE = 360


@DATASETS.add("digits", DatasetSettings)
def build(settings: DatasetSettings, root: Path) -> Dataset:
    from sklearn.datasets import load_digits  # here, because it takes a second that no other dataset needs

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)  # (N, 1, 8, 8), whole numbers 0..16
    train, test = Split(images, torch.from_numpy(bunch.target).long()).divide(TEST_SIZE)
    return Dataset(train, test, num_classes=10, shape=(1, 8, 8), pixel_max=16)
