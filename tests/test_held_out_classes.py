"""dataset.source_classes, source_list and class_split: which classes are learnt, and what becomes of the others."""

import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, killed_after, rows

from nclab.config.checks import ConfigError
from nclab.data import DATASETS, Dataset, DatasetSettings, Split, load_dataset
from nclab.data.images import ImageSettings
from nclab.data.outside import load_with_outside
from nclab.interfaces.targets import Classes
from nclab.run.execute import check, train
from nclab.run.trained import load_trained

LISTED = [7, 0, 3]
OTHERS = [1, 2, 4, 5, 6, 8, 9]


def digits(**keys):
    return load_dataset(DatasetSettings("digits", **keys), "data")


@pytest.mark.fast
def test_listed_classes_are_renumbered_in_their_order_and_the_others_held_out():
    whole, data = digits(), digits(source_list=LISTED)
    assert data.targets == Classes(3)
    assert data.held_out == 7
    assert list(data.splits) == list(whole.splits)
    for name, split in data.splits.items():
        old = whole.splits[name]
        kept = torch.isin(old.targets, torch.tensor(LISTED))
        assert torch.equal(split.samples, old.samples[kept])
        assert torch.equal(torch.tensor(LISTED)[split.targets], old.targets[kept])
    test = whole.splits["test"]
    others = ~torch.isin(test.targets, torch.tensor(LISTED))
    assert torch.equal(data.outside.samples, test.samples[others])
    assert torch.equal(torch.tensor(OTHERS)[data.outside.targets], test.targets[others])


@pytest.mark.fast
def test_drawn_classes_are_those_of_their_seed():
    found = {}
    whole = digits().train
    for seed in range(4):
        for count in (2, 6):
            train = digits(source_classes=count, class_split=seed).train
            kept = {
                int(c)
                for c in range(10)
                if (whole.samples[whole.targets == c][0] == train.samples).all(-1).all(-1).any()
            }
            assert len(kept) == count
            drawn = torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:count]
            assert kept == set(drawn.tolist())
            first = train.samples[train.targets == 0][0]
            assert (whole.samples[whole.targets == min(kept)] == first).all(-1).all(-1).any()  # in rising order
            found[seed, count] = kept
        assert found[seed, 2] < found[seed, 6]
    assert len({frozenset(kept) for kept in found.values()}) >= 6


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_sizes_and_noise_are_those_of_the_source_classes(name):
    keys = {"source_classes": 2, "class_split": 1}
    whole = load_dataset(DatasetSettings(name, **keys), "data")
    cut = load_dataset(DatasetSettings(name, **keys, train_size=90, test_size=30, valid_size=20), "data")
    assert {split: len(s) for split, s in cut.splits.items()} == {"train": 90, "test": 30, "valid": 20}
    assert all(set(s.targets.tolist()) == {0, 1} for s in cut.splits.values())
    assert torch.equal(cut.outside.samples, whole.outside.samples)
    noisy = load_dataset(DatasetSettings(name, **keys, label_noise=0.2), "data")
    assert int((noisy.train.targets != whole.train.targets).sum()) == round(0.2 * len(whole.train))
    assert set(noisy.train.targets.tolist()) == {0, 1}
    assert torch.equal(noisy.splits["train_clean"].targets, whole.train.targets)
    assert torch.equal(noisy.outside.targets, whole.outside.targets)


def test_a_run_without_the_keys_holds_nothing_out():
    assert digits().held_out == 0
    assert digits().outside is None


def test_without_a_test_split_the_held_out_samples_are_those_of_train(own_registries):
    def build(settings, root):
        samples = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 1, 8, 8).contiguous()
        return Dataset({"train": Split(samples, torch.arange(40) % 4)}, Classes(4), (1, 8, 8), pixel_max=255)

    DATASETS.add("ramp", ImageSettings)(build)
    data = load_dataset(DatasetSettings("ramp", source_list=[3, 1]), "data")
    assert data.outside.samples[:, 0, 0, 0].tolist() == [i for i in range(40) if i % 4 in (0, 2)]
    assert data.outside.targets.tolist() == [0, 1] * 10
    assert data.train.targets.tolist() == [1, 0] * 10


WRONG = {
    "dataset.source_classes=1": "dataset.source_classes must be at least 2, got 1",
    "dataset.source_classes=10": "dataset.source_classes of digits: expected 2 to 9 of its 10 classes, so that one is",
    "dataset.source_list=[3]": r"dataset.source_list: expected two or more different classes, got \[3\]",
    "dataset.source_list=[3,3]": r"dataset.source_list: expected two or more different classes, got \[3, 3\]",
    "dataset.source_list=[3,10]": r"dataset.source_list of digits: expected classes in 0..9, got \[3, 10\]",
    "dataset.source_list=[-1,2]": r"dataset.source_list of digits: expected classes in 0..9, got \[-1, 2\]",
    "dataset.source_list=[0,1,2,3,4,5,6,7,8,9]": "dataset.source_list of digits: expected 2 to 9 of its 10 classes",
    "dataset.source_list=[0,1] dataset.source_classes=2": "dataset.source_list and dataset.source_classes both choose",
    "dataset.class_split=1": "dataset.class_split=1 needs dataset.source_classes, the number of classes that it draws",
    "dataset.source_classes=3 dataset.class_split=-1": "dataset.class_split must be between 0 and .*, got -1",
    "dataset=diabetes loss=mse dataset.source_classes=2": "dataset.source_classes of diabetes: expected targets that",
    "dataset=free_features model=unconstrained dataset.source_classes=2": "dataset.source_classes means nothing for",
    "dataset.source_classes=6 metrics.suite=[ood] metrics.ood_dataset=mnist5k": (
        "dataset.source_classes holds out classes, which are the samples of none of the classes; leave out"
    ),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_is_refused(line):
    with pytest.raises(ConfigError, match=WRONG[line]):
        check([composed(*line.split())])


@pytest.mark.fast
def test_a_run_learns_the_source_classes_alone(tiny, tmp_path):
    """And resumes bit for bit."""
    keys = ("dataset.source_classes=4", "dataset.class_split=1", "epochs=3", "metrics.suite=[collapse,ood]")
    folder = train(tiny(*keys))
    model, data, _ = load_trained(folder)
    assert model.num_classes == data.targets.dim == 4
    logged = {r[1:4]: r[4] for r in rows(folder) if r[0] == 3}
    assert {split for split, _, _ in logged} == {"train", "test"}
    assert 0 <= logged["test", "act3", "neco_auroc"] <= 1
    again = tiny(*keys, root=tmp_path / "again")
    killed_after(2, again)
    assert_same_run(folder, train(again))


def test_every_choice_of_classes_is_a_run_of_its_own():
    """And that of all classes the run that it was (`tests/test_keys.py`)."""
    lines = [(f"dataset.source_classes={n}", f"dataset.class_split={s}") for n in (3, 4) for s in (0, 1)]
    names = {composed(*line).run_name for line in [*lines, ("dataset.source_list=[0,1,2]",), ()]}
    assert len(names) == 6


def test_held_out_classes_cost_nothing_where_no_suite_reads_them(tiny):
    """And are no mistake, unlike metrics.ood_dataset without a suite for it."""
    assert train(tiny("dataset.source_classes=4", "epochs=1")).is_dir()
    with pytest.raises(ValueError, match="holds out classes"):
        load_with_outside(DatasetSettings("digits", source_classes=4), "data", "cpu", "mnist5k")
