"""Orders of samples: every sample once, or classes equally often; phases that draw from their rows alone."""

import pytest
import torch

from nclab.bench.by_hand import feed
from nclab.data import Dataset, Split
from nclab.interfaces.targets import Classes
from nclab.training.phases import Phase, Portion, checked
from nclab.training.progress import Part
from nclab.training.sampler import ClassBalanced, ClassBalancedSettings, SamplerSettings, Shuffled


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
