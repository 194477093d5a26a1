"""Datasets of arrays and of row numbers, with classes or values; the shapes and targets that say so."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from nclab.data import ArrayDataset, Dataset, DatasetSettings, IndexDataset, Split
from nclab.data.arrays import ArraySettings
from nclab.interfaces.shapes import ArrayShape, ImageShape, IndexShape, TokenShape, flat_size, images_only
from nclab.interfaces.targets import Classes, Values


def arrays(*shape: int, targets=None) -> ArrayDataset:
    samples = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0)) * 3 + 2
    values = samples.flatten(1)[:, :2] if targets is None else targets
    return Dataset({"train": Split(samples, values)}, Values(2), ArrayShape(*shape))


def test_arrays_are_seen_as_they_are_or_standardised_number_by_number():
    dataset = arrays(4, 3)
    samples = dataset.train.samples
    assert type(dataset) is ArrayDataset
    assert dataset.under(DatasetSettings("own")) is dataset
    assert torch.equal(dataset.inputs(samples, torch.Generator(), slice(0, 6), 9), samples)
    made = dataset.under(ArraySettings("own", standardize=True)).to("cpu")
    seen = made.inputs(samples).double()
    assert seen.mean(0).abs().max() < 1e-6
    assert (seen.std(0, correction=0) - 1).abs().max() < 1e-6
    assert torch.equal(made.inputs(samples[:2]), made.inputs(samples)[:2])
    constant = samples.clone()
    constant[:, 1, 2] = 7
    with pytest.raises(ValueError, match="cannot standardize: expected numbers that vary, number 5 is constant"):
        replace(dataset, splits={"train": Split(constant, dataset.train.targets)}).standardized()


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(6, 3), r"train split: expected values \(N, 2\) float32 or float64, got \(6, 3\) of torch.float32"),
        (torch.zeros(6).long(), r"train split: expected values \(N, 2\) float32 or float64, got \(6,\) of torch.int64"),
        (torch.tensor([[0.0, 1]] * 5 + [[0, torch.inf]]), "train split: expected finite values, got another in row 5"),
    ],
)
def test_values_are_checked(targets, message):
    with pytest.raises(ValueError, match=message):
        arrays(4, targets=targets)


def test_values_have_no_groups_and_fixed_plain_subsets():
    dataset = arrays(4)
    assert dataset.targets.groups(dataset.train.targets) is None
    assert torch.equal(dataset.train.subset(4).samples, dataset.train.subset(4).samples)
    rest, held_out = dataset.train.divide(2)
    joined = torch.cat([rest.samples, held_out.samples]).tolist()
    assert (len(rest), sorted(joined)) == (4, sorted(dataset.train.samples.tolist()))
    with pytest.raises(ValueError, match="subset size must be between 1 and 6, got 7"):
        dataset.train.subset(7)


def test_row_numbers_are_what_a_model_of_free_features_reads():
    split = Split(torch.arange(6), torch.arange(6) % 3)
    dataset = Dataset({"train": split}, Classes(3), IndexShape(6))
    assert type(dataset) is IndexDataset
    assert dataset.under(DatasetSettings("own")).to("cpu").inputs(split.samples[4:]).tolist() == [4, 5]
    for wrong, came in ((torch.arange(6) + 1, "1 to 6"), (torch.arange(6) - 1, "-1 to 4")):
        with pytest.raises(ValueError, match=f"train split: expected rows 0 to 5, got {came}"):
            replace(dataset, splits={"train": Split(wrong, split.targets)})


def test_shapes_survive_copies_and_say_what_a_model_reads():
    for shape in (ArrayShape(4, 3), IndexShape(6)):
        for again in (copy.deepcopy(shape), pickle.loads(pickle.dumps(shape))):
            assert (type(again), again) == (type(shape), shape)
    assert flat_size(ArrayShape(4, 3), "mlp") == flat_size((1, 4, 3), "mlp") == 12
    assert images_only((1, 4, 3), "vit") == ImageShape(1, 4, 3)
    for shape, held in ((ArrayShape(4), "arrays"), (IndexShape(6), "row numbers"), (TokenShape(4, 9), "texts")):
        with pytest.raises(ValueError, match=f"model=vit reads images, and the dataset holds {held}"):
            images_only(shape, "vit")
    with pytest.raises(ValueError, match="model=mlp reads images, and the dataset holds row numbers"):
        flat_size(IndexShape(6), "mlp")
    with pytest.raises(ValueError, match="expected 2 names, one a class, got 3"):
        Classes(2, ("a", "b", "c"))
