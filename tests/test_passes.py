"""The two passes over the features: what they cost in memory, and that the host waits for nothing."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nclab.metrics import CollapseMeter, passes
from nclab.metrics import meter as meter_module
from nclab.metrics.geometry import class_means, geometry
from nclab.metrics.passes import MeansOnDevice, class_sums, within_sums

C = 10


class Allocations(TorchDispatchMode):
    """Bytes of the largest tensor that any operation made; views of `known` tensors are none."""

    def __init__(self, *known: torch.Tensor):
        super().__init__()
        self.known = {t.untyped_storage().data_ptr() for t in known}
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for t in made if isinstance(made, tuple | list) else (made,):
            if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, t.untyped_storage().nbytes())
        return made


def some_features(n: int, d: int = 64, classes: int = C):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % classes
    h = 3 * torch.randn(classes, d, generator=g)[y] + torch.randn(n, d, generator=g)
    return h, y, MeansOnDevice.of(class_means(*class_sums(h, y, classes)), h)


def tensors(means: MeansOnDevice) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(means).items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("chunk", [1, 1000, 2**13])
def test_chunks_change_no_number(monkeypatch, chunk):
    h, y, means = some_features(1003)
    logits = torch.randn(1003, C, generator=torch.Generator().manual_seed(1))
    whole = within_sums(h, y, means, logits)
    monkeypatch.setattr(passes, "CPU_CHUNK", chunk)
    parts = within_sums(h, y, means, logits)
    for name in ("counts", "ncc_hits", "mismatches"):
        assert torch.equal(getattr(parts, name), getattr(whole, name)), name
    assert parts.with_logits == whole.with_logits == 1003
    torch.testing.assert_close(parts.within, whole.within, rtol=1e-6, atol=0)
    torch.testing.assert_close(parts.within_span, whole.within_span, rtol=1e-6, atol=0)


def test_a_tie_with_the_nearest_class_is_no_mismatch():
    """Logits that are equal and largest at the nearest class mean and at another class, before it or behind."""
    h, y, means = some_features(100)
    assert int(within_sums(h, y, means).ncc_hits) == 100  # so the nearest is the label
    logits = torch.zeros(100, C)
    rows = torch.arange(100)
    logits[rows, y] = 1.0
    for shift in (1, C - 1):
        tied = logits.clone()
        tied[rows, (y + shift) % C] = 1.0
        assert float(within_sums(h, y, means, tied).mismatches) == 0
    larger = logits.clone()
    larger[rows, (y + 1) % C] = 1.5
    assert float(within_sums(h, y, means, larger).mismatches) == 100


def test_sums_by_class_on_a_gpu_are_those_of_a_cpu(monkeypatch):
    """There by one-hot products, here by rows: in float64 the same to the last digits."""
    h, y, means = some_features(1003)
    by_rows = class_sums(h, y, C), within_sums(h, y, means)
    monkeypatch.setattr(passes, "_adds_in_order", lambda _: False)
    by_products = class_sums(h, y, C), within_sums(h, y, means)
    for own, other in zip(by_rows[0], by_products[0], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-13, atol=1e-12)
    torch.testing.assert_close(by_rows[1].within, by_products[1].within, rtol=1e-13, atol=0)
    torch.testing.assert_close(by_rows[1].deviations, by_products[1].deviations, rtol=0, atol=1e-4)
    assert by_rows[1].deviations.abs().max() < 1e-2
    assert torch.equal(by_rows[1].counts, by_products[1].counts)


@pytest.mark.parametrize(("d", "classes"), [(64, C), (8, 100)])
def test_memory_is_bounded_by_the_chunk_not_by_the_number_of_samples(monkeypatch, d, classes):
    monkeypatch.setattr(passes, "CPU_CHUNK", 2**15)
    h, y, means = some_features(20_000, d, classes)
    for call, bound in (
        (lambda: within_sums(h, y, means), 2 * 2**15),  # scores in float32, one-hot labels in float64
        (lambda: class_sums(h, y, classes), 2 * 2**15),  # features in float64
    ):
        with Allocations(h, y, *tensors(means).values()) as seen:
            call()
        assert 0 < seen.largest <= bound


def test_no_samples_add_nothing():
    h, y, means = some_features(50)
    none = within_sums(h[:0], y[:0], means)
    assert none.counts.sum() == none.within.sum() == none.within_span.sum() == none.ncc_hits == none.with_logits == 0


def test_no_pass_waits_for_the_device():
    """A meta tensor has no values: whatever reads one on the host (a branch, a count, a boolean index) raises."""
    h, y, means = some_features(3000)
    h, y, logits = h.to("meta"), y.to("meta"), torch.empty(3000, C, device="meta")
    _, sums = class_sums(h, y, C)
    means = replace(means, **{name: t.to("meta") for name, t in tensors(means).items()})
    seen = within_sums(h, y, means, logits, torch.randn(C, 64))
    assert sums.is_meta
    assert seen.within.is_meta
    assert seen.mismatches.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        float(seen.within.sum())


@pytest.fixture
def meter_on_meta(monkeypatch) -> CollapseMeter:
    """As on a GPU, whose labels are looked at once a pass: a meter whose batches lie on the meta device."""
    monkeypatch.setattr(meter_module, "full_precision", lambda *_, **__: nullcontext())  # no autocast on meta
    return CollapseMeter(C, geometry(torch.randn(C, 64)))


def test_no_batch_of_a_meter_waits_for_the_device(meter_on_meta):
    h, y, logits = (torch.empty(s, device="meta") for s in ((30, 64), (30,), (30, C)))
    for _ in range(2):
        meter_on_meta.add_spread(h, y.long(), logits, torch.randn(C, 64))
    with pytest.raises(RuntimeError, match="meta"):
        meter_on_meta.compute(torch.randn(C, 64))
    first = CollapseMeter(C)
    for _ in range(2):
        first.add_means(h, y.long())
    with pytest.raises(RuntimeError, match="meta"):
        _ = first.class_means


@pytest.mark.parametrize("wrong", [-7, C + 2])
def test_labels_out_of_range_on_a_gpu_are_named_at_the_end_of_the_pass(monkeypatch, wrong):
    monkeypatch.setattr(meter_module, "in_host_memory", lambda _: False)
    h, y = torch.randn(100, 64), torch.arange(100) % C
    bad = torch.where(torch.arange(100) == 17, wrong, y)
    for labels in ([bad, y], [y, bad]):
        first = CollapseMeter(C)
        for own in labels:
            first.add_means(h, own)
        with pytest.raises(ValueError, match=f"labels must lie in 0..9, got {min(0, wrong)}..{max(9, wrong)}"):
            _ = first.class_means
        second = CollapseMeter(C, geometry(torch.randn(C, 64)))
        for own in labels:
            second.add_spread(h, own)
        with pytest.raises(ValueError, match=f"labels must lie in 0..9, got {min(0, wrong)}..{max(9, wrong)}"):
            second.compute()
