"""The two datasets of images that ship with packages."""

import numpy as np
import pytest
import torch

from nclab.data import DatasetSettings, load_dataset


@pytest.mark.parametrize(
    ("name", "train", "test", "shape", "brightest"),
    [("digits", (139, 146), (35, 37), (1, 8, 8), 16), ("mnist5k", (400, 400), (100, 100), (1, 28, 28), 255)],
)
def test_shipped_datasets(name, train, test, shape, brightest, tmp_path):
    dataset = load_dataset(DatasetSettings(name), tmp_path)
    assert dataset.shape == shape
    assert dataset.train.samples.max() == dataset.pixel_max == brightest
    for split, (low, high) in ((dataset.train, train), (dataset.splits["test"], test)):
        counts = split.targets.bincount()
        assert (counts.min(), counts.max()) == (low, high)
        assert split.samples.is_contiguous()
    assert dataset.inputs(dataset.train.samples).max() == 1
    again = load_dataset(DatasetSettings(name), tmp_path)
    assert torch.equal(dataset.splits["test"].samples, again.splits["test"].samples)
    everything = torch.cat([dataset.train.samples, dataset.splits["test"].samples])
    whole = {"digits": 1797, "mnist5k": 5000}[name]
    assert len(everything) == whole
    # Nearest train image by pixels: a label column or an image layout read wrongly would not survive this.
    a, b = dataset.train.samples.flatten(1).float(), dataset.splits["test"].samples.flatten(1).float()
    nearest = dataset.train.targets[torch.cdist(b, a).argmin(1)]
    assert (nearest == dataset.splits["test"].targets).float().mean() > 0.9


def test_digits_are_those_of_scikit_learn(tmp_path):
    from sklearn.datasets import load_digits

    dataset = load_dataset(DatasetSettings("digits"), tmp_path)
    ours = sorted(row.numpy().tobytes() for split in (dataset.train, dataset.splits["test"]) for row in split.samples)
    assert ours == sorted(row.astype(np.uint8).tobytes() for row in load_digits().images)
