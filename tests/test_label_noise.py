"""dataset.label_noise: which train labels change, to what, and what stays."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import composed
from data_files import random_images
from run_folders import assert_same_run, killed_after, rows

from nclab.data import DATASETS, ArraySettings, Dataset, DatasetSettings, ImageSettings, Split, load_dataset
from nclab.data.label_noise import noisy_labels
from nclab.interfaces.registry import Entry
from nclab.interfaces.shapes import ArrayShape
from nclab.interfaces.targets import Classes, Values
from nclab.run.execute import train
from nclab.run.trained import load_trained

LABELS = torch.arange(10).repeat(400)


@pytest.mark.parametrize(("share", "changed"), [(0.0, 0), (0.2, 800), (0.4, 1600), (0.00013, 1), (0.9, 3600)])
def test_this_share_of_the_labels_becomes_another_class(share, changed):
    noisy = noisy_labels(LABELS, share, classes=10)
    assert int((noisy != LABELS).sum()) == changed
    assert noisy.dtype == torch.int64
    assert LABELS.equal(torch.arange(10).repeat(400))  # not in place


def test_every_other_class_is_as_likely():
    noisy = noisy_labels(torch.zeros(90_000, dtype=torch.int64), 1 - 1e-9, classes=10)
    counts = noisy.bincount(minlength=10)
    assert counts[0] == 0
    chi_square = float(((counts[1:] - 10_000) ** 2 / 10_000).sum())
    assert chi_square < 26.1  # the 0.999 quantile at 8 degrees of freedom


def test_share_1_draws_every_label_anew_the_true_class_included():
    noisy = noisy_labels(LABELS.repeat(10), 1.0, classes=10)
    table = torch.zeros(10, 10).index_put_((LABELS.repeat(10), noisy), torch.ones(40_000), accumulate=True)
    chi_square = float(((table - 400) ** 2 / 400).sum())
    assert chi_square < 149.5  # the 0.999 quantile at 100 - 1 degrees: no cell is special, the diagonal neither


def test_more_noise_keeps_the_wrong_labels_of_less():
    less, more = (noisy_labels(LABELS, share, classes=10) for share in (0.2, 0.4))
    wrong = less != LABELS
    assert wrong.any()
    assert torch.equal(more[wrong], less[wrong])


def test_the_draw_has_a_generator_of_its_own():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = noisy_labels(LABELS, 0.3, classes=10)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(noisy_labels(LABELS, 0.3, classes=10), first)
    # Drawn independently of the subsets, which are drawn by another seed.
    code = (
        "import torch; from nclab.data.label_noise import noisy_labels as n; "
        "print(hash(tuple(n(torch.arange(10).repeat(400), 0.3, classes=10).tolist())))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    )
    assert int(other.stdout) == hash(tuple(first.tolist()))


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_share_out_of_range_raises(share):
    message = r"dataset\.label_noise is a share of the train labels: expected 0 to 1, got "
    with pytest.raises(ValueError, match=message):
        noisy_labels(LABELS, share, classes=10)
    for name in ("digits", "phrases"):
        with pytest.raises(ValueError, match=message):
            DATASETS[name].settings(name=name, label_noise=share)
    with pytest.raises(ValueError, match=message):
        DATASETS["npz"].settings(name="npz", path="x.npz", label_noise=share)


def test_one_class_has_no_other():
    with pytest.raises(ValueError, match=r"dataset\.label_noise: expected two classes or more, got 1"):
        noisy_labels(torch.zeros(4, dtype=torch.int64), 0.5, classes=1)


# ---- in a dataset


@pytest.mark.parametrize("name", ["digits", "phrases", "mnist5k"])
@pytest.mark.parametrize("more", [{}, {"train_size": 333}, {"train_size": 300, "valid_size": 40, "test_size": 50}])
def test_samples_and_all_other_labels_stay(name, more, tmp_path):
    clean = load_dataset(DatasetSettings(name, **more), tmp_path)
    noisy = load_dataset(DatasetSettings(name, label_noise=0.4, **more), tmp_path)
    count = len(clean.train)
    wrong = int((noisy.train.targets != clean.train.targets).sum())
    if "train_size" in more:  # the share is of the whole split: that of a part is left to chance
        assert abs(wrong - 0.4 * count) < 5 * (0.4 * 0.6 * count) ** 0.5
    else:
        assert wrong == round(0.4 * count)
    assert torch.equal(noisy.train.samples, clean.train.samples)
    assert list(noisy.splits) == [*clean.splits, "train_clean"]
    for split in {*clean.splits} - {"train"}:
        assert torch.equal(noisy.splits[split].targets, clean.splits[split].targets)
        assert torch.equal(noisy.splits[split].samples, clean.splits[split].samples)
    assert torch.equal(noisy.splits["train_clean"].targets, clean.train.targets)
    assert noisy.splits["train_clean"].samples is noisy.train.samples  # not held twice
    assert noisy.to("cpu").splits["train_clean"].samples is noisy.to("cpu").train.samples


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


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_a_sample_keeps_its_label_at_every_train_size_and_valid_size(share, numbered, tmp_path):
    whole = by_row(load_dataset(DatasetSettings("numbered", label_noise=share), tmp_path).train)
    assert len(whole) == 600
    assert sum(label != numbered[row] for row, label in whole.items()) > 200
    for more in ({"train_size": 100}, {"valid_size": 90}, {"train_size": 333, "valid_size": 200, "test_size": 20}):
        part = load_dataset(DatasetSettings("numbered", label_noise=share, **more), tmp_path)
        clean = load_dataset(DatasetSettings("numbered", **more), tmp_path)
        kept = by_row(part.train)
        assert kept == {row: whole[row] for row in by_row(clean.train)}  # the samples are those of no noise
        assert by_row(part.splits["train_clean"]) == {row: numbered[row] for row in kept}
        if "valid_size" in more:
            valid = by_row(part.splits["valid"])
            assert valid == {row: numbered[row] for row in by_row(clean.splits["valid"])}  # judged by true labels


def test_a_valid_split_of_the_data_stays_and_costs_train_nothing(tmp_path, monkeypatch):
    part = Split(random_images(60, 1, 4, 4), torch.arange(3).repeat(20))
    own = Dataset({"train": part, "valid": part[torch.arange(30)]}, Classes(3), (1, 4, 4))
    monkeypatch.setitem(DATASETS._entries, "own", Entry(ImageSettings, lambda settings, root: own))
    noisy = load_dataset(DatasetSettings("own", label_noise=0.5, valid_size=12), tmp_path)
    assert len(noisy.train) == 60
    assert int((noisy.train.targets != part.targets).sum()) == 30
    assert noisy.splits["valid"].targets.bincount().tolist() == [4, 4, 4]


@pytest.mark.parametrize(("share", "more", "count"), [(0.0005, {}, 600), (0.001, {"train_size": 10}, 10)])
def test_a_share_that_changes_no_label_is_refused(share, more, count, numbered, tmp_path):
    message = rf"dataset\.label_noise={share} of numbered changes none of the {count} train labels; .* 0 for none"
    with pytest.raises(ValueError, match=message):
        load_dataset(DatasetSettings("numbered", label_noise=share, **more), tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_the_samples_once(tmp_path):
    noisy = load_dataset(DatasetSettings("digits", label_noise=0.4), tmp_path, "cuda")
    assert noisy.splits["train_clean"].samples.data_ptr() == noisy.train.samples.data_ptr()


def test_without_noise_there_is_no_clean_split_beside_train(tmp_path):
    assert list(load_dataset(DatasetSettings("digits", label_noise=0.0), tmp_path).splits) == ["train", "test"]


def test_values_have_no_label_noise(tmp_path, monkeypatch):
    values = Split(torch.randn(20, 3), torch.randn(20, 2))
    own = Dataset({"train": values}, Values(2), ArrayShape(3))
    monkeypatch.setitem(DATASETS._entries, "own", Entry(ArraySettings, lambda settings, root: own))
    with pytest.raises(ValueError, match=r"dataset\.label_noise of own: expected targets that are classes, got values"):
        load_dataset(DatasetSettings("own", label_noise=0.1), tmp_path)


def test_a_class_that_loses_its_last_label_is_named_with_the_key(tmp_path):
    with pytest.raises(
        ValueError, match=r"dataset\.label_noise=1\.0 of digits leaves too few: train split: expected im"
    ):
        load_dataset(DatasetSettings("digits", label_noise=1.0, train_size=10), tmp_path)


def test_a_split_of_that_name_is_not_overwritten(tmp_path, monkeypatch):
    part = Split(random_images(12, 1, 4, 4), torch.arange(3).repeat(4))
    own = Dataset({"train": part, "train_clean": part}, Classes(3), (1, 4, 4))
    monkeypatch.setitem(DATASETS._entries, "own", Entry(ImageSettings, lambda settings, root: own))
    with pytest.raises(ValueError, match="label_noise of own: the data have a split train_clean already"):
        load_dataset(DatasetSettings("own", label_noise=0.1), tmp_path)


# ---- in a run


def test_names_of_runs_without_noise_stay():
    plain, noisy = composed("dataset=digits"), composed("dataset=digits", "dataset.label_noise=0.2")
    assert "label_noise" not in plain.identity()["dataset"]
    assert plain.run_name != noisy.run_name
    assert composed("dataset=digits", "dataset.label_noise=0").run_name == plain.run_name


def test_train_scores_are_of_the_noisy_labels_and_train_clean_of_the_true_ones(tiny):
    config = tiny("dataset.label_noise=0.5", "epochs=4", "batch_size=20", "optimizer.lr=0.1")
    folder = train(config)
    network = [row for row in rows(folder) if row[0] == 4 and row[2:4] == ("network", "accuracy")]
    accuracy = {split: value for _, split, _, _, value in network}
    model, trained, _ = load_trained(folder)
    clean = load_dataset(replace(config.dataset, label_noise=0.0), "data")
    predicted = model(trained.inputs(trained.train.samples)).prediction.argmax(1)
    truth = {"train": trained.train.targets, "train_clean": clean.train.targets}
    assert not torch.equal(truth["train"], truth["train_clean"])
    for split, labels in truth.items():
        assert accuracy[split] == pytest.approx(float((predicted == labels).double().mean()), abs=1e-12)
    assert accuracy["train_clean"] > accuracy["train"] > 0.2  # it learns the true labels first
    assert {layer for _, split, layer, *_ in rows(folder) if split == "train_clean"} > {"network"}


def test_a_killed_run_with_noise_goes_on_bit_for_bit(tiny, tmp_path):
    noise = ("dataset.label_noise=0.4", "epochs=4", "seed=2")
    whole = train(tiny(*noise, root=tmp_path / "whole"))
    config = tiny(*noise, root=tmp_path / "cut")
    killed_after(2, config)
    assert_same_run(whole, train(config))


def test_seeds_and_policies_see_the_same_labels(tiny):
    folders = [
        train(tiny("dataset.label_noise=0.4", "epochs=2", *more)) for more in (("seed=0",), ("seed=5", "etf=last_k"))
    ]
    first, second = (load_trained(folder)[1] for folder in folders)
    assert not torch.equal(first.train.targets, first.splits["train_clean"].targets)
    assert torch.equal(first.train.targets, second.train.targets)
    assert torch.equal(first.splits["test"].targets, second.splits["test"].targets)
