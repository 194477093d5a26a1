"""CollapseMeter and measure as a library user meets them: every way of input, and every error."""

import copy
import re

import numpy as np
import pytest
import torch
from collapse_reference import reference

from nclab.metrics import CollapseMeter, geometry, measure

C, D, N = 10, 8, 400


def features(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(N) % C
    centres = torch.randn(C, D, generator=torch.Generator().manual_seed(9))
    return centres[y] + torch.randn(N, D, generator=g), y


def means_of(h: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([h[y == c].double().mean(0) for c in range(C)])


H, Y = features()
WEIGHT = torch.randn(C, D, generator=torch.Generator().manual_seed(1))


def metered() -> CollapseMeter:
    meter = CollapseMeter(C)
    meter.add_means(H, Y)
    return meter


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint64])
def test_labels_of_any_integer_type(dtype):
    assert measure(H, Y.to(dtype), C) == measure(H, Y, C)


def test_numpy_arrays():
    h, y, w = H.numpy(), Y.numpy(), WEIGHT.numpy()
    bias = np.linspace(-1, 1, C)
    assert measure(h, y, C, w, bias) == measure(H, Y, C, WEIGHT, torch.from_numpy(bias))
    means = means_of(H, Y)
    assert measure(h, y, C, class_means=means.numpy()) == measure(H, Y, C, class_means=means)
    fixed = h.copy()
    fixed.flags.writeable = False  # as of np.load(..., mmap_mode="r")
    assert measure(fixed[::-1], y[::-1], C) == measure(H.flip(0), Y.flip(0), C)
    meter = CollapseMeter(C, means.numpy())
    meter.add_spread(h, y.astype(np.int32), h @ w.T, w)
    assert meter.compute(w)["nc4_mismatch"] == measure(H, Y, C, WEIGHT, class_means=means)["nc4_mismatch"]


def test_class_means_as_they_come():
    """A meter's own object, a tensor and an array are one thing."""
    own = metered().class_means
    values = []
    for means in (own, own.means, own.means.numpy()):
        meter = CollapseMeter(C, means)
        meter.add_spread(*features(seed=1))
        values.append(meter.compute())
    assert values[0] == values[1] == values[2]


def test_reset_forgets_the_batches():
    other_h, other_y = features(seed=3)
    meter = metered()
    meter.add_spread(H, Y, H @ WEIGHT.T, WEIGHT)
    meter.compute(WEIGHT)
    meter.reset()
    with pytest.raises(RuntimeError, match="call add_means"):
        _ = meter.class_means
    meter.add_means(other_h.double(), other_y)  # of another type, without a weight
    meter.add_spread(other_h.double(), other_y)
    assert meter.compute() == measure(other_h.double(), other_y, C)

    test = CollapseMeter(C, metered().class_means)
    test.add_spread(H, Y)
    test.reset()
    test.add_spread(other_h, other_y)
    assert test.compute() == measure_against_train(other_h, other_y)


def measure_against_train(h: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    meter = CollapseMeter(C, metered().class_means)
    meter.add_spread(h, y)
    return meter.compute()


@pytest.mark.parametrize("absent", [(3,), (0, 9), tuple(range(2, 10))])
def test_a_test_split_may_lack_classes(absent):
    h, y = features(seed=2)
    keep = ~torch.isin(y, torch.tensor(absent))
    h, y, means = h[keep], y[keep], means_of(H, Y)
    ours, truth = measure(h, y, C, WEIGHT, class_means=means), reference(h, y, C, WEIGHT, class_means=means.numpy())
    assert set(ours) == set(truth)
    for name, value in truth.items():
        assert ours[name] == pytest.approx(value, rel=1e-6), name


def test_a_test_split_of_one_class_has_no_pairs():
    only = Y == 4
    values = measure(H[only], Y[only], C, class_means=means_of(H, Y))
    assert np.isnan(values["cdnv"])
    assert np.isfinite([v for name, v in values.items() if name != "cdnv"]).all()


def test_pass_2_over_other_samples_than_pass_1():
    meter = metered()
    meter.add_spread(H[:-1], Y[:-1])
    with pytest.raises(ValueError, match="class 9 had 40 in pass 1 and 39 in pass 2"):
        meter.compute()
    meter.add_spread(H[-1:], Y[-1:])
    assert meter.compute() == pytest.approx(measure(H, Y, C), rel=1e-7)
    meter.add_spread(H[:1], Y[:1])
    with pytest.raises(ValueError, match="class 0 had 40 in pass 1 and 41 in pass 2"):
        meter.compute()


def test_parts_of_several_processes_need_the_same_samples_only_together():
    meter = CollapseMeter(C, reduce=lambda t: 2 * t)
    meter.add_means(H, Y)
    meter.add_spread(H, Y)
    assert meter.compute()["ncc_accuracy"] == measure(H, Y, C)["ncc_accuracy"]


def test_sums_of_two_processes():
    """Each has a part of the split; `sums` are added up and `accept` takes what comes of it."""
    whole = metered()
    whole.add_spread(H, Y, H @ WEIGHT.T, WEIGHT)
    parts = [(slice(0, 150), CollapseMeter(C)), (slice(150, N), CollapseMeter(C))]
    with pytest.raises(RuntimeError, match="no batch seen"):
        parts[0][1].sums()

    def add_up() -> None:
        total = sum(meter.sums() for _, meter in parts)
        for _, meter in parts:
            meter.accept(total)

    for rows, meter in parts:
        meter.add_means(H[rows], Y[rows])
    add_up()
    for rows, meter in parts:
        meter.add_spread(H[rows], Y[rows], H[rows] @ WEIGHT.T, WEIGHT)
    add_up()
    first, second = (meter.compute(WEIGHT) for _, meter in parts)
    assert first == second == pytest.approx(whole.compute(WEIGHT), rel=1e-6)


def test_a_weight_belongs_to_both_calls():
    meter = metered()
    meter.add_spread(H, Y)
    with pytest.raises(ValueError, match="compute was given a weight and add_spread was not"):
        meter.compute(WEIGHT)
    meter = metered()
    meter.add_spread(H, Y, H @ WEIGHT.T, WEIGHT)
    with pytest.raises(ValueError, match="add_spread was given a weight and compute was not"):
        meter.compute()
    with pytest.raises(ValueError, match=r"weight must have shape \(10, 8\), got \(8, 10\)"):
        meter.compute(WEIGHT.T)


def test_logits_and_weight_come_with_every_batch_or_with_none():
    meter = metered()
    meter.add_spread(H, Y, None, WEIGHT)
    with pytest.raises(ValueError, match="a weight with every batch or with none: the first batch came with, this"):
        meter.add_spread(H, Y)
    with pytest.raises(ValueError, match="logits with every batch or with none: the first batch came without, this"):
        meter.add_spread(H, Y, H @ WEIGHT.T, WEIGHT)


@pytest.mark.parametrize("wrong", [-1, C, 255])
def test_labels_out_of_range_in_either_pass(wrong):
    y = Y.clone()
    y[17] = wrong
    with pytest.raises(ValueError, match=rf"labels must lie in 0..9, got {min(wrong, 0)}..{max(wrong, 9)}"):
        CollapseMeter(C).add_means(H, y)
    with pytest.raises(ValueError, match=rf"labels must lie in 0..9, got {min(wrong, 0)}..{max(wrong, 9)}"):
        metered().add_spread(H, y)


def test_batches_of_one_pass_are_alike():
    meter = metered()
    with pytest.raises(ValueError, match=r"of pass 1 must be alike: the first had d=8 .* on cpu, this one d=7"):
        meter.add_means(H[:, :7], Y)
    with pytest.raises(ValueError, match=r"this one d=8 torch.float64 on cpu"):
        meter.add_means(H.double(), Y)
    with pytest.raises(ValueError, match=r"this one d=8 torch.float32 on meta"):
        meter.add_means(H.to("meta"), Y.to("meta"))
    with pytest.raises(ValueError, match="features must have the d=8 of the class means, got 7"):
        meter.add_spread(H[:, :7], Y)
    meter.add_spread(H, Y)
    with pytest.raises(ValueError, match="of pass 2 must be alike"):
        meter.add_spread(H.double(), Y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.randn(N, D, 2)}, r"features must have shape \(N, d\)"),
        ({"features": torch.randn(N - 1, D)}, r"N > 0 and d > 0, got \(399, 8\) and \(400,\)"),
        ({"features": torch.randn(N, 0)}, r"N > 0 and d > 0, got \(400, 0\)"),
        ({"features": torch.randn(0, D), "labels": Y[:0]}, r"N > 0 and d > 0, got \(0, 8\)"),
        ({"features": H.half()}, "must be float32 or float64.*got torch.float16"),
        ({"features": H.bfloat16()}, "must be float32 or float64.*got torch.bfloat16"),
        ({"features": H.long()}, "must be float32 or float64.*got torch.int64"),
        ({"features": H.tolist()}, "features must be a torch tensor or a numpy array, got list"),
        ({"features": np.full((N, D), "a")}, "features must hold numbers, got a numpy array of <U1"),
        ({"features": H.to("meta")}, "on one device, got meta and cpu"),
        ({"labels": Y.bool()}, "labels must be integers, the class of every sample, got torch.bool"),
        ({"labels": Y.float()}, "labels must be integers, the class of every sample, got torch.float32"),
        ({"labels": Y[:, None]}, r"labels \(N,\) with N > 0 and d > 0, got \(400, 8\) and \(400, 1\)"),
        ({"num_classes": 5}, r"labels must lie in 0..4, got 0..9"),
        ({"num_classes": 11}, "class 10 has no sample"),
        ({"num_classes": 1}, "at least 2 classes, got 1"),
        ({"num_classes": 10.0}, "num_classes must be an integer, got 10.0"),
        ({"num_classes": "10"}, "num_classes must be an integer, got '10'"),
        ({"features": H.to_sparse()}, "features must be a dense tensor, got torch.sparse_coo"),
        ({"features": H.numpy().astype(np.longdouble)}, "features must be of a type that torch has, got a numpy array"),
        ({"labels": Y.to_sparse()}, "labels must be a dense tensor, got torch.sparse_coo"),
        ({"labels": Y.numpy() > 3}, "labels must be integers, the class of every sample, got torch.bool"),
        ({"labels": Y.numpy() / 1}, "labels must be integers, the class of every sample, got torch.float64"),
        ({"weight": WEIGHT.to_sparse()}, "weight must be a dense tensor, got torch.sparse_coo"),
        ({"class_means": np.ones((C, D), int)}, "class_means must be floating point, got torch.int64"),
        ({"weight": torch.randn(C, 7)}, r"weight must have shape \(10, 8\), got \(10, 7\)"),
        ({"weight": torch.ones(C, D, dtype=torch.int64)}, "weight must be floating point, got torch.int64"),
        ({"weight": WEIGHT, "bias": torch.randn(9)}, r"bias must have shape \(10,\), got \(9,\)"),
        ({"bias": torch.randn(C)}, "a bias without a weight"),
        ({"class_means": torch.randn(9, D)}, r"class_means must have shape \(10, 8\), got \(9, 8\)"),
        ({"class_means": torch.ones(C, D, dtype=torch.int32)}, "class_means must be floating point, got torch.int32"),
        ({"class_means": [[0.0] * D] * C}, "class_means must be a torch tensor or a numpy array, got list"),
    ],
)
def test_wrong_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        measure(**{"features": H, "labels": Y, "num_classes": C, **change})


@pytest.mark.parametrize(
    ("means", "message"),
    [
        (torch.randn(9, D), r"class_means must have shape \(10, d\), got \(9, 8\)"),
        (torch.randn(C), r"class_means must have shape \(10, d\), got \(10,\)"),
        (torch.randn(C, 0), r"class_means must have shape \(10, d\), got \(10, 0\)"),
        (geometry(torch.randn(3, D)), r"class_means must have shape \(10, d\), got \(3, 8\)"),
        (torch.ones(C, D, dtype=torch.int64), "class_means must be floating point"),
    ],
)
def test_class_means_that_do_not_fit(means, message):
    with pytest.raises(ValueError, match=message):
        CollapseMeter(C, means)


@pytest.mark.parametrize("shape", [(C,), (C, 0), (C, D, 1)])
def test_geometry_of_no_class_means(shape):
    with pytest.raises(
        ValueError, match=rf"class means must have shape \(C, d\) with d > 0, got {re.escape(str(shape))}"
    ):
        geometry(torch.ones(shape))


def test_logits_that_do_not_fit():
    with pytest.raises(ValueError, match=r"logits must have shape \(400, 10\), got \(400, 9\)"):
        metered().add_spread(H, Y, torch.randn(N, 9))
    with pytest.raises(ValueError, match="logits must be on cpu like the features, got meta"):
        metered().add_spread(H, Y, torch.empty(N, C, device="meta"))


def test_meter_says_what_comes_first():
    with pytest.raises(RuntimeError, match="call add_means"):
        CollapseMeter(C).add_spread(H, Y)
    with pytest.raises(RuntimeError, match="call add_spread"):
        CollapseMeter(C).compute()
    with pytest.raises(RuntimeError, match="are fixed"):
        CollapseMeter(C, geometry(torch.randn(C, D))).add_means(H, Y)


def test_a_meter_can_be_copied():
    """As `copy.deepcopy` of a training state does."""
    meter = metered()
    twin = copy.deepcopy(meter)
    for m in (meter, twin):
        m.add_spread(H, Y)
    assert meter.compute() == twin.compute()
