"""Orders of samples: every sample once, or classes equally often; phases that draw from their rows alone."""

import signal

import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, flat, rows

from nclab.bench.by_hand import feed
from nclab.config.schema import ConfigError
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.run.execute import check, train
from nclab.runfolder import checkpoint
from nclab.system.signals import Stopped, StopSignals
from nclab.training.phases import PHASES, Phase, PhasesSettings, Portion, checked
from nclab.training.progress import Part
from nclab.training.sampler import (
    ClassBalanced,
    ClassBalancedSettings,
    Repeated,
    RepeatedSettings,
    SamplerSettings,
    Shuffled,
)


@pytest.fixture
def dataset():
    """90 images of class 0 and 10 of class 1."""
    images = torch.arange(100, dtype=torch.uint8).reshape(100, 1, 1, 1)
    return Dataset({"train": Split(images, (torch.arange(100) >= 90).long())}, Classes(2), (1, 1, 1))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.fast
def test_shuffled_is_a_new_permutation_of_the_portion(dataset):
    rows = torch.arange(5, 60, 5)
    for portion in (Portion(dataset.train), Portion(dataset.train, rows)):
        generator = seeded()
        first, second = (Shuffled(SamplerSettings()).order(portion, e, generator) for e in range(2))
        expected = torch.arange(100) if portion.rows is None else rows
        assert torch.equal(first.sort().values, expected)
        assert torch.equal(second.sort().values, expected)
        assert not torch.equal(first, second)


def test_class_balanced_draws_classes_equally_often(dataset):
    sampler = ClassBalanced(ClassBalancedSettings())
    drawn = torch.cat([sampler.order(Portion(dataset.train), e, seeded(e)) for e in range(50)])
    share = dataset.train.targets[drawn].double().mean()
    assert len(drawn) == 50 * 100
    assert abs(share - 0.5) < 4 * 0.5 / 5000**0.5  # four standard errors
    small = torch.arange(85, 95)  # five of each class
    only = sampler.order(Portion(dataset.train, small), 0, seeded())
    assert set(only.tolist()) <= set(small.tolist())


def test_a_phase_begins_once_and_a_resumed_one_not_again(dataset):
    data, begun = feed(dataset, 10), []
    data.sampler.begin_phase = lambda phase, portion, generator: begun.append((phase.name, len(portion)))
    data.phases = [Phase("one", 2, torch.arange(30)), Phase("two", 1)]
    for epoch in range(3):
        part = Part()
        data.begin_epoch(epoch, part)
        order = data.order(epoch, part)
        assert len(order) == (30 if epoch < 2 else 100)
        data.begin_epoch(epoch, part)  # as a process does that goes on in the middle of the epoch
        assert torch.equal(data.order(epoch, part), order)
    assert begun == [("one", 30), ("two", 100)]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "at least one epoch each and 3 in all, got none"),
        ([Phase("a", 2)], "3 in all, got a: 2"),
        ([Phase("a", 3), Phase("b", 0)], "at least one epoch each .*, got a: 3, b: 0"),
        (
            [Phase("a", 3, splits=("train", "valid"))],
            "expected splits among train, with train; got train, valid",
        ),
        ([Phase("a", 3, splits=("test",))], "expected splits among train, with train; got test"),
        ([Phase("a", 3, torch.tensor([0, 100]))], "phase a: expected two or more rows of 0 to 99, got 0 to 100"),
        (
            [Phase("a", 3, torch.tensor([], dtype=torch.int64))],
            "expected two or more rows of 0 to 99, got none",
        ),
        ([Phase("a", 3, torch.tensor([7]))], "two or more rows of 0 to 99, got 7 alone"),
    ],
)
def test_phases_that_do_not_fit_are_refused(dataset, phases, message):
    with pytest.raises(ValueError, match=message):
        checked(phases, dataset, 3)


UFM = ("dataset=free_features", "dataset.classes=3", "dataset.per_class=4", "model=unconstrained", "model.dim=5",
       "batch_size=null", "threads=1", "optimizer.lr=0.1", "checkpoint_seconds=0")  # fmt: skip


def test_repeated_is_the_portion_in_its_order_as_often_as_said(dataset):
    some, generator = torch.arange(5, 60, 5), seeded()
    before = generator.get_state()
    for portion, expected in ((Portion(dataset.train), torch.arange(100)), (Portion(dataset.train, some), some)):
        order = Repeated(RepeatedSettings(repeats=3)).order(portion, 0, generator)
        assert torch.equal(order, torch.cat([expected] * 3))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("size", ["null", "12"])
def test_an_epoch_of_repeats_is_as_many_epochs_of_one_step(tmp_path, size):
    one, many = (
        train(composed(*UFM, f"batch_size={size}", "sampler=repeated", *keys, f"output_root={tmp_path}"))
        for keys in (("epochs=6", "sampler.repeats=1"), ("epochs=2", "sampler.repeats=3"))
    )
    found, expected = (checkpoint.load(folder) for folder in (many, one))
    assert flat(found["model"]) == flat(expected["model"])
    assert flat(found["optimizer"]) == flat(expected["optimizer"])
    assert found["progress"]["steps"] == expected["progress"]["steps"] == 6
    last = {epoch: [r[1:] for r in rows(folder) if r[0] == epoch and r[3] == "loss"]
            for epoch, folder in ((6, one), (2, many))}  # fmt: skip
    assert last[6] == last[2] != []


def test_repeats_stopped_in_the_middle_of_an_epoch_go_on_there(tmp_path):
    keys = (*UFM, "sampler=repeated", "sampler.repeats=5", "epochs=3")
    whole = train(composed(*keys, f"output_root={tmp_path}/whole"))
    config, calls = composed(*keys, f"output_root={tmp_path}/cut"), iter(range(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopSignals, "check", lambda self: next(calls) == 9 and _stop())
        with pytest.raises(Stopped):
            train(config)
    assert checkpoint.load(config.folder)["progress"]["part"]["batches"] > 0
    assert_same_run(train(config), whole)


def _stop():
    raise Stopped(signal.SIGTERM)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("batch_size=4",), "sampler=repeated takes the whole train split at every step: .*null or 12, got 4"),
        (("sampler.repeats=0",), "sampler.repeats must be at least 1"),
    ],
)
def test_repeats_of_parts_of_the_split_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        check([composed(*UFM, "sampler=repeated", *keys)])


def test_repeats_of_a_phase_with_some_rows_are_refused(own_registries):
    halves = lambda settings, seed: lambda dataset, epochs: [Phase("half", epochs, torch.arange(6))]  # noqa: E731
    PHASES._entries.pop("single")
    PHASES.add("single", PhasesSettings)(halves)
    with pytest.raises(ConfigError, match="expected phases of all rows, got phases=single, whose phase half has some"):
        check([composed(*UFM, "sampler=repeated")])
