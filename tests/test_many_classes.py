"""Measuring 100 and 1000 classes: the numbers are those of the definitions, and the memory is that of a few chunks."""

import pytest
import torch
from collapse_reference import reference
from test_passes import Allocations

from nclab.metrics import CollapseMeter, geometry, measure, passes
from nclab.metrics.geometry import class_means
from nclab.metrics.passes import MeansOnDevice, class_sums, within_sums


def features(num_classes: int, d: int, spread: float, n: int = 3000, seed: int = 0):
    """(n, d) around random means, and labels (n,): class 0 has most samples, the last ones one each."""
    g = torch.Generator().manual_seed(seed)
    drawn = (num_classes * torch.rand(n - num_classes, generator=g) ** 3).long()
    y = torch.cat([torch.arange(num_classes), drawn])
    means = torch.randn(num_classes, d, generator=torch.Generator().manual_seed(7))
    return means[y] + spread * torch.randn(n, d, generator=g), y


@pytest.mark.parametrize(
    ("num_classes", "d", "spread"), [(100, 16, 1.0), (100, 16, 1e-3), (100, 150, 1.0), (100, 150, 0.1), (1000, 24, 0.3)]
)
def test_every_column_of_unbalanced_classes_equals_the_reference(num_classes, d, spread):
    h, y = features(num_classes, d, spread, n=2 * num_classes)
    g = torch.Generator().manual_seed(1)
    weight, bias = torch.randn(num_classes, d, generator=g), torch.randn(num_classes, generator=g)
    ours, truth = measure(h, y, num_classes, weight, bias), reference(h, y, num_classes, weight, bias)
    assert set(ours) == set(truth)
    for name, value in truth.items():
        assert ours[name] == pytest.approx(value, rel=1e-6), name
    assert ours["rank"] == min(d, num_classes - 1)


def test_a_test_split_that_lacks_most_classes_equals_the_reference():
    h, y = features(1000, 24, 0.5)
    means = class_means(*class_sums(h, y, 1000)).means
    h_test, y_test = features(1000, 24, 0.5, seed=5)
    h_test, y_test = h_test[y_test % 10 == 3], y_test[y_test % 10 == 3]
    ours = measure(h_test, y_test, 1000, class_means=means)
    truth = reference(h_test, y_test, 1000, class_means=means.numpy())
    for name, value in truth.items():
        assert ours[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0])
def test_the_triangle_inequality_decides_as_all_distances_do(monkeypatch, spread):
    """Of samples nearer to their own mean than half its distance to every other, no distance is taken."""
    h, y = features(50, 20, spread)
    means = MeansOnDevice.of(class_means(*class_sums(h, y, 50)), h)
    logits = torch.randn(len(h), 50, generator=torch.Generator().manual_seed(1))
    rows = []
    of_all = passes._nearest_of_all
    monkeypatch.setattr(passes, "_nearest_of_all", lambda p, *rest: rows.append(p.shape[1]) or of_all(p, *rest))
    few, taken = within_sums(h, y, means, logits), sum(rows)
    means.sure.zero_()
    rows.clear()
    every = within_sums(h, y, means, logits)
    assert sum(rows) == len(h)
    assert {0.05: taken == 0, 0.5: 0 < taken < len(h), 3.0: taken > 0.9 * len(h)}[spread]
    assert few.ncc_hits == every.ncc_hits
    assert few.mismatches == every.mismatches


def test_a_sample_at_half_the_distance_is_not_taken_for_sure():
    """Right beyond the middle between two means: nearest is the other one."""
    means = geometry(torch.tensor([[0.0, 1], [1, 1], [0, 50]]))
    on_device = MeansOnDevice.of(means, torch.zeros(1))
    h, y = torch.tensor([[0.5001, 1.0], [0.4999, 1.0]]), torch.zeros(2, dtype=torch.int64)
    assert within_sums(h, y, on_device).ncc_hits == 1


def test_distances_of_near_means_keep_their_digits():
    """Two means that lie 1e-6 of their length apart, among others: their products differ by rounding alone."""
    means = torch.randn(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means[4] = means[1] + 1e-6 * means[2]
    found = geometry(means)
    truth = (found.scale * (means[:, None] - means)).square().sum(2)
    torch.testing.assert_close(found.distances, truth, rtol=1e-8, atol=0)
    assert torch.equal(found.distances, found.distances.T)


def test_coincident_means_have_no_distance_at_all():
    means = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means[3] = means[0]
    assert geometry(means).distances[0, 3] <= geometry(means).cut


@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 500)])
def test_measuring_the_classifiers_input_never_holds_all_logits(monkeypatch, bias):
    monkeypatch.setattr(passes, "CPU_CHUNK", 2**18)
    h, y = features(500, 8, 1.0, n=20_000)
    weight = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    with Allocations(h, y) as seen:
        values = measure(h, y, 500, weight, bias)
    assert seen.largest <= 8 * 500 * 500  # a float64 matrix of pairs of classes; all logits would be 20 times as much
    logits = h @ weight.T + (0 if bias is None else bias)
    meter = CollapseMeter(500)
    meter.add_means(h, y)
    meter.add_spread(h, y, logits, weight)
    assert meter.compute(weight, bias) == pytest.approx(values, rel=1e-12)
