"""What a network makes of samples from outside its classes, against scikit-learn and synthetic geometry."""

import math

import numpy as np
import pytest
import torch
from conftest import composed
from run_folders import rows
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from nclab.config.checks import ConfigError
from nclab.data import load_dataset
from nclab.data.dataset import DATASETS, Dataset, DatasetSettings
from nclab.data.images import ImageSettings
from nclab.data.outside import load_with_outside
from nclab.data.split import Split
from nclab.interfaces.targets import Classes
from nclab.metrics import geometry, nc5, neco_auroc
from nclab.metrics.rows import chosen_rows
from nclab.metrics.suites import ood
from nclab.run.execute import check, train
from nclab.run.trained import load_trained

C, D = 4, 10


def clusters(n, seed, offset=0.0, spread=0.1):
    """(n, D) around C orthogonal centres in the first C dimensions."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % C
    return torch.eye(C, D, dtype=torch.float64)[y] + offset + spread * torch.randn(n, D, generator=g).double(), y


def means_of(h, y):
    return torch.stack([h[y == c].mean(0) for c in range(C)])


@pytest.mark.fast
@pytest.mark.parametrize("k", [-84, 0, 70])
def test_nc5_by_hand(k):
    h, y = clusters(80, 0, offset=0.3)
    means, other = means_of(h, y), torch.randn(D, generator=torch.Generator().manual_seed(3)).double()
    m = means - means.mean(0)
    expected = np.mean([abs(row @ other) / row.norm() / other.norm() for row in m])
    assert nc5(geometry(means * 2.0**k), other * 2.0**k) == pytest.approx(expected, rel=1e-12)


def test_nc5_of_what_is_orthogonal_or_undefined():
    means = torch.eye(C, D, dtype=torch.float64)
    outside = torch.zeros(D, dtype=torch.float64)
    outside[C + 1] = 5
    assert nc5(geometry(means), outside) == 0
    assert math.isnan(nc5(geometry(means), 0 * outside))
    assert math.isnan(nc5(geometry(torch.ones(C, D)), outside))
    assert nc5(geometry(means), means[0]) == pytest.approx((3**0.5 / 2 + 3 * (3 / 4) ** -0.5 / 4) / 4)


@pytest.mark.fast
def test_neco_against_pca_of_scikit_learn():
    (h, _), (inside, _) = clusters(200, 0, spread=0.5), clusters(50, 1, spread=0.5)
    others = torch.randn(60, D, generator=torch.Generator().manual_seed(2)).double()
    pca = PCA(C - 1).fit(h.numpy())

    def scores(rows):
        centred = rows.numpy() - h.numpy().mean(0)
        return np.linalg.norm(pca.transform(rows.numpy()), axis=1) / np.linalg.norm(centred, axis=1)

    labels = [1] * 50 + [0] * 60
    expected = roc_auc_score(labels, np.concatenate([scores(inside), scores(others)]))
    assert neco_auroc(h, inside, others, C) == pytest.approx(expected, rel=1e-9)
    assert 0.6 < expected < 1
    for k in (-84, 70):
        assert neco_auroc(h * 2.0**k, inside * 2.0**k, others * 2.0**k, C) == pytest.approx(expected, rel=1e-9)


def test_neco_of_what_lies_outside_the_span_of_the_means():
    (h, _), (inside, _) = clusters(80, 0, spread=0.01), clusters(40, 1, spread=0.01)
    others = h.mean(0) + torch.cat([torch.zeros(30, C), torch.randn(30, D - C)], 1).double()
    assert neco_auroc(h, inside, others, C) == 1
    assert neco_auroc(h, inside, inside, C) == pytest.approx(0.5)
    assert math.isnan(neco_auroc(torch.ones(9, D), inside, others, C))
    assert math.isnan(neco_auroc(h, inside, others * math.nan, C))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-30, 1e30])
def test_neco_of_equal_rows_is_undefined_whatever_the_mean_rounds_to(value):
    equal = torch.full((90, D), value, dtype=torch.float64) * torch.linspace(0.3, 2, D).double()
    inside = equal[:20] * (1 + torch.rand(20, D, generator=torch.Generator().manual_seed(1)).double())
    assert math.isnan(neco_auroc(equal, inside, inside.flip(1), C))


def test_neco_of_a_feature_that_is_the_centre_up_to_rounding_is_undefined():
    (h, _), (inside, _) = clusters(90, 0, offset=0.3), clusters(20, 1, offset=0.3)
    centre = h.mean(0)
    at_centre = torch.cat([inside, centre[None] * (1 + 2e-16)])
    assert math.isnan(neco_auroc(h, at_centre, inside + 0.1, C))
    assert 0 <= neco_auroc(h, inside, inside + 0.1, C) <= 1


def images(shape=(1, 8, 8), pixel_max=16, n=60):
    g = torch.Generator().manual_seed(5)
    samples = torch.randint(0, pixel_max + 1, (n, *shape), generator=g).to(torch.uint8)
    splits = {name: Split(samples + 0, torch.arange(n) % 2) for name in ("train", "test")}
    return Dataset(splits, Classes(2), shape, pixel_max=pixel_max)


@pytest.fixture
def others(own_registries):
    DATASETS.add("speckle", ImageSettings)(lambda settings, root: images())
    DATASETS.add("wide", ImageSettings)(lambda settings, root: images((1, 9, 9)))
    DATASETS.add("bright", ImageSettings)(lambda settings, root: images(pixel_max=255))


SUITE = ("metrics.suite=[collapse,ood]", "metrics.ood_dataset=speckle")


@pytest.mark.fast
def test_a_run_logs_them(tiny, others, monkeypatch):
    monkeypatch.setattr(ood, "MOST_ROWS", 90)
    folder = train(tiny("epochs=1", *SUITE, "metrics.batch_size=50"))
    logged = {r[1:4]: r[4] for r in rows(folder) if r[0] == 1}
    assert {key for key in logged if key[2] in ("nc5", "neco_auroc")} == {
        ("train", "act3", "nc5"),
        ("test", "act3", "neco_auroc"),
    }
    model, data, config = load_trained(folder)
    outside = load_dataset(DatasetSettings("speckle"), config.data_root).splits["test"].samples
    with torch.no_grad():
        h, h_test, h_out = (
            model(data.inputs(x)).features["act3"].double()
            for x in (data.train.samples, data.splits["test"].samples, outside)
        )
    means = torch.stack([h[data.train.targets == c].mean(0) for c in range(10)])
    assert logged["train", "act3", "nc5"] == pytest.approx(nc5(geometry(means), h_out.mean(0)), rel=1e-4)
    own, test = (h[chosen_rows(200, 90)], h_test[chosen_rows(100, 90)])
    assert logged["test", "act3", "neco_auroc"] == pytest.approx(neco_auroc(own, test, h_out, 10), abs=1e-3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("metrics.suite=[ood]",), r"metrics.suite: ood needs samples of none of the classes: set metrics.ood_dataset"),
        (("metrics.suite=[ood]", "metrics.ood_dataset=wide"), r"metrics.ood_dataset=wide: expected .* \(1, 8, 8\)"),
        (("metrics.suite=[ood]", "metrics.ood_dataset=bright"), r"metrics.ood_dataset=bright: .*pixel"),
        (
            ("metrics.suite=[ood]", "metrics.ood_dataset=speckel"),
            "unknown metrics.ood_dataset 'speckel'; did you mean",
        ),
        *(
            (("metrics.suite=[ood]", f"metrics.ood_dataset={name}"), f"unknown metrics.ood_dataset '{name}'; .*speckle")
            for name in ("npz", "image_folder", "torchvision", "digits")  # a key without a default; the run's own
        ),
        (("metrics.ood_dataset=speckle",), "metrics.ood_dataset has no effect with metrics.suite=\\[collapse\\]"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tiny, others, tmp_path, keys, message):
    for refuse in (lambda config: check([config]), train):
        with pytest.raises(ConfigError, match=message):
            refuse(tiny(*keys))
    assert not list(tmp_path.iterdir())


def test_the_key_changes_no_older_name():
    plain, other = composed(), composed("metrics.ood_dataset=mnist")
    assert "ood_dataset" not in plain.identity()["metrics"]
    assert other.identity()["metrics"]["ood_dataset"] == "mnist"


def test_a_wrong_name_is_refused_before_the_dataset_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.ood_dataset 'npz'; valid: .*mnist"):
        load_with_outside(DatasetSettings("mnist"), tmp_path, "cpu", "npz")  # no mnist here: no MissingDataError


def test_labels_that_are_not_the_true_ones_leave_no_in_sample_numbers(tiny, others):
    """Split train_clean has the samples of train, which both suites learn from."""
    suites = ("metrics.suite=[probe,ood]", "metrics.ood_dataset=speckle")
    folder = train(tiny("epochs=1", "dataset.label_noise=0.4", "dataset.valid_size=60", *suites))
    by_split = {}
    for _, split, _, metric, _ in rows(folder):
        by_split.setdefault(split, set()).add(metric)
    names = {"linear_probe_accuracy", "knn_accuracy", "neco_auroc"}
    assert by_split["test"] >= names
    assert by_split["valid"] >= names
    assert not by_split["train_clean"] & names
    assert "accuracy" in by_split["train_clean"]
