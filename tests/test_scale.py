"""No number depends on the scale of features or weights, on the order of samples, or on rounding at deep collapse."""

import math

import pytest
import torch
from collapse_reference import reference
from torch import nn

from nclab.metrics import CollapseMeter, geometry, measure, measure_model, subspace_alignment

C, D, N = 6, 24, 300
FLOATS = [torch.float32, torch.float64]
# 2^-84 and 2^70: squares leave the range of float32, logits (twice the exponent) too.
SCALES = [(-84, 0), (70, 0), (0, -84), (0, 70), (-84, -84), (70, 70), (-84, 70), (60, -100)]


def case(dtype: torch.dtype = torch.float32, seed: int = 0, sigma: float = 0.7):
    g = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(C), torch.randint(0, C, (N - C,), generator=g)])
    centres = torch.randn(C, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    h = centres[y] + sigma * torch.randn(N, D, generator=g, dtype=torch.float64)
    w = centres - centres.mean(0) + torch.randn(C, D, generator=g, dtype=torch.float64)
    return h.to(dtype), y, w.to(dtype)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("of_features", "of_weight"), SCALES)
def test_every_column_is_that_of_the_unscaled(of_features, of_weight, dtype):
    h, y, w = case(dtype)
    h_test, y_test, _ = case(dtype, seed=1)
    h_test[0] *= 1000  # an outlier does not change the scale of its chunk
    expected, scaled = measure(h, y, C, w), measure(h * 2.0**of_features, y, C, w * 2.0**of_weight)
    assert all(math.isfinite(v) and v != 0 for v in expected.values()), expected
    assert scaled == expected  # to the bit
    means = torch.stack([h[y == c].double().mean(0) for c in range(C)])
    assert measure(h_test * 2.0**of_features, y_test, C, w * 2.0**of_weight, class_means=means * 2.0**of_features) == (
        measure(h_test, y_test, C, w, class_means=means)
    )


@pytest.mark.parametrize("of_bias", [-100, 0, 100])
def test_the_bias_is_scaled_with_the_logits(of_bias):
    """As the logits are: h W^T of 2^-168 beside a bias of 2^-100 is nothing, beside none it decides."""
    h, y, w = case()
    bias = torch.randn(C, generator=torch.Generator().manual_seed(3))
    together, apart = measure(h * 2.0**70, y, C, w * 2.0**30, bias * 2.0**100), measure(h, y, C, w, bias)
    assert together.pop("classifier_bias_collapse") == 2.0**100 * apart.pop("classifier_bias_collapse") > 0
    assert together == apart
    small = measure(h * 2.0**-84, y, C, w * 2.0**-84, 0 * bias)
    assert small.pop("classifier_bias_collapse") > 0
    assert small == measure(h, y, C, w)
    for k in (-84, 70):
        found = measure(h * 2.0**k, y, C, w * 2.0**k, bias.double() * 2.0**of_bias)
        exact = reference(h * 2.0**k, y, C, w.double() * 2.0**k, bias.double() * 2.0**of_bias)
        assert found["nc4_mismatch"] == pytest.approx(exact["nc4_mismatch"], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, *FLOATS])
@pytest.mark.parametrize(("of_features", "of_weight"), SCALES[:-1])
def test_measure_model_at_any_scale(of_features, of_weight, dtype):
    """Also bfloat16, which is widened; layers behind the first see its scale, and the head gives its own to logits."""
    torch.manual_seed(0)
    _, y, _ = case()
    x = torch.randn(C, 8)[y] + torch.randn(N, 8)
    model = nn.Sequential(nn.Linear(8, D, bias=False), nn.ReLU(), nn.Linear(D, C, bias=False)).to(dtype)
    batches = list(zip(x.to(dtype).split(70), y.split(70), strict=True))
    expected = measure_model(model, batches, ["0", "1", "2"], C)
    with torch.no_grad():
        model[0].weight *= 2.0**of_features
        model[2].weight *= 2.0**of_weight
    scaled = measure_model(model, batches, ["0", "1", "2"], C)
    for layer, columns in expected.items():
        for name, value in columns.items():
            found = scaled[layer][name]
            if name == "classifier_bias_collapse":  # in units of the logits
                found = found / 2.0 ** (of_features + of_weight)
            lost = name == "nc4_mismatch" and abs(of_features + of_weight) > 126 and dtype != torch.float64  # of logits
            assert found == value or (lost and math.isnan(found)), (layer, name)


@pytest.mark.parametrize("of_features", [-1000, -600, 600, 1000])
def test_float64_has_the_range_of_float64(of_features):
    h, y, w = case(torch.float64)
    expected = measure(h, y, C, w)
    assert measure(h * 2.0**of_features, y, C, w) == expected
    assert measure(h, y, C, w * 2.0**of_features) == expected


@pytest.mark.parametrize("dtype", FLOATS)
def test_exact_collapse_is_0_and_never_below(dtype):
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        y = torch.randint(0, 3, (60,), generator=g)
        values = measure(torch.randn(3, 7, generator=g, dtype=dtype)[y], y, 3)
        for name in ("nc1", "nc1_trace_ratio", "cdnv"):
            assert 0 <= values[name] < 1e-30, (seed, name, values[name])


def test_logits_out_of_range_are_no_mismatch():
    h, y, w = case()
    for wrong in (math.inf, math.nan, -math.inf):
        logits = h @ w.T
        logits[3] = wrong
        meter = CollapseMeter(C)
        meter.add_means(h, y)
        meter.add_spread(h, y, logits, w)
        assert math.isnan(meter.compute(w)["nc4_mismatch"])
    logits = h @ w.T
    expected = meter_mismatch(h, y, logits, w)
    logits[3, logits[3].argmin()] = -math.inf  # as of a class that is masked
    assert meter_mismatch(h, y, logits, w) == expected


def meter_mismatch(h, y, logits, w) -> float:
    meter = CollapseMeter(C)
    meter.add_means(h, y)
    meter.add_spread(h, y, logits, w)
    return meter.compute(w)["nc4_mismatch"]


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_leaves_the_range_is_nan(dtype):
    h, y, w = case(dtype)
    h_test = h.clone()
    h_test[5] = torch.finfo(dtype).max  # its square is not a number of this precision
    means = torch.stack([h[y == c].double().mean(0) for c in range(C)])
    values = measure(h_test, y, C, w, class_means=means)
    for name in ("nc1", "nc1_trace_ratio", "cdnv", "ncc_accuracy", "nc3_cosine", "nc4_mismatch"):
        assert math.isnan(values[name]), name
    for name in ("nc2_gram", "nc3", "nc2_weight_gram"):
        assert math.isfinite(values[name]), name


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("k", [-84, 70])
def test_subspace_alignment_at_any_scale(k, dtype):
    h, y, _ = case(dtype)
    means = torch.stack([h[y == c].mean(0) for c in range(C)])
    weight = torch.randn(10, D, generator=torch.Generator().manual_seed(4), dtype=dtype)
    expected = subspace_alignment(geometry(means), weight)
    assert subspace_alignment(geometry(means * 2.0**k), weight) == expected
    assert subspace_alignment(geometry(means), weight * 2.0**k) == expected


def test_parts_of_two_processes_have_one_scale():
    """The scale follows from the class means of the whole, whatever a process or a batch holds."""
    h, y, w = case()
    order = h.norm(dim=1).argsort()
    h, y = h[order] * 2.0**70, y[order]
    whole = measure(h, y, C, w)
    meters = [CollapseMeter(C), CollapseMeter(C)]
    rows = [slice(0, 100), slice(100, N)]
    for meter, own in zip(meters, rows, strict=True):
        meter.add_means(h[own], y[own])
    total = sum(meter.sums() for meter in meters)
    for meter, own in zip(meters, rows, strict=True):
        meter.accept(total)
        meter.add_spread(h[own], y[own], h[own] @ (w * 2.0**-70).T, w)
    total = sum(meter.sums() for meter in meters)
    for meter in meters:
        meter.accept(total)
        assert meter.compute(w) == pytest.approx(whole, rel=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_mean_at_the_global_mean_has_no_angle(dtype):
    """Means .1, .2, .3: the middle one is mu_G up to rounding."""
    y = torch.arange(3).repeat_interleave(4)
    h = torch.tensor([0.1, 0.2, 0.3], dtype=dtype)[y][:, None]  # (12, 1)
    assert torch.finfo(torch.float64).eps > abs(float(geometry(h[::4]).centred[1])) > 0 or dtype == torch.float32
    for seed in range(5):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        values = measure(h[order], y[order], 3)
        assert math.isnan(values["nc2_equiangular"])
        assert values["rank"] == 1
        assert values["cdnv"] == pytest.approx(0, abs=1e-12)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sigma", [1e-6, 1.0, 1e3])
def test_twin_classes_coincide_in_any_order(dtype, sigma):
    """Classes 0 and 1 have the same samples: their means differ by the rounding of a sum at most."""
    g = torch.Generator().manual_seed(0)
    twins, other = torch.randn(2, 50, D, generator=g, dtype=torch.float64)
    twins, other = (1 + sigma * twins).to(dtype), (3 + sigma * other).to(dtype)
    seen = set()
    for seed in range(8):
        order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
        h, y = torch.cat([twins, twins[order], other]), torch.arange(3).repeat_interleave(50)
        mixed = torch.randperm(150, generator=torch.Generator().manual_seed(seed))
        for own in (slice(None), mixed):
            values = measure(h[own], y[own], 3)
            assert math.isnan(values["cdnv"])
            assert values["rank"] == 1
            seen.add(round(values["nc1"], 12 if dtype == torch.float64 else 5))
    assert len(seen) == 1


def test_near_means_do_not_coincide():
    """1e-4 apart among means of order 1: above the rounding of float32 features, and counted."""
    h, y, _ = case(sigma=1e-6)
    near = h.clone()
    near[y == 1] = near[y == 0][:1] + 1e-4
    assert 0 < measure(near, y, C)["cdnv"] < 1


@pytest.mark.parametrize("counts", [[500] * 5, [2487, 7, 3, 2, 1]])
def test_equal_features_have_equal_means_whatever_the_counts(counts):
    """A sum in float32 rounds otherwise for another number of samples: means of noise, rank 1 and an NC1."""
    y = torch.arange(5).repeat_interleave(torch.tensor(counts))
    h = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).repeat(len(y), 1)
    for own in (slice(None), torch.randperm(len(y), generator=torch.Generator().manual_seed(0))):
        values = measure(h[own], y[own], 5)
        assert values.pop("rank") == 0
        assert all(math.isnan(v) for v in values.values())


@pytest.mark.fast
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("sigma", [1e-3, 1e-5])
def test_deep_collapse(sigma, offset):
    """Means rounded to float32 are an ulp off, which is no longer nothing against sigma."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(10).repeat(400)
    centres = torch.randn(10, 64, generator=g) + offset
    train, test = (centres[y] + sigma * torch.randn(len(y), 64, generator=g) for _ in range(2))
    means = torch.stack([train[y == c].double().mean(0) for c in range(10)])
    for ours, truth in (
        (measure(train, y, 10), reference(train, y, 10)),
        (measure(test, y, 10, class_means=means), reference(test, y, 10, class_means=means.numpy())),
    ):
        for name in ("nc1", "nc1_trace_ratio", "cdnv"):
            assert ours[name] == pytest.approx(truth[name], rel=1e-6), name


def test_shares_of_samples_are_ratios_of_integers():
    """A float32 quotient is off by 3e-8."""
    h, y, w = case(sigma=2.0)
    values = measure(h, y, C, w)
    for name in ("nc4_mismatch", "ncc_accuracy"):
        assert 0 < values[name] < 1
        assert values[name] == round(values[name] * N) / N, name
