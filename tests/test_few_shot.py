"""Features on held-out classes: episodes against loops, a linear probe against scikit-learn, and the suite in a run."""

import math

import numpy as np
import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, killed_after, rows
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nclab.config.checks import ConfigError
from nclab.data import load_dataset
from nclab.metrics import few_shot_accuracy, half_probe_accuracy, measure
from nclab.metrics.few_shot import episodes_of
from nclab.metrics.rows import chosen_rows
from nclab.metrics.suite import METRICS, Context
from nclab.metrics.suites import few_shot
from nclab.run.build import built
from nclab.run.execute import check, train
from nclab.run.trained import load_trained
from nclab.training.passes import Pass

C, D = 4, 6


def clusters(n=200, spread=1.5, seed=0, classes=C):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (n,), generator=g)
    centres = torch.randn(classes, D, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return 2 * centres[y] + spread * torch.randn(n, D, generator=g, dtype=torch.float64) + 20, y


def by_loops(h, y, supports, queries):
    """Accuracy of every episode."""
    found = []
    for support, query in zip(supports, queries, strict=True):  # (ways, k), (ways, q)
        means = [h[own].numpy().mean(0) for own in support]
        right = 0
        for row in query.flatten().tolist():
            nearest = min(range(len(means)), key=lambda c: np.linalg.norm(h[row].numpy() - means[c]))
            right += int(y[support[nearest, 0]] == y[row])
        found.append(right / query.numel())
    return np.array(found)


@pytest.mark.fast
@pytest.mark.parametrize(("shots", "ways"), [(1, 4), (5, 4), (5, 3)])
def test_against_loops_over_the_same_episodes(shots, ways):
    h, y = clusters()
    drawn = list(episodes_of(y, shots, ways=ways, queries=15, episodes=40, seed=3))
    supports, queries = (torch.cat(part) for part in zip(*drawn, strict=True))
    assert supports.shape == (40, ways, shots)
    assert queries.shape == (40, ways, 15)
    each = by_loops(h, y, supports, queries)
    expected = each.mean(), each.std(ddof=1) / 40**0.5
    found = few_shot_accuracy(h, y, shots, ways=ways, queries=15, episodes=40, seed=3)
    assert found == pytest.approx(expected, rel=1e-12)
    assert 0.4 < found[0] < 0.98


@pytest.mark.fast
def test_an_episode_is_what_it_should_be():
    """Of one class a row, support and queries without a common sample, all classes and samples as likely."""
    _, y = clusters(120)
    drawn = list(episodes_of(y, 2, ways=3, queries=4, episodes=600, seed=0))
    supports, queries = (torch.cat(part) for part in zip(*drawn, strict=True))
    both = torch.cat([supports, queries], 2)  # (episodes, ways, 6)
    assert (y[both] == y[both[..., :1]]).all()
    assert (both.flatten(1).sort(1).values.diff(dim=1) > 0).all()
    assert (y[supports[..., 0]].sort(1).values.diff(dim=1) > 0).all()
    classes = y[supports[..., 0]].flatten().bincount(minlength=C).double()
    assert float(((classes - 450) ** 2 / 450).sum()) < 16.3  # the 0.999 quantile at 3 degrees of freedom
    own = both[(y[both[..., 0]] == 0)].flatten().bincount(minlength=120)[y == 0].double()
    assert float(((own - own.mean()) ** 2 / own.mean()).sum()) < 62  # at about 30 degrees
    again = list(episodes_of(y, 2, ways=3, queries=4, episodes=600, seed=0))
    assert all(torch.equal(a, b) for one, two in zip(drawn, again, strict=True) for a, b in zip(one, two, strict=True))


def test_collapsed_classes_are_all_found_and_noise_is_chance():
    h, y = clusters(spread=1e-3)
    assert few_shot_accuracy(h, y, 1) == (1, 0)
    assert half_probe_accuracy(h, y) == 1
    noise = torch.randn(400, D, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(400) % C
    accuracy, error = few_shot_accuracy(noise, labels, 1, episodes=300)
    assert abs(accuracy - 1 / C) < 5 * error
    assert 0.001 < error < 0.02


@pytest.mark.parametrize("k", [-100, 0, 100])
def test_neither_depends_on_scale(k):
    h, y = clusters()
    assert few_shot_accuracy(h * 2.0**k, y, 5, episodes=50) == few_shot_accuracy(h, y, 5, episodes=50)
    assert half_probe_accuracy(h * 2.0**k, y) == half_probe_accuracy(h, y)


def test_what_is_undefined_is_nan():
    h, y = clusters()
    broken = h.clone()
    broken[3, 1] = math.inf
    few = torch.arange(12) % C  # three samples a class
    for accuracy, error in (
        few_shot_accuracy(broken, y, 1),
        few_shot_accuracy(h[:12], few, 3),
        few_shot_accuracy(h, 0 * y, 1),
    ):
        assert math.isnan(accuracy)
        assert math.isnan(error)
    assert few_shot_accuracy(h[:12], few, 2)[0] > 0  # one query a class is left
    uneven = torch.tensor([0] * 3 + [1] * 60)  # the smallest class says how many
    assert math.isnan(few_shot_accuracy(h[:63], uneven, 3)[0])
    assert few_shot_accuracy(h[:63], uneven, 2, episodes=10)[0] > 0
    assert math.isnan(half_probe_accuracy(h, 0 * y))


@pytest.mark.fast
def test_the_linear_probe_of_halves_is_scikit_learn_s():
    """Of every class each other sample, in their order, is trained on."""
    h, y = clusters(150)
    fitted = np.zeros(150, dtype=bool)
    for c in range(C):
        fitted[np.flatnonzero(y.numpy() == c)[::2]] = True
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    model.fit(h[fitted].numpy(), y[fitted].numpy())
    assert half_probe_accuracy(h, y) == model.score(h[~fitted].numpy(), y[~fitted].numpy())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("dataset=digits",), "few_shot needs held-out classes: set dataset.source_classes or dataset.source_list"),
        (("dataset=digits", "dataset.source_classes=9"), "few_shot needs two held-out classes or more, got 1"),
    ],
)
def test_it_needs_held_out_classes(keys, message):
    with pytest.raises(ConfigError, match=message):
        check([composed(*keys, "metrics.suite=[few_shot]")])


def test_sums_of_two_processes_give_the_numbers_of_one(tiny):
    """Each sees every other batch of the samples outside."""
    config = tiny("dataset.source_classes=6")
    data = load_dataset(config.dataset, "data")
    model = built(config, data).model.eval()
    context = Context(model, model.probes("linear"), data.targets, outside=len(data.outside), held_out=data.held_out)
    with torch.no_grad():
        batches = list(Pass(model, data, data.outside, 30))
    suites = [METRICS["few_shot"].build() for _ in range(3)]
    for suite, own in zip(suites, (batches, batches[::2], batches[1::2]), strict=True):
        suite.start(context)
        for features, batch, out in own:
            suite.add_outside(features, batch, out)
    one, *two = suites
    both, expected = two[0].sums() + two[1].sums(), one.compute(one.sums())
    assert all(part.compute(both) == expected for part in two)
    assert len(expected) == 6


@pytest.mark.fast
def test_a_run_logs_what_its_features_are_worth_on_new_classes(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(few_shot, "MOST_ROWS", 90)
    monkeypatch.setattr(few_shot, "EPISODES", 50)
    keys = ("dataset.source_classes=6", "metrics.suite=[collapse,few_shot]", "epochs=2", "metrics.batch_size=64")
    folder = train(tiny(*keys))
    logged = {r[3]: r[4] for r in rows(folder) if r[0] == 2 and r[2] == "act3" and r[1] == "train"}
    model, data, _ = load_trained(folder)
    outside = data.outside
    chosen = chosen_rows(len(outside), 90)
    with torch.no_grad():
        h = model(data.inputs(outside.samples[chosen])).features["act3"].double()
    y = outside.targets[chosen]
    assert len(y.unique()) == 4
    for k in (1, 5):
        accuracy, error = few_shot_accuracy(h, y, k, episodes=50)
        assert logged[f"few_shot_accuracy_{k}"] == pytest.approx(accuracy, abs=2e-3)
        assert logged[f"few_shot_error_{k}"] == pytest.approx(error, abs=1e-3)
        assert 0.3 < accuracy < 1
    assert logged["target_linear_accuracy"] == pytest.approx(half_probe_accuracy(h, y), abs=2 / 45)
    assert logged["target_cdnv"] == pytest.approx(measure(h, y, 4)["cdnv"], rel=1e-5)
    assert logged["cdnv"] != logged["target_cdnv"]
    test = {r[3] for r in rows(folder) if r[1] == "test"}
    assert not [name for name in test if name.startswith(("few_shot", "target"))]
    again = tiny(*keys, root=tmp_path / "again")
    killed_after(1, again)
    assert_same_run(folder, train(again))
