"""Datasets: registration, settings, checks, what a model sees, the sizes of splits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import composed
from data_files import random_images, seeded

from nclab.data import DATASETS, Dataset, DatasetSettings, ImageSettings, Split, data_root, load_dataset
from nclab.interfaces.registry import Entry
from nclab.interfaces.targets import Classes


def small(classes: int = 3, per_class: int = 4, shape: tuple[int, int, int] = (2, 5, 6), **more) -> Dataset:
    labels = torch.arange(classes).repeat(per_class)
    train = Split(random_images(len(labels), *shape), labels)
    test = Split(random_images(len(labels), *shape, seed=1), labels)
    return Dataset({"train": train, "test": test}, Classes(classes), shape, **more)


# ---- registration, settings, root


@pytest.mark.parametrize("key", ["pixels", "augment"])
def test_settings_outside_the_choices_raise(key):
    with pytest.raises(ValueError, match=rf"unknown dataset\.{key} 'wild'; valid: "):
        ImageSettings("digits", **{key: "wild"})


def test_load_wants_settings_and_a_known_name(tmp_path):
    with pytest.raises(TypeError, match="expected DatasetSettings, got dict"):
        load_dataset({"name": "digits"}, tmp_path)
    with pytest.raises(KeyError, match=r"unknown dataset 'svhn'; valid: .*digits"):
        load_dataset(DatasetSettings("svhn"), tmp_path)


def test_data_root_is_the_configured_folder_then_the_environment_then_data(monkeypatch):
    monkeypatch.setenv("NCLAB_DATA", "/env")
    assert data_root("/given") == Path("/given")
    assert data_root(None) == Path("/env")
    monkeypatch.delenv("NCLAB_DATA")
    assert data_root(None) == Path("data")


# ---- checks


def test_dataset_checks_shape_labels_pixels_and_that_train_has_every_class():
    good = small()
    labels = good.train.targets
    with pytest.raises(ValueError, match=r"train split: expected images of shape \(2, 6, 5\), got \(2, 5, 6\)$"):
        replace(good, shape=(2, 6, 5))
    with pytest.raises(ValueError, match="train split: expected labels 0 to 1, got 0 to 2"):
        replace(good, targets=Classes(2))
    with pytest.raises(ValueError, match="train split: expected pixels up to 16, got 2"):
        replace(good, pixel_max=16)
    with pytest.raises(ValueError, match="train split: expected images of every class, got none of class 3, 4"):
        replace(good, targets=Classes(5))
    with pytest.raises(ValueError, match="expected a split train, got test"):
        replace(good, splits={"test": good.train})
    for wrong, message in (
        (Split(good.train.samples, labels - 1), "expected labels 0 to 2, got -1 to 1"),
        (good.train[labels > 5], "expected at least one image, got no image"),
        (Split(good.train.samples, labels[:, None].float()), r"expected class numbers \(N,\) int64, got \(12, 1\)"),
        (Split(good.train.samples.float(), labels), r"expected images .*, got \(2, 5, 6\) of torch.float32"),
    ):
        with pytest.raises(ValueError, match=f"test split: {message}"):
            replace(good, splits={"train": good.train, "test": wrong})


def test_train_comes_first_and_only_train_needs_every_class():
    good = small()
    part = good.train[good.train.targets != 1]
    made = replace(good, splits={"valid": part, "train": good.train, "shifted": part})
    assert list(made.splits) == ["train", "valid", "shifted"]
    assert made.train is good.train


# ---- what the model sees


def test_inputs_are_float32_in_the_unit_interval():
    dataset = small()
    seen = dataset.inputs(dataset.train.samples)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, dataset.train.samples.double().div(255).float(), rtol=0, atol=1e-7)


def test_standardized_inputs_have_mean_0_and_std_1_per_channel_of_train():
    dataset = small().standardized()
    seen = dataset.inputs(dataset.train.samples).double()
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(2).double(), rtol=0, atol=1e-6)
    reference = dataset.train.samples.double().div(255)
    torch.testing.assert_close(dataset.mean.flatten().double(), reference.mean((0, 2, 3)), rtol=1e-6, atol=0)
    test = (
        dataset.splits["test"].samples.double().div(255) - dataset.mean
    ) / dataset.std  # train's numbers, not test's
    torch.testing.assert_close(dataset.inputs(dataset.splits["test"].samples).double(), test, rtol=0, atol=1e-5)


def test_a_constant_channel_cannot_be_standardized():
    dataset = small()
    dataset.train.samples[:, 1] = 7
    with pytest.raises(ValueError, match="expected pixels that vary, channel 1 is constant"):
        dataset.standardized()


def test_to_returns_an_equal_dataset():
    dataset = small(augment="crop_flip").standardized()
    moved = dataset.to("cpu")
    assert torch.equal(moved.inputs(moved.splits["test"].samples), dataset.inputs(dataset.splits["test"].samples))
    assert moved.augment == "crop_flip"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_what_the_cpu_sees():
    dataset = small(augment="crop_flip").standardized()
    moved = dataset.to("cuda")
    assert {t.device.type for t in (moved.train.samples, moved.splits["test"].targets, moved.mean, moved.std)} == {
        "cuda"
    }
    seen = moved.inputs(moved.train.samples, seeded(1)).cpu()
    torch.testing.assert_close(seen, dataset.inputs(dataset.train.samples, seeded(1)), rtol=0, atol=1e-6)


def test_augmentation_is_for_training_only_and_follows_its_generator():
    dataset = small(augment="crop_flip")
    images = dataset.train.samples
    assert torch.equal(dataset.inputs(images, seeded(1)), dataset.inputs(images, seeded(1)))
    assert not torch.equal(dataset.inputs(images, seeded(1)), dataset.inputs(images, seeded(2)))
    assert torch.equal(dataset.inputs(images), small().inputs(images))
    assert torch.equal(small().inputs(images, seeded(1)), small().inputs(images))  # augment: none


# ---- sizes of splits


def test_load_subsets_both_splits_and_names_the_setting_that_does_not_fit(tmp_path):
    dataset = load_dataset(DatasetSettings("digits", train_size=100, test_size=50), tmp_path)
    assert (len(dataset.train), len(dataset.splits["test"])) == (100, 50)
    assert dataset.train.targets.bincount().tolist() == [10] * 10
    whole = load_dataset(DatasetSettings("digits"), tmp_path)
    rows = {row.numpy().tobytes() for row in whole.train.samples}
    assert all(row.numpy().tobytes() in rows for row in dataset.train.samples)
    with pytest.raises(ValueError, match=r"dataset.test_size of digits: .* between 1 and 360, got 361"):
        load_dataset(DatasetSettings("digits", test_size=361), tmp_path)
    with pytest.raises(ValueError, match="train split: expected images of every class, got none of class"):
        load_dataset(DatasetSettings("digits", train_size=9), tmp_path)


def test_valid_size_takes_the_same_samples_out_of_train_whatever_train_size_is(tmp_path):
    whole = load_dataset(DatasetSettings("digits"), tmp_path)
    cut = load_dataset(DatasetSettings("digits", valid_size=100), tmp_path)
    assert {name: len(split) for name, split in cut.splits.items()} == {"train": 1337, "test": 360, "valid": 100}
    assert torch.equal(cut.splits["test"].samples, whole.splits["test"].samples)
    shares = cut.splits["valid"].targets.bincount() - whole.train.targets.bincount() * 100 / 1437
    assert shares.abs().max() < 1
    both = torch.cat([cut.train.samples, cut.splits["valid"].samples]).flatten(1).tolist()
    assert sorted(both) == sorted(whole.train.samples.flatten(1).tolist())
    less = load_dataset(DatasetSettings("digits", valid_size=100, train_size=50), tmp_path)
    assert torch.equal(less.splits["valid"].samples, cut.splits["valid"].samples)
    assert len(less.train) == 50
    for size, message in ((1437, "expected at least one image, got no image"), (1430, "got none of class")):
        with pytest.raises(
            ValueError, match=f"dataset.valid_size={size} of digits leaves too few: train split: .*{message}"
        ):
            load_dataset(DatasetSettings("digits", valid_size=size), tmp_path)
    with pytest.raises(ValueError, match=r"dataset\.valid_size of digits: .* between 1 and 1437, got 0"):
        load_dataset(DatasetSettings("digits", valid_size=0), tmp_path)


def test_sizes_follow_the_splits_that_the_data_bring_along(tmp_path, monkeypatch):
    part = small(per_class=2).train
    own = Dataset({"train": small().train, "valid": part}, Classes(3), (2, 5, 6))
    monkeypatch.setitem(DATASETS._entries, "own", Entry(ImageSettings, lambda settings, root: own))
    dataset = load_dataset(DatasetSettings("own", valid_size=3), tmp_path)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 12, "valid": 3}
    with pytest.raises(ValueError, match=r"dataset.test_size of own: the data have no test split"):
        load_dataset(DatasetSettings("own", test_size=3), tmp_path)


def test_only_a_valid_split_changes_the_name_of_a_run():
    plain, valid = composed("dataset=digits"), composed("dataset=digits", "dataset.valid_size=9")
    assert "valid_size" not in plain.identity()["dataset"]  # runs keep the name they had before the key came
    assert plain.run_name != valid.run_name
