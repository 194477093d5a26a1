"""What the wing brings: angles of NC2, collapsed features, the last layer alone, the step decay at thirds."""

import itertools

import numpy as np
import pytest
import torch
from conftest import TINY, composed
from run_folders import rows

from nclab.config.place import CONF
from nclab.config.plan import Plan
from nclab.data import DATASETS, load_dataset
from nclab.data.imbalance import Imbalance
from nclab.etf import simplex_etf
from nclab.papers.terminal_phase.parts.angles import cosine_std
from nclab.papers.terminal_phase.parts.etf_features import ETFFeaturesSettings
from nclab.run.execute import train
from nclab.training.optim import SCHEDULES, OptimizerSettings, learning_rate


def test_the_rate_falls_after_each_third():
    settings = SCHEDULES["thirds"].settings()
    rate = learning_rate(OptimizerSettings(lr=0.5), settings, 200)
    assert [rate(epoch) for epoch in (0, 66, 67, 133, 134, 199)] == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])
    with pytest.raises(ValueError, match=r"schedule\.gamma must be above 0"):
        SCHEDULES["thirds"].settings(gamma=0.0)


def test_angles_by_hand():
    rows_of = np.random.default_rng(0).normal(size=(5, 7))
    unit = [row / np.sqrt((row**2).sum()) for row in rows_of]
    cosines = [float(a @ b) for a, b in itertools.combinations(unit, 2)]
    assert cosine_std(torch.from_numpy(rows_of)) == pytest.approx(np.std(cosines))
    etf = simplex_etf(5, 7, generator=torch.Generator().manual_seed(0)).T
    assert cosine_std(3 * etf) == pytest.approx(0, abs=1e-12)


def test_a_training_logs_the_angles_of_its_classifier(tiny):
    folder = train(tiny("metrics.suite=[collapse,angles]", "metrics.every=6"))
    found = {r[3]: r[4] for r in rows(folder) if r[:3] == (6, "train", "act3")}
    weight = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]["fc4.weight"].double()
    assert found["nc2_weight_cosine_std"] == pytest.approx(cosine_std(weight))
    assert 0 < found["nc2_cosine_std"] < 1
    assert not any(r[1] == "test" and r[3] == "nc2_cosine_std" for r in rows(folder))


def features(**settings):
    return load_dataset(DATASETS["etf_features"].settings(name="etf_features", **settings), "data")


def test_features_without_noise_are_the_vertices():
    dataset = features(classes=4, dim=9, per_class=3)
    split = dataset.train
    assert split.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    gram = split.samples @ split.samples.T
    same = split.targets[:, None] == split.targets
    torch.testing.assert_close(gram, torch.where(same, 1.0, -1 / 3))
    torch.testing.assert_close(dataset.splits["test"].samples, split.samples)


def test_noise_has_the_length_that_it_says():
    clean, noisy = features(per_class=200), features(per_class=200, noise=0.5)
    lengths = (noisy.train.samples - clean.train.samples).norm(dim=1)
    assert float(lengths.square().mean().sqrt()) == pytest.approx(0.5, rel=0.02)
    assert not torch.equal(noisy.train.samples, noisy.splits["test"].samples)
    assert torch.equal(noisy.train.samples, features(per_class=200, noise=0.5).train.samples)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 12, "dim": 10}, "dataset.dim must be at least 11, classes - 1; got 10"),
        ({"noise": -1.0}, "dataset.noise must be at least 0"),
        ({"per_class": 0}, "dataset.per_class must be at least 1"),
        ({"classes": 1}, "dataset.classes must be at least 2"),
    ],
)
def test_wrong_features_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DATASETS["etf_features"].settings(name="etf_features", **settings)


def test_the_last_layer_alone_learns_one_matrix(tmp_path):
    folder = train(composed(*TINY, f"output_root={tmp_path}", "model=linear", "batch_size=null", "epochs=2"))
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    assert {name: tuple(t.shape) for name, t in weights.items()} == {"head.weight": (10, 64)}
    assert {r[2] for r in rows(folder)} == {"features", "head", "network"}


def test_collapsed_features_are_exact_in_float64(tmp_path):
    samples = load_dataset(ETFFeaturesSettings(), tmp_path, floats=torch.float64).train.samples
    cosines = samples[::20] @ samples[::20].T  # (C, C)
    expected = (10 * torch.eye(10, dtype=torch.float64) - 1) / 9
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-14)
    assert torch.equal(load_dataset(ETFFeaturesSettings(), tmp_path).train.samples, samples.float())


HEAD = {"digits": 142, "mnist": 5923, "fashion_mnist": 6000, "cifar10": 5000}  # train images of class 0


@pytest.mark.parametrize("profile", ["smoke", "cpu", "gpu_hour", "paper"])
def test_unequal_classes_are_compared_on_equally_many_images(profile):
    (part, *others) = Plan(CONF, "terminal_phase").resolve(["phase_imbalanced"], profile, seeds=[0])
    configs = [config for one in (part, *others) for config in one.configs]
    for name in {config.dataset.name for config in configs}:
        even, thin = sorted((c.dataset for c in configs if c.dataset.name == name), key=lambda d: d.imbalance or 0)
        assert (even.imbalance, thin.imbalance) == (None, 10)
        assert even.train_size == thin.train_size is not None
        assert thin.train_size <= sum(Imbalance(10).counts(HEAD[name], 10))


def test_equally_many_images_of_digits_are_there():
    (part,) = Plan(CONF, "terminal_phase").resolve(["phase_imbalanced"], "smoke", seeds=[0])
    even, thin = (load_dataset(config.dataset, "data").train.targets.bincount() for config in part.configs)
    assert even.sum() == thin.sum() == 580
    assert even.max() - even.min() <= 3 < 9 * thin.min() <= thin.max()
