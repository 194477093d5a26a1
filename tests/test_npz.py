"""dataset=npz: arrays of a user's own file, by path from the command line."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import composed

import nclab.train
from nclab.data import ArrayDataset, ImageDataset, load_dataset
from nclab.data.npz import NpzSettings, samples_of
from nclab.interfaces.targets import Classes, Values

DRAW = np.random.default_rng(0)
POINTS = DRAW.normal(2, 3, (12, 4))
LABELS = np.arange(12) % 3
IMAGES = DRAW.integers(0, 256, (12, 5, 6, 3), np.uint8)


@pytest.fixture
def load(tmp_path):
    """load({array: content}, key=value) -> the dataset in a file of these arrays."""

    def written(arrays, **keys):
        np.savez(tmp_path / "own.npz", **arrays)
        return load_dataset(NpzSettings("npz", path=str(tmp_path / "own.npz"), **keys), "nowhere")

    return written


def test_floats_become_arrays_and_integers_classes(load):
    dataset = load({"x_train": POINTS, "y_train": LABELS, "x_test": POINTS[:2], "y_test": LABELS[:2]})
    assert (type(dataset), dataset.shape, dataset.targets) == (ArrayDataset, (4,), Classes(3))
    assert list(dataset.splits) == ["train", "test"]
    assert torch.equal(dataset.inputs(dataset.train.samples), torch.from_numpy(POINTS).float())
    assert dataset.splits["test"].targets.tolist() == [0, 1]  # and no sample of class 2


@pytest.mark.parametrize("values", [POINTS[:, 0], POINTS[:, :1], POINTS[:, :3].astype(np.float16)])
def test_float_targets_are_values(load, values):
    dataset = load({"x_train": POINTS[:, 0], "y_train": values}, valid_size=4, test_size=3, train_size=2)
    assert (dataset.shape, dataset.targets) == ((1,), Values(values[0].size))
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 2, "test": 3, "valid": 4}
    rows = [row for split in dataset.splits.values() for row in split.samples[:, 0].tolist()]
    assert len(set(rows)) == 9  # no sample is in two splits
    known = dict(zip(POINTS[:, 0].astype(np.float32).tolist(), values.reshape(12, -1).astype(np.float32), strict=True))
    for split in dataset.splits.values():
        for row, target in zip(split.samples[:, 0].tolist(), split.targets, strict=True):
            assert torch.equal(target, torch.from_numpy(known[row]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (IMAGES, IMAGES.transpose(0, 3, 1, 2)),
        (IMAGES.transpose(0, 3, 1, 2), IMAGES.transpose(0, 3, 1, 2)),
        (IMAGES[..., 0], IMAGES[:, None, :, :, 0]),
        (IMAGES[..., :1], IMAGES[:, None, :, :, 0]),
        (IMAGES[..., :2], IMAGES[..., :2]),  # a last axis of 2 is no channels
    ],
)
def test_bytes_are_images_in_any_of_the_layouts(load, given, expected):
    dataset = load({"x_train": given, "y_train": LABELS[:, None].astype(np.uint8)}, augment="crop_flip")
    assert (type(dataset), dataset.augment) == (ImageDataset, "crop_flip")
    assert torch.equal(dataset.train.samples, torch.from_numpy(expected.copy()))
    assert dataset.train.samples.is_contiguous()


@pytest.mark.parametrize("samples", [POINTS, IMAGES])
def test_standardize_makes_mean_0_and_std_1_of_train(load, samples):
    arrays = {"x_train": samples, "y_train": LABELS, "x_own": samples + 1, "y_own": LABELS}
    dataset = load(arrays, standardize=True, train_size=9)
    seen = dataset.inputs(dataset.train.samples).double()
    over = (0, 2, 3) if seen.ndim == 4 else 0
    assert seen.mean(over).abs().max() < 1e-6
    assert (seen.std(over, correction=0) - 1).abs().max() < 1e-6
    other = dataset.splits["own"].samples
    assert not torch.allclose(dataset.inputs(other), load({**arrays}).inputs(other))


NAN = np.where(np.arange(48).reshape(12, 4) == 21, np.nan, POINTS)


@pytest.mark.parametrize(
    ("arrays", "keys", "message"),
    [
        ({"x_train": POINTS}, {}, "expected arrays x_train and y_train, and x_NAME with y_NAME .*; got x_train"),
        ({"x_test": POINTS, "y_test": LABELS}, {}, "expected arrays x_train and y_train.*; got x_test, y_test"),
        ({"x_train": POINTS, "y_train": LABELS, "labels": LABELS}, {}, "got labels, x_train, y_train"),
        ({"x_train": POINTS.astype(int), "y_train": LABELS}, {}, "x_train: expected uint8 images .*; got int64 of"),
        ({"x_train": IMAGES[:, 0, 0], "y_train": LABELS}, {}, "x_train: .* floats .*; got uint8 of shape (12, 3)"),
        ({"x_train": POINTS, "y_train": LABELS > 0}, {}, "y_train: expected integers (N,) .*; got bool of shape (12,)"),
        ({"x_train": POINTS, "y_train": LABELS[:5]}, {}, "expected one target a sample, got 12 samples and 5 targets"),
        ({"x_train": POINTS[:0], "y_train": LABELS[:0]}, {}, "x_train: expected at least one sample, got none"),
        ({"x_train": POINTS, "y_train": LABELS * 2}, {}, "train split: .*of every class, got none of class 1, 3"),
        ({"x_train": POINTS, "y_train": LABELS - 1}, {}, "train split: expected labels 0 to 1, got -1 to 1"),
        ({"x_train": NAN, "y_train": LABELS}, {}, "train split: expected finite numbers, got another in array 5"),
        ({"x_train": POINTS, "y_train": NAN}, {}, "train split: expected finite values, got another in row 5"),
        (
            {"x_train": POINTS, "y_train": LABELS, "x_test": POINTS, "y_test": POINTS},
            {},
            "test split: expected class numbers (N,) int64, got (12, 4) of torch.float64",
        ),
        (
            {"x_train": POINTS, "y_train": LABELS, "x_test": IMAGES, "y_test": LABELS},
            {},
            "test split: expected arrays of shape (4,), got (3, 5, 6) of torch.uint8",
        ),
        ({"x_train": POINTS, "y_train": LABELS}, {"augment": "crop_flip"}, "expected none for arrays, got crop_flip"),
        ({"x_train": POINTS, "y_train": LABELS}, {"test_size": 13}, "dataset.test_size: .*between 1 and 12, got 13"),
        ({"x_train": POINTS * 0, "y_train": LABELS}, {"standardize": True}, "number 0 is constant"),
    ],
)
def test_wrong_arrays_are_named(load, arrays, keys, message):
    pattern = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=pattern):
        load(arrays, **keys)


def test_a_file_that_would_run_code_or_is_no_npz_is_refused(load, tmp_path):
    with pytest.raises(ValueError, match=r"own\.npz: expected an .npz file of plain arrays, got another \(Object arr"):
        load({"x_train": np.array([{}], object), "y_train": LABELS})
    path = tmp_path / "own.npz"
    np.savez_compressed(path, x_train=POINTS, y_train=LABELS)
    whole = path.read_bytes()
    with (tmp_path / "array.npy").open("wb") as file:
        np.save(file, POINTS)
    for content in (b"", b"text", whole[:100], (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{path}: expected an .npz file"):
            load_dataset(NpzSettings("npz", path=str(path)), ".")


def test_the_path_is_asked_for_expanded_and_part_of_the_name(tmp_path, monkeypatch):
    for wrong in ("", " ", "s3://bucket/x.npz"):
        with pytest.raises(ValueError, match=f"dataset.path must be an .npz file, got '{wrong}'"):
            NpzSettings("npz", path=wrong)
    with pytest.raises(ValueError, match=r"dataset\.path: Missing mandatory value"):
        composed("dataset=npz")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = composed("dataset=npz", "dataset.path='~/own.npz'")
    with pytest.raises(ValueError, match=f"dataset.path: expected an .npz file, found none at {tmp_path}/own.npz"):
        load_dataset(config.dataset, ".")
    np.savez(tmp_path / "own.npz", x_train=POINTS, y_train=LABELS)
    assert len(load_dataset(config.dataset, ".").train) == 12
    assert config.run_name != composed("dataset=npz", "dataset.path=other.npz").run_name
    with pytest.raises(ValueError, match=r"unknown dataset\.augment 'flip'; did you mean crop_flip"):
        composed("dataset=npz", "dataset.path=x", "dataset.augment=flip")


def test_arrays_train_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "own.npz", x_train=POINTS.repeat(5, 0), y_train=LABELS.repeat(5))
    keys = ["dataset=npz", "dataset.path=~/own.npz", "dataset.standardize=true", "dataset.test_size=15", "epochs=20"]
    keys += ["model.depth=3", "model.width=16", "threads=1", "optimizer.lr=0.1", "batch_size=9"]
    monkeypatch.setattr(sys, "argv", ["nclab-train", *keys, f"output_root={tmp_path / 'runs'}"])
    nclab.train.main()
    (summary,) = tmp_path.glob("runs/*/*/summary.json")
    assert json.loads(summary.read_text())["final"]["train"]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 16, 12, 4), np.uint8), r"of 1 or 3 channels, or \(N, C, H, W\); got shape \(8, 16, 12, 4\)"),
        (np.zeros((8, 0), np.float32), r"samples of at least one number, got shape \(8, 0\)"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        samples_of(array)
