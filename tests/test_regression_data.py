"""Datasets of a regression: made by a teacher, shipped with scikit-learn, and rows with values of a stated spectrum."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_linnerud

from nclab.data import load_dataset
from nclab.data.diabetes import DiabetesSettings
from nclab.data.free_values import FreeValuesSettings
from nclab.data.linnerud import LinnerudSettings
from nclab.data.regression import RegressionSettings, regression, with_spectrum
from nclab.data.teacher import TeacherSettings
from nclab.interfaces.shapes import ArrayShape, IndexShape
from nclab.interfaces.targets import Values
from nclab.theory.regression import covariance


def spectrum(targets):
    return np.linalg.eigvalsh(covariance(targets.double().numpy()))[::-1]


@pytest.mark.fast
@pytest.mark.parametrize("teacher", ["network", "linear"])
def test_a_teacher_makes_targets_of_the_stated_spectrum(teacher, tmp_path):
    settings = TeacherSettings(samples=300, test_samples=50, inputs=6, spectrum=[4.0, 1.0, 0.01], teacher=teacher)
    data = load_dataset(settings, tmp_path)
    train, test = data.train, data.splits["test"]
    assert (data.shape, data.targets, len(train), len(test)) == (ArrayShape(6), Values(3), 300, 50)
    assert spectrum(train.targets) == pytest.approx([4.0, 1.0, 0.01], rel=1e-5)
    assert train.targets.double().mean(0).abs().max() < 1e-6
    again = load_dataset(settings, tmp_path)
    assert torch.equal(again.train.targets, train.targets)
    assert torch.equal(again.splits["test"].samples, test.samples)


def r2_of_least_squares(split, other):
    x, z = (torch.cat([s.samples, torch.ones(len(s), 1)], 1).double() for s in (split, other))
    f = z @ torch.linalg.lstsq(x, split.targets.double()).solution
    y = other.targets.double()
    return float(1 - (y - f).square().sum() / (y - y.mean(0)).square().sum())


def test_what_the_teacher_makes_can_be_learnt_and_permuted_targets_cannot(tmp_path):
    linear = load_dataset(TeacherSettings(teacher="linear"), tmp_path)
    assert r2_of_least_squares(linear.train, linear.splits["test"]) > 1 - 1e-9
    network = load_dataset(TeacherSettings(), tmp_path)
    assert 0.1 < r2_of_least_squares(network.train, network.splits["test"]) < 0.9
    control = load_dataset(TeacherSettings(teacher="linear", permute_targets=True), tmp_path)
    assert r2_of_least_squares(control.train, control.train) < 0.05
    assert spectrum(control.train.targets) == pytest.approx(spectrum(linear.train.targets), rel=1e-9)
    assert torch.equal(control.train.samples, linear.train.samples)
    assert torch.equal(control.splits["test"].targets, linear.splits["test"].targets)


def test_diabetes_is_that_of_scikit_learn(tmp_path):
    raw = load_dataset(DiabetesSettings(standardize=False, standardize_targets=False), tmp_path)
    x, y = load_diabetes(return_X_y=True, scaled=False)
    rows = [torch.cat([s.samples, s.targets], 1).double() for s in raw.splits.values()]
    assert [len(own) for own in rows] == [354, 88]
    ours, theirs = torch.cat(rows).numpy(), np.c_[x, y].astype(np.float32).astype(float)
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, theirs.tolist()))
    data = load_dataset(DiabetesSettings(), tmp_path)
    assert (data.shape, data.targets) == (ArrayShape(10), Values(1))
    assert spectrum(data.train.targets) == pytest.approx([1.0], rel=1e-6)
    seen = data.inputs(data.train.samples).double()
    assert seen.mean(0).abs().max() < 1e-5
    assert (seen.std(0, correction=0) - 1).abs().max() < 1e-5
    mean, std = raw.train.targets.double().mean(), raw.train.targets.double().std(correction=0)
    again = data.splits["test"].targets.double() * std + mean
    assert torch.allclose(again, raw.splits["test"].targets.double(), atol=1e-3)


def test_linnerud_is_that_of_scikit_learn(tmp_path):
    raw = load_dataset(LinnerudSettings(standardize=False, standardize_targets=False), tmp_path)
    x, y = load_linnerud(return_X_y=True)
    np.testing.assert_array_equal(raw.train.samples.numpy(), x)
    np.testing.assert_array_equal(raw.train.targets.numpy(), y)
    assert list(raw.splits) == ["train"]
    data = load_dataset(LinnerudSettings(), tmp_path)
    np.testing.assert_allclose(np.diag(covariance(data.train.targets)), 1, rtol=1e-6)


def test_free_values_have_the_stated_spectrum(tmp_path):
    data = load_dataset(FreeValuesSettings(samples=40, spectrum=[2.0, 0.5, 0.1]), tmp_path)
    assert (data.shape, data.targets, list(data.splits)) == (IndexShape(40), Values(3), ["train"])
    assert torch.equal(data.train.samples, torch.arange(40))
    assert spectrum(data.train.targets) == pytest.approx([2.0, 0.5, 0.1], rel=1e-5)
    exact = load_dataset(FreeValuesSettings(samples=40, spectrum=[2.0, 0.5, 0.1]), tmp_path, floats=torch.float64)
    assert spectrum(exact.train.targets) == pytest.approx([2.0, 0.5, 0.1], rel=1e-13)
    assert torch.equal(data.train.targets, exact.train.targets.float())
    s = covariance(data.train.targets)
    assert abs(s - np.diag(np.diag(s))).max() > 0.05  # eigenvectors at random


def test_constant_targets_cannot_be_standardised():
    splits = {"train": (torch.randn(5, 2), torch.ones(5, 1))}
    with pytest.raises(ValueError, match="cannot standardize: expected targets that vary, target 0 is constant"):
        regression(RegressionSettings("own", standardize_targets=True), splits)
    with pytest.raises(ValueError, match="expected targets that vary along 2 directions, got fewer"):
        with_spectrum(torch.ones(5, 1).expand(5, 2) * torch.arange(5)[:, None], [1.0, 1.0], torch.Generator())


@pytest.mark.parametrize(
    ("settings", "keys", "message"),
    [
        (TeacherSettings, {"samples": 1}, "dataset.samples must be at least 2, got 1"),
        (TeacherSettings, {"inputs": 0}, "dataset.inputs must be at least 1, got 0"),
        (TeacherSettings, {"teacher": "forest"}, "unknown dataset.teacher 'forest'; valid: network, linear"),
        (TeacherSettings, {"spectrum": [1.0] * 11, "teacher": "linear"}, "must have at most 10 numbers, got 11"),
        (TeacherSettings, {"spectrum": []}, r"dataset.spectrum must be one finite number above 0 a target, got \[\]"),
        (FreeValuesSettings, {"spectrum": [1.0, 0.0]}, r"one finite number above 0 a target, got \[1.0, 0.0\]"),
        (FreeValuesSettings, {"spectrum": [math.inf]}, r"one finite number above 0 a target, got \[inf\]"),
        (FreeValuesSettings, {"samples": 2}, "fewer numbers than there are samples, 2; got 2"),
    ],
)
def test_wrong_settings_are_refused(settings, keys, message):
    with pytest.raises(ValueError, match=message):
        settings(**keys)
