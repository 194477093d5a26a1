"""Effective and stable rank, and how evenly class means lie on the sphere, against numpy's SVD and closed forms."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import rows
from torch.utils._python_dispatch import TorchDispatchMode

from nclab import metrics
from nclab.etf import simplex_etf
from nclab.metrics import (
    effective_rank,
    feature_spectrum,
    geometry,
    gnc2,
    hyperspherical_uniformity,
    spectrum,
    stable_rank,
)
from nclab.metrics.rows import SampledRows, chosen_rows
from nclab.metrics.suites import spectra
from nclab.run.execute import train
from nclab.run.trained import load_trained

C = 6


def by_svd(matrix):
    """(effective rank, stable rank) by the definitions."""
    s = np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)
    p = s / s.sum()
    p = p[p > 0]
    return np.exp(-(p * np.log(p)).sum()), (s**2).sum() / s.max() ** 2


def ranks(matrix):
    squares = spectrum(matrix)
    return effective_rank(squares), stable_rank(squares)


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(40, 7), (7, 40), (20, 20)])
def test_ranks_against_the_singular_values_of_numpy(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ranks(matrix) == pytest.approx(by_svd(matrix), rel=1e-9)


def test_ranks_of_known_spectra():
    assert ranks(torch.eye(5)) == pytest.approx((5, 5))
    assert ranks(torch.ones(4, 3)) == pytest.approx((1, 1))
    assert ranks(torch.diag(torch.tensor([2.0, 1, 1]))) == pytest.approx((2**1.5, 1.5))  # entropy of 1/2, 1/4, 1/4
    etf = simplex_etf(C, 16, "random", torch.Generator().manual_seed(0))
    assert ranks(etf) == pytest.approx((C - 1, C - 1))


@pytest.mark.parametrize("k", [-140, -84, 70, 120])
def test_ranks_do_not_depend_on_scale(k):
    matrix = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ranks(matrix * 2.0**k) == ranks(matrix)


def test_what_is_undefined_is_nan():
    assert all(math.isnan(value) for value in ranks(torch.zeros(4, 3)))
    assert all(math.isnan(value) for value in ranks(torch.full((4, 3), math.inf)))
    noise = spectrum(torch.full((4, 3), 1e-9), noise=1e-15)
    assert math.isnan(effective_rank(noise))


def means_of(rows):
    return geometry(torch.as_tensor(rows, dtype=torch.float64))


@pytest.mark.fast
@pytest.mark.parametrize("k", [-84, 0, 70])
def test_uniformity_of_a_simplex_is_the_least_there_is(k):
    etf = means_of(3 + simplex_etf(C, 16, "random", torch.Generator().manual_seed(0)).T)
    least = -0.5 * math.log(2 * C / (C - 1))  # each pair at distance sqrt(2 C / (C-1))
    assert hyperspherical_uniformity(etf) == pytest.approx(least, rel=1e-12)
    assert gnc2(etf) == pytest.approx(0, abs=1e-12)
    g = torch.Generator().manual_seed(1)
    raw = torch.randn(C, 16, generator=g, dtype=torch.float64)
    other = means_of(raw * 2.0**k)
    m = raw.numpy() - raw.numpy().mean(0)
    u = m / np.linalg.norm(m, axis=1, keepdims=True)
    logs = [-np.log(np.linalg.norm(u[a] - u[b])) for a in range(C) for b in range(a + 1, C)]
    assert hyperspherical_uniformity(other) == pytest.approx(np.mean(logs), rel=1e-12)
    assert hyperspherical_uniformity(other) > least
    assert gnc2(other) == pytest.approx(np.std(logs) / abs(np.mean(logs)), rel=1e-12)


def test_uniformity_is_undefined_where_directions_coincide():
    m = torch.randn(C, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    m = m - m.mean(0)
    m[1] = 2 * m[0]
    m[2:] += -m.sum(0) / (C - 2)  # centred again
    for found in (hyperspherical_uniformity(means_of(m)), gnc2(means_of(m))):
        assert math.isnan(found)
    one = means_of(torch.ones(C, 4))
    assert math.isnan(hyperspherical_uniformity(one))
    assert math.isnan(gnc2(one))


def test_near_means_keep_their_digits():
    """1 - cos of near directions would cancel."""
    m = torch.eye(3, 5, dtype=torch.float64)
    m[1] = m[0] + torch.tensor([0, 1e-6, 0, 0, 0])
    found = means_of(m)
    u = found.centred / found.centred.norm(dim=1, keepdim=True)
    logs = [-math.log((u[a] - u[b]).norm()) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert hyperspherical_uniformity(found) == pytest.approx(sum(logs) / 3, rel=1e-9)


def test_sampled_rows_are_the_same_whoever_holds_them():
    h = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    whole, parts = SampledRows(50, most=20), [SampledRows(50, most=20) for _ in range(2)]
    whole.add({"a": h, "b": h[:, :1]}, torch.arange(50))
    for part, own in zip(parts, (slice(0, 17), slice(17, 50)), strict=True):
        for index in torch.arange(50)[own].split(8):
            part.add({"a": h[index], "b": h[index, :1]}, index)
    parts[0].accept(parts[0].sums() + parts[1].sums())
    for name in ("a", "b"):
        assert torch.equal(parts[0][name], whole[name])
    chosen = chosen_rows(50, 20)
    assert torch.equal(whole["a"], h[chosen].double())
    assert len(chosen.unique()) == 20
    assert torch.equal(chosen_rows(10, 20), torch.arange(10))


@pytest.mark.fast
def test_a_run_logs_them(tiny):
    """Recomputed from the saved network, on both splits."""
    folder = train(tiny("epochs=2", "metrics.suite=[collapse,spectra]", "etf=last_k", "etf.k=2"))
    logged = {r[1:4]: r[4] for r in rows(folder) if r[0] == 2}
    model, data, _ = load_trained(folder)
    with torch.no_grad():
        found = {split: model(data.inputs(s.samples)) for split, s in data.splits.items()}
    features = {split: {**out.features, "fc4": out.prediction} for split, out in found.items()}
    for layer in ("fc1", "fc2", "fc3", "act3", "fc4"):
        h, y = features["train"][layer].double(), data.train.targets
        means = torch.stack([h[y == c].mean(0) for c in range(10)])
        m = means - means.mean(0)
        for split in ("train", "test"):
            expected = by_svd(features[split][layer].double() - means.mean(0))
            names = ("effective_rank_features", "stable_rank_features")
            assert [logged[split, layer, name] for name in names] == pytest.approx(expected, rel=1e-4), (split, layer)
        names = ("effective_rank_means", "stable_rank_means")
        assert [logged["train", layer, name] for name in names] == pytest.approx(by_svd(m), rel=1e-4), layer
        assert logged["train", layer, "gnc2"] == pytest.approx(gnc2(geometry(means)), rel=1e-4)
        assert ("test", layer, "gnc2") not in logged
        names = ("effective_rank_weight", "stable_rank_weight")
        if layer == "act3":
            assert ("train", layer, names[0]) not in logged
        else:
            weight = model.get_submodule(layer).weight.detach()
            assert [logged["train", layer, name] for name in names] == pytest.approx(by_svd(weight), rel=1e-4), layer
    assert logged["train", "fc4", "stable_rank_weight"] == pytest.approx(9, rel=1e-5)  # a simplex ETF of ten


def test_more_samples_than_are_taken(tiny, monkeypatch):
    monkeypatch.setattr(spectra, "MOST_ROWS", 50)
    folder = train(tiny("epochs=1", "metrics.suite=[spectra]", "metrics.batch_size=64"))
    logged = {r[1:4]: r[4] for r in rows(folder) if r[0] == 1}
    model, data, _ = load_trained(folder)
    with torch.no_grad():
        h = model(data.inputs(data.train.samples)).features["fc2"].double()
    mean = torch.stack([h[data.train.targets == c].mean(0) for c in range(10)]).mean(0)
    expected = by_svd(h[chosen_rows(200, 50)] - mean)[0]
    assert logged["train", "fc2", "effective_rank_features"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("k", [-900, -600, 500])
def test_a_cut_at_noise_does_not_depend_on_scale(k):
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1e-5])).double()
    noise = 2.0**-200 if k < -500 else 1e-8  # squares of a matrix that is smaller leave the range of a float
    found = spectrum(matrix * 2.0**k, noise * 2.0 ** (2 * k) if k > -500 else 0.0)
    assert torch.count_nonzero(found) == (2 if k > -500 else 3)
    assert torch.isnan(spectrum(matrix * 2.0**k, noise * 2.0**200)).all() == (k < -500)


def test_gnc2_where_the_mean_is_0_is_undefined(monkeypatch):
    import nclab.metrics.spectra as module

    means = means_of(torch.eye(3))
    assert gnc2(means) == pytest.approx(0, abs=1e-12)
    monkeypatch.setattr(module, "_log_inverse_distances", lambda m: torch.tensor([1.0, -1.0]).double())
    assert math.isnan(gnc2(means))
    assert hyperspherical_uniformity(means) == 0


class Ops(TorchDispatchMode):
    """The names of the operators that ran."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_taking_rows_waits_for_no_device():
    """Tensors without memory have no values to wait for: what asks for one raises."""
    taken = SampledRows(50, most=20)
    batch, index = torch.empty(8, 3, device="meta"), torch.empty(8, dtype=torch.int64, device="meta")
    taken.add({"a": batch}, index)
    with Ops() as ops:
        taken.add({"a": batch}, index)
    assert not [name for name in ops.seen if "_to_copy" in name]  # nothing is moved or cast a second time
    assert any("index_copy" in name for name in ops.seen)


def test_the_recipe_of_the_docs_gives_the_number_of_the_suite(tiny):
    folder = train(tiny("epochs=2", "metrics.suite=[spectra]", "etf=last_k", "etf.k=2"))
    logged = {r[1:4]: r[4] for r in rows(folder) if r[0] == 2}
    recipes = re.findall(r"`((effective|stable)_rank\(feature_spectrum[^`]*)`", Path("docs/metrics.md").read_text())
    assert len(recipes) == 2
    model, data, _ = load_trained(folder)
    with torch.no_grad():
        found = {split: model(data.inputs(s.samples)).features for split, s in data.splits.items()}
    for layer in ("fc1", "act3"):
        meter = metrics.CollapseMeter(10)
        meter.add_means(found["train"][layer], data.train.targets)
        for split in ("train", "test"):
            given = {**vars(metrics), "features": found[split][layer], "class_means": meter.class_means}
            for text, which in recipes:
                found_by_recipe = eval(text, given)  # noqa: S307 - of our own page
                assert found_by_recipe == pytest.approx(logged[split, layer, f"{which}_rank_features"], rel=1e-5)


def test_the_spectrum_of_equal_features_is_undefined():
    h = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    means = geometry(torch.eye(3, 6).double() + 0.1)
    at_centre = means.means.mean(0).float().expand(40, 6)  # each entry is rounded to float32
    assert torch.isnan(feature_spectrum(at_centre, means)).all()
    assert torch.isnan(feature_spectrum(at_centre.double(), means, torch.float32)).all()
    assert not torch.isnan(feature_spectrum(h, means)).any()
    with pytest.raises(ValueError, match=r"features must have shape \(n, 6\), as the class means, got \(40, 5\)"):
        feature_spectrum(h[:, :5], means)
