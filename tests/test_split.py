"""Splits and their fixed subsets: checks, proportions of the classes, independence of the run's seed."""

import pytest
import torch
from data_files import random_images, seeded

from nclab.data import Split
from nclab.data.own import kind_of
from nclab.data.stratify import stratified_indices


def test_split_checks_dtype_dimensions_and_counts():
    images, labels = random_images(4, 1, 2, 2), torch.arange(4)
    for wrong, came in (
        (images.half(), "4 dimensions of torch.float16"),
        (images[:, 0], "3 dimensions of torch.uint8"),
    ):
        with pytest.raises(ValueError, match=rf"samples: expected one of images \(N, ch, h, w\) uint8, .*; got {came}"):
            Split(wrong, labels)
    for wrong, came in (
        (labels.int(), "1 dimensions of torch.int32"),
        (labels.float(), "1 dimensions of torch.float32"),
    ):
        expected = r"targets: expected classes \(N,\) int64 or values \(N, n\) float32 or float64, got"
        with pytest.raises(ValueError, match=f"{expected} {came}"):
            Split(images, wrong)
    with pytest.raises(ValueError, match="expected one target a sample, got 4 samples and 3 targets"):
        Split(images, labels[:3])


def test_subset_is_in_proportion_by_largest_remainder():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100, generator=seeded())]
    for size in (1, 7, 10, 33, 99, 100):
        chosen = stratified_indices(labels, size)
        assert len(chosen.unique()) == size
        assert torch.equal(chosen, chosen.sort().values)
        exact = labels.bincount() * size / 100
        assert (labels[chosen].bincount(minlength=3) - exact).abs().max() < 1
    assert labels[stratified_indices(labels, 7)].bincount().tolist() == [4, 2, 1]  # 3.5, 2.1, 1.4


def test_subset_does_not_depend_on_the_seed_of_the_run():
    labels = torch.arange(10).repeat(20)
    torch.manual_seed(1)
    first = stratified_indices(labels, 50)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, stratified_indices(labels, 50))
    assert torch.equal(state, torch.get_rng_state())  # and leaves the run's generator alone
    assert not torch.equal(first, torch.arange(50))


@pytest.mark.parametrize("size", [0, 201])
def test_subset_size_out_of_range(size):
    with pytest.raises(ValueError, match=f"subset size must be between 1 and 200, got {size}"):
        stratified_indices(torch.arange(10).repeat(20), size)


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match="expected labels from 0 on, got -1"):
        stratified_indices(torch.tensor([-1, 0, 1]), 2)
    with pytest.raises(ValueError, match="each with a sample; got label 1500000000 among 3 samples"):
        kind_of(torch.tensor([0, 1, 1_500_000_000]))
