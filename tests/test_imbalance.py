"""dataset.imbalance: how many samples of each class stay in train, which ones, and what stays balanced."""

import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, killed_after

from nclab.config.schema import RunConfig
from nclab.data import DATASETS, ArraySettings, Dataset, DatasetSettings, ImageSettings, Split, load_dataset
from nclab.data.imbalance import Imbalance, kept_of
from nclab.interfaces.registry import Entry
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Classes, Values
from nclab.run.execute import train
from nclab.run.trained import load_trained


@pytest.mark.parametrize(
    ("factor", "profile", "counts"),
    [
        (100, "exponential", [1000, 599, 359, 215, 129, 77, 46, 28, 17, 10]),  # 1000 * 100 ** (-k / 9)
        (200, "exponential", [1000, 555, 308, 171, 95, 53, 29, 16, 9, 5]),
        (1, "exponential", [1000] * 10),
        (100, "step", [1000] * 5 + [10] * 5),
        (8, "step", [1000] * 5 + [125] * 5),
    ],
)
def test_counts_follow_the_profile(factor, profile, counts):
    assert Imbalance(factor, profile).counts(1000, classes=10) == counts


def test_of_an_odd_number_of_classes_the_step_has_the_smaller_half_at_its_head():
    assert Imbalance(10, "step").counts(20, classes=5) == [20, 20, 2, 2, 2]
    assert Imbalance(4).counts(7, classes=1) == [7]


def test_the_largest_class_is_as_large_as_all_others_allow():
    labels = torch.arange(3).repeat_interleave(torch.tensor([40, 30, 2]))
    kept = kept_of(labels, 3, Imbalance(4))
    assert labels[kept].bincount().tolist() == [10, 5, 2]  # 11 would ask for round(2.75) = 3 of class 2
    assert labels[kept_of(labels, 3, Imbalance(20))].bincount().tolist() == [40, 9, 2]
    assert labels[kept_of(labels, 3, Imbalance(1))].bincount().tolist() == [2, 2, 2]


def test_a_larger_factor_keeps_rows_of_a_smaller_one_at_random():
    labels = torch.arange(5).repeat(200)
    less, more = (set(kept_of(labels, 5, Imbalance(f)).tolist()) for f in (10, 100))
    assert more < less
    own = sorted(row // 5 for row in more if row % 5 == 2)  # 20 of 200
    assert len(own) == 20
    assert own != list(range(20))
    assert max(own) > 150


@pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan"), float("inf")])
def test_a_factor_out_of_range_raises(factor):
    message = r"dataset\.imbalance is the largest class over the smallest: expected 1 or more, got "
    with pytest.raises(ValueError, match=message):
        Imbalance(factor)
    for name in ("digits", "phrases"):
        with pytest.raises(ValueError, match=message):
            DATASETS[name].settings(name=name, imbalance=factor)


def test_an_unknown_profile_raises_and_one_without_imbalance_too():
    with pytest.raises(ValueError, match=r"unknown dataset\.imbalance_profile 'linear'; valid: exponential, step"):
        DatasetSettings("digits", imbalance=2, imbalance_profile="linear")
    with pytest.raises(ValueError, match=r"dataset\.imbalance_profile=step needs dataset\.imbalance; got null"):
        DatasetSettings("digits", imbalance_profile="step")


# ---- in a dataset


def by_row(split: Split) -> dict[int, int]:
    """Row of the whole train split -> label, of samples that hold their row in their first two bytes."""
    low, high = split.samples[:, 0, 0, :2].long().unbind(1)
    return dict(zip((low + 256 * high).tolist(), split.targets.tolist(), strict=True))


@pytest.fixture
def numbered(monkeypatch) -> list[int]:
    """A dataset `numbered` of images that say their row, beside its true labels, row by row."""
    truth = torch.arange(5).repeat(120)
    rows = torch.arange(600)
    images = torch.stack([rows % 256, rows // 256], dim=1).to(torch.uint8).reshape(600, 1, 1, 2)
    own = Dataset({"train": Split(images, truth), "test": Split(images[:50], truth[:50])}, Classes(5), (1, 1, 2))
    monkeypatch.setitem(DATASETS._entries, "numbered", Entry(ImageSettings, lambda settings, root: own))
    return truth.tolist()


def loaded(tmp_path, **keys) -> Dataset:
    return load_dataset(DatasetSettings("numbered", **keys), tmp_path)


def counts_of(split: Split) -> list[int]:
    return split.targets.bincount(minlength=5).tolist()


def test_train_is_long_tailed_and_test_and_valid_stay_balanced(numbered, tmp_path):
    dataset = loaded(tmp_path, imbalance=10, valid_size=100)
    assert counts_of(dataset.train) == [100, 56, 32, 18, 10]
    assert counts_of(dataset.splits["test"]) == [10] * 5
    assert counts_of(dataset.splits["valid"]) == [20] * 5
    plain = loaded(tmp_path, valid_size=100)
    assert by_row(dataset.splits["valid"]) == by_row(plain.splits["valid"])
    assert by_row(dataset.train).items() < by_row(plain.train).items()
    assert counts_of(loaded(tmp_path, imbalance=10, imbalance_profile="step").train) == [120, 120, 12, 12, 12]


def test_a_size_keeps_the_proportions_of_the_long_tail(numbered, tmp_path):
    whole = loaded(tmp_path, imbalance=10)
    assert counts_of(whole.train) == [120, 67, 38, 21, 12]  # 258
    part = loaded(tmp_path, imbalance=10, train_size=129)
    assert counts_of(part.train) == [60, 34, 19, 10, 6]  # halves; the odd ones by largest remainder
    assert by_row(part.train).items() < by_row(whole.train).items()
    with pytest.raises(ValueError, match=r"dataset\.train_size of numbered: subset size must be between 1 and 258"):
        loaded(tmp_path, imbalance=10, train_size=259)


def test_classes_are_cut_by_their_true_labels_and_noise_stays_with_a_sample(numbered, tmp_path):
    noisy = by_row(loaded(tmp_path, label_noise=0.4).train)
    part = loaded(tmp_path, imbalance=10, label_noise=0.4)
    assert counts_of(part.splits["train_clean"]) == [120, 67, 38, 21, 12]
    assert by_row(part.train) == {row: noisy[row] for row in by_row(part.splits["train_clean"])}


def test_a_factor_that_leaves_a_class_without_sample_is_refused(numbered, tmp_path):
    assert counts_of(loaded(tmp_path, imbalance=120).train)[-1] == 1
    message = r"dataset\.imbalance of numbered: expected at most 120, so that the smallest class keeps .*; got 121"
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path, imbalance=121)


def test_values_have_no_imbalance(tmp_path, monkeypatch):
    own = Dataset({"train": Split(torch.randn(20, 3), torch.randn(20, 2))}, Values(2), ArrayShape(3))
    monkeypatch.setitem(DATASETS._entries, "own", Entry(ArraySettings, lambda settings, root: own))
    with pytest.raises(ValueError, match=r"dataset\.imbalance of own: expected targets that are classes, got values"):
        load_dataset(DatasetSettings("own", imbalance=2), tmp_path)


def test_free_features_have_the_same_profiles(tmp_path):
    settings = DATASETS["free_features"].settings
    exponential, step = (
        load_dataset(settings(classes=4, per_class=8, imbalance=4, imbalance_profile=profile), tmp_path)
        for profile in ("exponential", "step")
    )
    assert exponential.train.targets.bincount().tolist() == [8, 5, 3, 2]
    assert step.train.targets.bincount().tolist() == [8, 8, 2, 2]
    with pytest.raises(ValueError, match=r"dataset\.imbalance must be between 1 and dataset\.per_class \(8\), got 9"):
        settings(classes=4, per_class=8, imbalance=9)


# ---- in a run


def test_names_of_runs_without_imbalance_stay():
    plain, tail = composed("dataset=digits"), composed("dataset=digits", "dataset.imbalance=10")
    assert not {"imbalance", "imbalance_profile"} & plain.identity()["dataset"].keys()
    assert tail.run_name not in (plain.run_name, composed("dataset=digits", "dataset.imbalance=20").run_name)
    step = composed("dataset=digits", "dataset.imbalance=10", "dataset.imbalance_profile=step")
    assert step.run_name != tail.run_name
    free: RunConfig = composed("dataset=free_features", "model=unconstrained")
    assert free.identity()["dataset"]["imbalance"] == 1.0  # the key is as old as the dataset
    assert "imbalance_profile" not in free.identity()["dataset"]


def test_a_killed_run_goes_on_bit_for_bit_and_seeds_see_the_same_images(tiny, tmp_path):
    tail = ("dataset.imbalance=10", "epochs=4", "sampler=class_balanced")
    whole = train(tiny(*tail, "seed=2", root=tmp_path / "whole"))
    config = tiny(*tail, "seed=2", root=tmp_path / "cut")
    killed_after(2, config)
    assert_same_run(whole, train(config))
    other = load_trained(train(tiny(*tail, "seed=3")))[1]
    assert torch.equal(load_trained(whole)[1].train.samples, other.train.samples)
