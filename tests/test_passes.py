"""The two passes over the features: what they cost in memory, and that the host waits for nothing."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nclab.metrics import collapse
from nclab.metrics.collapse import OnDevice, class_means, class_sums, spread

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
    means = class_means(*class_sums(h, y, classes))
    return h, y, OnDevice.of(means, h)


@pytest.mark.parametrize("chunk", [1, 1000, 2**13])
def test_chunks_change_no_number(monkeypatch, chunk):
    h, y, at = some_features(1003)
    logits = torch.randn(1003, C, generator=torch.Generator().manual_seed(1))
    whole = spread(h, y, at, logits)
    monkeypatch.setattr(collapse, "CPU_CHUNK", chunk)
    parts = spread(h, y, at, logits)
    for name in ("counts", "ncc_hits", "mismatches"):
        assert torch.equal(getattr(parts, name), getattr(whole, name)), name
    assert parts.decided == whole.decided == 1003
    torch.testing.assert_close(parts.squares, whole.squares, rtol=1e-6, atol=0)
    torch.testing.assert_close(parts.along, whole.along, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("d", "classes"), [(64, C), (8, 100)])
def test_memory_is_bounded_by_the_chunk_not_by_the_number_of_samples(monkeypatch, d, classes):
    monkeypatch.setattr(collapse, "CPU_CHUNK", 2**15)
    h, y, at = some_features(20_000, d, classes)
    for call, bound in (
        (lambda: spread(h, y, at), 2 * 2**15),  # scores in float32, one-hot labels in float64
        (lambda: class_sums(h, y, classes), 2**15),  # one-hot labels in float32
    ):
        with Allocations(h, y, *vars(at).values()) as seen:
            call()
        assert 0 < seen.largest <= bound


def test_no_samples_add_nothing():
    h, y, at = some_features(50)
    none = spread(h[:0], y[:0], at)
    assert none.counts.sum() == none.squares.sum() == none.along.sum() == none.ncc_hits == none.decided == 0


def test_no_pass_waits_for_the_device():
    """A meta tensor has no values: whatever reads one on the host (a branch, a count, a boolean index) raises."""
    h, y, at = some_features(3000)
    h, y, logits = h.to("meta"), y.to("meta"), torch.empty(3000, C, device="meta")
    _, sums = class_sums(h, y, C)
    seen = spread(h, y, OnDevice(*(t.to("meta") for t in vars(at).values())), logits)
    assert sums.is_meta
    assert seen.squares.is_meta
    assert seen.mismatches.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        float(seen.squares.sum())
