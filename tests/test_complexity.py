"""Geometric complexity against finite differences, torch.func and closed forms; geometric collapse; suites."""

import math
from itertools import combinations

import pytest
import torch
from conftest import composed
from run_folders import rows
from torch import nn
from torch.func import jacrev, vmap

from nclab.config.checks import ConfigError
from nclab.data import load_dataset
from nclab.metrics import (
    geometric_collapse,
    geometric_complexity,
    geometric_complexity_estimate,
    geometry,
    sample_complexity,
)
from nclab.metrics.rows import chosen_rows
from nclab.metrics.suites import complexity
from nclab.run.build import built
from nclab.run.execute import check, train
from nclab.run.trained import load_trained
from nclab.training.evaluate import evaluate

N, IN, D = 7, 5, 4


def network(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(IN, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, D), nn.Tanh()).to(dtype)


def points(n=N, dtype=torch.float64):
    return torch.randn(n, IN, generator=torch.Generator().manual_seed(1), dtype=dtype)


def by_finite_differences(function, x, step=1e-5):
    """(N,): |df/dx|_F^2 of each sample alone, central differences."""
    found = []
    for row in x:
        columns = []
        for i in range(len(row)):
            shift = torch.zeros_like(row)
            shift[i] = step
            ahead, behind = function((row + shift)[None]), function((row - shift)[None])
            columns.append((ahead - behind)[0] / (2 * step))
        found.append(torch.stack(columns).square().sum())
    return torch.stack(found).detach()


@pytest.mark.fast
def test_against_finite_differences_and_torch_func():
    model, x = network().eval(), points()
    model[1].running_mean.uniform_(-1, 1)
    model[1].running_var.uniform_(0.5, 2)
    found = sample_complexity(model, x)
    assert found.shape == (N,)
    assert torch.allclose(found, by_finite_differences(model, x), rtol=1e-7)
    jacobian = vmap(jacrev(lambda row: model(row[None])[0]))(x)  # (N, D, IN)
    assert torch.allclose(found, jacobian.square().sum((1, 2)).detach(), rtol=1e-12)
    assert geometric_complexity(model, x) == pytest.approx(float(found.mean()), rel=1e-15)


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_a_linear_model_it_is_the_square_of_the_weight(dtype):
    layer = nn.Linear(IN, D).to(dtype)
    assert geometric_complexity(layer, points(dtype=dtype)) == pytest.approx(
        float(layer.weight.detach().double().square().sum()), rel=1e-6
    )


def test_it_does_not_touch_the_model_nor_the_inputs():
    model, x = network().eval(), points()
    for call in (geometric_complexity, geometric_complexity_estimate):
        with torch.no_grad():  # as in an evaluation
            call(model, x)
    assert not x.requires_grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.fast
def test_hutchinson_lies_within_its_standard_error():
    """Of 60 seeds about two thirds lie within one standard error, and their mean is the exact one."""
    model, x = network().eval(), points()
    exact = geometric_complexity(model, x)
    found = [geometric_complexity_estimate(model, x, directions=40, seed=seed) for seed in range(60)]
    distances = torch.tensor([(estimate - exact) / error for estimate, error in found])
    assert all(error > 0 for _, error in found)
    assert 0.5 < float((distances.abs() < 1).double().mean()) < 0.85
    assert float(distances.abs().max()) < 4
    mean = sum(estimate for estimate, _ in found) / 60
    assert mean == pytest.approx(exact, abs=3 * found[0][1] / 60**0.5)


def test_hutchinson_by_hand():
    """d |v^T J|^2 with the same directions, of the whole Jacobian."""
    model, x = network().eval(), points()
    jacobian = vmap(jacrev(lambda row: model(row[None])[0]))(x).detach()
    generator, drawn = torch.Generator().manual_seed(5), []
    for _ in range(3):
        v = torch.randn(N, D, generator=generator, dtype=torch.float64)
        v = v / v.norm(dim=1, keepdim=True)
        drawn.append(D * torch.einsum("nd,ndi->ni", v, jacobian).square().sum(1))
    drawn = torch.stack(drawn)  # (3, N)
    expected = float(drawn.mean()), float((drawn.var(0).sum() / 3).sqrt() / N)
    assert geometric_complexity_estimate(model, x, directions=3, seed=5) == pytest.approx(expected, rel=1e-12)
    isometry = nn.Linear(IN, IN, bias=False).double()
    nn.init.orthogonal_(isometry.weight)  # every direction is as good: no error
    assert geometric_complexity_estimate(isometry, x, directions=2) == pytest.approx((IN, 0), abs=1e-12)


@pytest.mark.fast
@pytest.mark.parametrize("k", [-84, 0, 70])
def test_geometric_collapse_by_loops(k):
    """It has no scale: features times f have complexities times f^2."""
    means = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gc = torch.tensor([1.0, 2.0, 0.5, 4.0], dtype=torch.float64)
    expected = [
        float((gc[i] + gc[j]) / (2 * (means[i] - means[j]).square().sum())) for i, j in combinations(range(4), 2)
    ]
    found = geometric_collapse(gc * 4.0**k, geometry(means * 2.0**k))
    assert found == pytest.approx(sum(expected) / 6, rel=1e-12)


def test_geometric_collapse_of_what_is_absent_or_undefined():
    means = geometry(torch.eye(3, dtype=torch.float64))
    assert geometric_collapse(torch.tensor([1.0, 3.0, math.nan]), means) == pytest.approx(1)  # the one pair there is
    assert math.isnan(geometric_collapse(torch.tensor([1.0, math.nan, math.nan]), means))
    assert math.isnan(geometric_collapse(torch.ones(3), geometry(torch.ones(3, 2))))
    twins = torch.tensor([[1.0, 0], [1, 0], [0, 1]], dtype=torch.float64)
    assert math.isnan(geometric_collapse(torch.ones(3), geometry(twins)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: sample_complexity(nn.Flatten(0), x), r"function must give \(7, d\) of 7 samples, got \(35,\)"),
        (lambda x: sample_complexity(nn.ReLU(), x.long()), "inputs must be float32 or float64, got torch.int64"),
        (lambda x: sample_complexity(nn.ReLU(), x[:0]), "inputs must hold a sample at least, got none"),
        (lambda x: sample_complexity(torch.ones_like, x), "the features do not depend on the inputs"),
        (lambda x: geometric_complexity_estimate(nn.ReLU(), x, 1), "directions must be at least 2, got 1"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(points())


@pytest.mark.fast
@pytest.mark.parametrize("kept", [90, 1000])
def test_a_run_logs_what_its_network_has(tiny, monkeypatch, kept):
    """Batch norm in evaluation mode; of at most `kept` samples of the train split, in pieces."""
    monkeypatch.setattr(complexity, "MOST_ROWS", kept)
    folder = train(tiny("metrics.suite=[collapse,complexity,complexity_estimate]", "epochs=2", "metrics.batch_size=64"))
    logged = {(r[1], r[3]): r[4] for r in rows(folder) if r[0] == 2 and r[2] == "act3"}
    model, data, _ = load_trained(folder)
    y, x = data.train.targets, data.inputs(data.train.samples)
    chosen = chosen_rows(len(y), kept)
    embed = lambda x: model(x).features["act3"]  # noqa: E731
    exact = torch.cat([vmap(jacrev(lambda row: embed(row[None])[0]))(part) for part in x[chosen].split(30)]).detach()
    gc = exact.flatten(1).double().square().sum(1)
    assert logged["train", "geometric_complexity"] == pytest.approx(float(gc.mean()), rel=1e-5)
    error = float(gc.std() / len(gc) ** 0.5)
    assert logged["train", "geometric_complexity_error"] == pytest.approx(error, rel=1e-5)
    means = torch.stack([embed(x)[y == c].mean(0) for c in range(10)]).detach().double()
    of_class = [gc[y[chosen] == c].mean() for c in range(10)]
    pairs = [
        float((of_class[i] + of_class[j]) / (2 * (means[i] - means[j]).square().sum()))
        for i, j in combinations(range(10), 2)
    ]
    assert logged["train", "geometric_collapse"] == pytest.approx(sum(pairs) / 45, rel=1e-4)
    estimate, error = (logged["train", f"geometric_complexity_estimate{end}"] for end in ("", "_error"))
    assert 0 < abs(estimate - float(gc.mean())) < 4 * error < float(gc.mean())
    assert logged["train", "geometric_collapse_estimate"] == pytest.approx(sum(pairs) / 45, rel=0.3)
    assert not [key for key in logged if key[0] == "test" and "geometric" in key[1]]


def test_it_measures_a_model_under_training_as_in_evaluation(tiny):
    """It leaves the mode of the model, and a run has the weights that it has without."""
    with_it, without = (
        train(tiny(f"metrics.suite=[{suites}]", "epochs=2")) for suites in ("collapse,complexity", "collapse")
    )
    one, two = (load_trained(folder)[0].state_dict() for folder in (with_it, without))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("suite", ["complexity", "complexity_estimate"])
@pytest.mark.parametrize("keys", [("dataset=phrases", "model=tf"), ("dataset=free_features", "model=unconstrained")])
def test_samples_without_a_derivative_are_refused(suite, keys):
    message = f"metrics.suite: {suite} needs inputs with a derivative, images or arrays; this dataset holds numbers of"
    with pytest.raises(ConfigError, match=message):
        check([composed(*keys, f"metrics.suite=[{suite}]")])


def test_values_are_refused():
    with pytest.raises(ConfigError, match="complexity needs classes, and this dataset's targets are values"):
        check([composed("dataset=diabetes", "loss=mse", "metrics.suite=[complexity]", "model.norm=none")])


def test_a_stop_does_not_wait_for_all_samples(tiny, monkeypatch):
    monkeypatch.setattr(complexity, "PIECE", 20)
    taken = []

    class Asked(Exception):
        pass

    def asked():
        if len(taken) == 2:
            raise Asked

    def counted(*given, take=sample_complexity):
        taken.append(1)
        return take(*given)

    monkeypatch.setattr(complexity, "sample_complexity", counted)
    config = tiny("metrics.suite=[complexity]")
    dataset = load_dataset(config.dataset, "data")
    model = built(config, dataset).model.train()
    with pytest.raises(Asked):
        evaluate(model, dataset, config.metrics, check=asked)
    assert len(taken) == 2
    assert model.training
