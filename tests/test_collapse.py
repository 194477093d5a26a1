"""Collapse metrics against a float64 reference that forms every matrix, and against closed forms."""

import numpy as np
import pytest
import torch
from collapse_reference import reference

from nclab.etf import simplex_etf
from nclab.metrics import (
    CollapseMeter,
    effective_depth,
    effective_depth_first,
    geometry,
    measure,
    subspace_alignment,
)

C = 10


def features(kind: str, d: int, n: int = 1000, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(C), torch.randint(0, C, (n - C,), generator=g)])
    means = torch.randn(C, d, generator=g)
    if kind == "unequal":  # singular values of the centred means from 1 to 1/200, far from the origin
        u, _, vh = torch.linalg.svd(means - means.mean(0), full_matrices=False)
        values = torch.cat([torch.logspace(0, -np.log10(200), C - 1), torch.zeros(1)])
        means = 30 * u @ torch.diag(values) @ vh + 1
    h = means[y] + (1e-3 if kind == "collapsed" else 1.0) * torch.randn(n, d, generator=g)
    return (h.relu() + 5 if kind == "rectified" else h), y


KINDS = ["ordinary", "collapsed", "unequal", "rectified"]
REFERENCES = [pytest.param(kind, 32, marks=pytest.mark.fast) for kind in KINDS] + [(kind, 512) for kind in KINDS]


@pytest.mark.parametrize(("kind", "d"), [*REFERENCES, ("unequal", 1100)])  # the last: more dimensions than samples
def test_every_column_equals_the_reference(kind, d):
    h, y = features(kind, d)
    g = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(C, d, generator=g), torch.randn(C, generator=g)
    ours, truth = measure(h, y, C, weight, bias), reference(h, y, C, weight, bias)
    assert set(ours) == set(truth)
    for name, value in truth.items():
        assert ours[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.fast
def test_test_split_is_measured_against_train_means():
    h, y = features("ordinary", 64)
    h_test, y_test = features("ordinary", 64, seed=5)
    means = torch.stack([h[y == c].double().mean(0) for c in range(C)])
    ours = measure(h_test, y_test, C, class_means=means)
    truth = reference(h_test, y_test, C, class_means=means.numpy())
    for name, value in truth.items():
        assert ours[name] == pytest.approx(value, rel=1e-6), name
    assert ours["ncc_accuracy"] < measure(h_test, y_test, C)["ncc_accuracy"]  # its own means would flatter


@pytest.mark.fast
def test_stream_equals_whole():
    h, y = features("ordinary", 48)
    meter = CollapseMeter(C)
    for rows, labels in zip(h.split(170), y.split(170), strict=True):
        meter.add_means(rows, labels)
    for rows, labels in zip(h.split(333), y.split(333), strict=True):
        meter.add_spread(rows, labels)
    assert meter.compute() == pytest.approx(measure(h, y, C), rel=1e-7)


def test_autocast_and_tf32_of_the_caller_do_not_reach_the_numbers():
    h, y = features("collapsed", 32)
    weight, bias = torch.randn(C, 32), torch.randn(C)
    plain = measure(h, y, C, weight, bias)
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [b.fp32_precision for b in backends]
    try:
        for b, precision in zip(backends, ("tf32", "bf16"), strict=True):
            b.fp32_precision = precision
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert measure(h, y, C, weight, bias) == plain
        assert [b.fp32_precision for b in backends] == ["tf32", "bf16"]
    finally:
        for b, precision in zip(backends, before, strict=True):
            b.fp32_precision = precision


@pytest.mark.fast
def test_exact_etf_is_collapsed():
    etf = simplex_etf(C, 32, "random", torch.Generator().manual_seed(0)).T  # (C, d)
    y = torch.arange(C).repeat(20)
    values = measure(3 * etf[y] + 1, y, C, weight=etf)
    zeros = {"nc1", "nc1_trace_ratio", "cdnv", "nc2_equinorm", "nc2_equiangular", "nc2_gram"}
    zeros |= {"nc2_weight_gram", "nc3", "nc3_gram", "nc4_mismatch"}
    for name in zeros:
        assert values[name] == pytest.approx(0, abs=1e-12), name
    assert values["ncc_accuracy"] == 1
    assert values["rank"] == C - 1


def test_exact_orthogonal_frame_is_the_other_collapse():
    """Of MSE without bias: class means along the rows of an orthogonal W. A simplex ETF is at a known distance."""
    frame = torch.linalg.qr(torch.randn(32, C, generator=torch.Generator().manual_seed(0))).Q.T  # (C, d)
    y = torch.arange(C).repeat(20)
    values = measure(3 * frame[y], y, C, weight=frame)
    for name in ("nc1", "nc2_weight_orthogonal", "nc2_means_orthogonal", "nc3_cosine"):
        assert values[name] == pytest.approx(0, abs=1e-6), name  # float32 features
    etf = simplex_etf(C, 32, "random", torch.Generator().manual_seed(0)).T
    between = (2 - 2 * ((C - 1) / C) ** 0.5) ** 0.5
    assert values["nc2_weight_gram"] == pytest.approx(between, rel=1e-6)
    assert measure(3 * etf[y], y, C, weight=etf)["nc2_weight_orthogonal"] == pytest.approx(between, rel=1e-6)
    assert measure(3 * etf[y], y, C, weight=etf)["nc3_cosine"] == pytest.approx(0, abs=1e-12)
    turned = measure(3 * frame[y], y, C, weight=-frame)
    assert turned["nc3_cosine"] == pytest.approx(2)


def test_a_feature_without_direction_has_no_cosine():
    h, y = features("ordinary", 32)
    h[0] = 0
    weight = torch.randn(C, 32)
    assert np.isnan(measure(h, y, C, weight=weight)["nc3_cosine"])
    h, y = features("ordinary", 32)
    weight[3] = 0
    assert np.isnan(measure(h, y, C, weight=weight)["nc3_cosine"])


def test_isotropic_noise_around_an_etf_has_the_closed_form_nc1():
    """Expectation (C-1)^2 s^2 / (C r^2) for noise of variance s^2 around vertices of norm r."""
    r, s, n = 2.0, 0.5, 200_000
    g = torch.Generator().manual_seed(0)
    etf = simplex_etf(C, 24, "random", g).T.float()
    y = torch.arange(C).repeat(n // C)
    h = r * etf[y] + s * torch.randn(n, 24, generator=g)
    assert measure(h, y, C)["nc1"] == pytest.approx((C - 1) ** 2 * s**2 / (C * r**2), rel=0.01)


def test_imbalanced_classes_use_the_unweighted_global_mean():
    h, y = features("ordinary", 16, n=2000)
    keep = (y != 0) | (torch.arange(len(y)) % 40 == 0)  # class 0 is rare
    h, y = h[keep], y[keep]
    ours, truth = measure(h, y, C), reference(h, y, C)
    for name, value in truth.items():
        assert ours[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("num_classes", [2, 3, 40])
def test_any_number_of_classes(num_classes):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(num_classes).repeat(30)
    h = torch.randn(num_classes, 50, generator=g)[y] + torch.randn(len(y), 50, generator=g)
    ours, truth = measure(h, y, num_classes), reference(h, y, num_classes)
    for name, value in truth.items():
        assert ours[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_fewer_dimensions_than_classes_lower_the_rank():
    h, y = features("ordinary", 4)
    values = measure(h, y, C)
    assert values["rank"] == 4
    assert values["nc1"] == pytest.approx(reference(h, y, C)["nc1"], rel=1e-6)


def test_one_vector_for_all_is_undefined_not_zero():
    y = torch.arange(C).repeat(500)
    h = torch.randn(1, 64).repeat(len(y), 1)
    values = measure(h, y, C)
    assert values.pop("rank") == 0
    assert all(np.isnan(v) for v in values.values())


def test_features_that_are_not_finite_are_undefined():
    h, y = features("ordinary", 16)
    h[3] = float("nan")
    values = measure(h, y, C, weight=torch.randn(C, 16))
    assert np.isnan(values["nc1"])
    assert np.isnan(values["ncc_accuracy"])


def test_subspace_alignment_against_explicit_principal_angles():
    g = torch.Generator().manual_seed(0)
    means = torch.randn(C, 30, generator=g)
    for shape in ((50, 30), (20, 30), (30, 30)):
        weight = torch.randn(*shape, generator=g)
        m = (means - means.mean(0)).double().numpy()
        q = np.linalg.svd(m, full_matrices=False)[2][: C - 1].T
        v = np.linalg.svd(weight.double().numpy(), full_matrices=False)[2][: C - 1].T
        cosines = np.linalg.svd(q.T @ v, compute_uv=False)
        truth = (cosines**2).mean()
        assert subspace_alignment(geometry(means), weight) == pytest.approx(truth, rel=1e-8)
    aligned = torch.randn(40, C - 1, generator=g) @ (means - means.mean(0))[: C - 1]
    assert subspace_alignment(geometry(means), aligned) == pytest.approx(1)


@pytest.mark.fast
def test_effective_depth_and_galantis():
    ncc = [0.5, 0.995, 0.9, 0.99, 1.0]
    assert effective_depth(ncc, 0.01) == 4
    assert effective_depth_first(ncc, 0.01) == 2
    assert np.isnan(effective_depth([0.5, 0.6], 0.01))
    assert np.isnan(effective_depth_first([0.5, float("nan")], 0.01))
    assert np.isnan(effective_depth([1.0, float("nan")], 0.01))
