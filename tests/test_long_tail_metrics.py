"""Suite long_tail: balanced accuracies, NC1 to NC3 under both weightings, alignment and minority collapse by class."""

import math

import numpy as np
import pytest
import torch
from run_folders import rows
from sklearn.metrics import balanced_accuracy_score

from nclab.data import load_dataset
from nclab.etf import simplex_etf
from nclab.metrics import geometry, measure
from nclab.metrics.long_tail import (
    balanced_accuracies,
    frequency_groups,
    largest_cosine,
    row_cosines,
    unbalanced_collapse,
    weighted_nc1,
)
from nclab.metrics.suite import METRICS, Context
from nclab.models.mlp import MLP
from nclab.run.execute import train
from nclab.run.trained import load_trained
from nclab.training.passes import Pass

COUNTS = [40, 25, 16, 10, 6, 4]


def features(scale=1.0, d=9):
    """Labels of a long tail, features about class means with a noise that grows towards the tail, and a weight."""
    g = torch.Generator().manual_seed(3)
    y = torch.arange(6).repeat_interleave(torch.tensor(COUNTS))
    means = torch.randn(6, d, generator=g, dtype=torch.float64) + 2
    noise = torch.randn(len(y), d, generator=g, dtype=torch.float64) * (1 + y[:, None])
    return y, scale * (means[y] + 0.1 * noise), torch.randn(6, d, generator=g, dtype=torch.float64)


def by_hand(y, h, w):
    """Explicit d x d matrices in float64, pseudo-inverses by numpy."""
    y, h, w = y.numpy(), h.numpy(), w.numpy()
    n, classes = np.bincount(y), len(w)
    p, mu = n / n.sum(), np.stack([h[y == c].mean(0) for c in range(classes)])
    within = np.stack([np.cov(h[y == c].T, bias=True) for c in range(classes)])  # (C, d, d)
    found = {}
    for name, weights in (("balanced", np.full(classes, 1 / classes)), ("unbalanced", p)):
        centred = mu - weights @ mu
        sigma_b = (weights[:, None, None] * centred[:, :, None] * centred[:, None, :]).sum(0)
        sigma_w = (weights[:, None, None] * within).sum(0)
        found[f"nc1_{name}"] = np.trace(sigma_w @ np.linalg.pinv(sigma_b, rcond=1e-12)) / classes
        norms = np.linalg.norm(centred, axis=1)
        cosines = (centred / norms[:, None]) @ (centred / norms[:, None]).T
        pairs = np.triu_indices(classes, 1)
        found[f"nc2_equinorm_{name}"] = norms.std() / norms.mean()
        found[f"nc2_equiangular_{name}"] = np.abs(cosines + 1 / (classes - 1))[pairs].mean()
        found[f"nc3_{name}"] = np.linalg.norm(w / np.linalg.norm(w) - centred / np.linalg.norm(centred))
    return found


@pytest.mark.parametrize("scale", [1.0, 2.0**-300, 2.0**300])
def test_collapse_under_both_weightings_against_explicit_matrices(scale):
    y, h, w = features()
    expected = by_hand(y, h, w)
    m = geometry(torch.stack([scale * h[y == c].mean(0) for c in range(6)]))
    z = m.scale * (scale * h - m.means[y]) @ m.basis  # (N, rank)
    spread = torch.stack([z[y == c].T @ z[y == c] for c in range(6)])  # (C, rank, rank)
    counts = torch.tensor(COUNTS, dtype=torch.float64)
    balanced, even = (spread / counts[:, None, None]).mean(0), torch.full((6,), 1 / 6, dtype=torch.float64)
    assert weighted_nc1(m, balanced, even) == pytest.approx(expected["nc1_balanced"], rel=1e-9)
    share = counts / counts.sum()
    assert weighted_nc1(m, spread.sum(0) / len(y), share) == pytest.approx(expected["nc1_unbalanced"], rel=1e-9)
    found = unbalanced_collapse(m, share, w)
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-9)
    assert len(found) == 3
    # With equal weights they are the columns of suite collapse.
    plain = measure(h, y, 6, w)
    same = unbalanced_collapse(m, even, w)
    assert same == pytest.approx({name: plain[name.removesuffix("_unbalanced")] for name in same}, rel=1e-9)
    assert abs(found["nc3_unbalanced"] - plain["nc3"]) > 0.01


def test_head_middle_and_tail_are_thirds_of_the_classes_by_their_train_samples():
    groups = {name: of.tolist() for name, of in frequency_groups(torch.tensor([3, 9, 9, 1, 5, 2, 2, 8, 7, 4])).items()}
    assert groups == {"head": [1, 2, 7], "middle": [8, 4, 9, 0], "tail": [5, 6, 3]}
    assert {name: of.tolist() for name, of in frequency_groups(torch.tensor([5, 5, 5])).items()} == {
        "head": [0], "middle": [1], "tail": [2],
    }  # fmt: skip
    two = frequency_groups(torch.tensor([1, 2]))
    assert [of.tolist() for of in two.values()] == [[1], [], [0]]


def test_balanced_accuracy_is_scikit_learns_and_nan_where_no_class_has_a_sample():
    g = torch.Generator().manual_seed(0)
    y, predicted = torch.randint(5, (200,), generator=g), torch.randint(6, (200,), generator=g)
    hits = torch.bincount(y[predicted == y], minlength=6).double()
    seen = torch.bincount(y, minlength=6).double()
    groups = frequency_groups(torch.tensor([60, 50, 40, 30, 20, 10]))
    found = balanced_accuracies(hits, seen, groups)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted), rel=1e-12)
    shares = (hits / seen).tolist()
    assert found["head_accuracy"] == pytest.approx(sum(shares[:2]) / 2, rel=1e-12)
    assert found["tail_accuracy"] == pytest.approx(shares[4], rel=1e-12)  # class 5 has no sample in this split
    assert math.isnan(found["class_accuracy_5"])
    assert found["class_accuracy_1"] == pytest.approx(shares[1], rel=1e-12)
    none = balanced_accuracies(hits * 0, seen * 0, groups)
    assert all(map(math.isnan, none.values()))


def test_cosines_of_rows_and_means():
    etf = simplex_etf(4, 6, generator=torch.Generator().manual_seed(0)).T  # (C, d)
    m = geometry(3 * etf + 5)
    assert row_cosines(m, 7 * etf + 1).tolist() == pytest.approx(
        [1.0] * 4, abs=1e-12
    )  # offsets and scales mean nothing
    assert row_cosines(m, -etf).tolist() == pytest.approx([-1.0] * 4, abs=1e-12)
    y, h, w = features()
    means = torch.stack([h[y == c].mean(0) for c in range(6)])
    a, b = (x.numpy() - x.numpy().mean(0) for x in (means, w))
    expected = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert row_cosines(geometry(means), w).tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert largest_cosine(etf[:3]) == pytest.approx(-1 / 3)
    assert largest_cosine(torch.tensor([[1.0, 0], [0, 2], [3, 3]])) == pytest.approx(0.5**0.5)
    assert math.isnan(largest_cosine(etf[:1]))
    assert math.isnan(largest_cosine(torch.tensor([[0.0, 0], [1, 0]])))
    assert all(map(math.isnan, row_cosines(geometry(torch.ones(3, 4)), torch.eye(3, 4)).tolist()))


TAIL = ("dataset.imbalance=20", "metrics.suite=[collapse,long_tail]", "metrics.headline=balanced_accuracy")


def test_in_a_run_they_are_those_of_the_trained_network(tiny):
    folder = train(tiny(*TAIL, "epochs=2", "dataset.train_size=null", "metrics.batch_size=37"))
    logged = {r[1:4]: r[4] for r in rows(folder) if r[0] == 2}
    model, data, _ = load_trained(folder)
    with torch.no_grad():
        for split in ("train", "test"):
            out = model(data.inputs(data.splits[split].samples))
            y, guess = data.splits[split].targets, out.prediction.argmax(1)
            expected = balanced_accuracy_score(y, guess)
            assert logged[split, "network", "balanced_accuracy"] == pytest.approx(expected, rel=1e-12)
            tail = np.mean([(guess[y == c] == c).double().mean() for c in (7, 8, 9)])
            assert logged[split, "network", "tail_accuracy"] == pytest.approx(tail, rel=1e-12)
        out = model(data.inputs(data.train.samples))
    feature = list(out.features)[-1]
    h, y, w = out.features[feature].double(), data.train.targets, model.get_submodule(model.classifier).weight
    hand = by_hand(y, h, w.detach().double())
    for name in ("nc1_balanced", "nc1_unbalanced", "nc2_equinorm_unbalanced", "nc3_unbalanced"):
        assert logged["train", feature, name] == pytest.approx(hand[name], rel=1e-4), name
    cosines = [logged["train", feature, f"row_cosine_{c}"] for c in range(10)]
    assert logged["train", feature, "row_cosine"] == pytest.approx(np.mean(cosines), rel=1e-9)
    unit = torch.nn.functional.normalize(w.detach().double()[7:], dim=1)
    assert logged["train", feature, "tail_row_cosine"] == pytest.approx(
        float((unit @ unit.T)[torch.triu_indices(3, 3, 1).unbind()].max()), rel=1e-6
    )
    assert not any(layer == feature and name.startswith("row_") for split, layer, name in logged if split == "test")


def test_values_are_refused_and_the_names_are_said():
    class Of:
        dim = 3

        def groups(self, targets):
            return None

    with pytest.raises(ValueError, match=r"metrics\.suite: long_tail needs classes"):
        METRICS["long_tail"].build().start(Context(None, [], Of()))


def test_a_row_that_no_class_mean_reads_is_no_number(tiny):
    """At initialisation of a network that gives one vector for all, every column about means is nan and none is 0."""
    data = load_dataset(tiny().dataset, "data")
    model = MLP(64, 10, 3, 16).eval()
    with torch.no_grad():
        model.fc2.weight.zero_()
    suite = METRICS["long_tail"].build()
    suite.start(Context(model, model.probes("linear"), data.targets, samples=len(data.train)))
    batches = list(Pass(model, data, data.train, 30))
    for n_pass in (1, 2):
        for batch in batches:
            suite.add(n_pass, *batch)
        if n_pass == 1:
            suite.next_pass(2, suite.sums())
    found = suite.compute(suite.sums())
    undefined = ("nc1_balanced", "nc1_unbalanced", "nc2_equinorm_unbalanced", "nc3_unbalanced", "row_cosine")
    assert all(math.isnan(found[f"act2/{name}"]) for name in undefined)
    assert found["balanced_accuracy"] == pytest.approx(0.1)
    assert suite.names("train") <= set(found)
