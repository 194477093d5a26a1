"""How a hidden layer carries the class means of its input, and the classifier's own geometry, by the definitions."""

import math

import numpy as np
import pytest
import torch
from run_folders import rows
from torch import nn

from nclab.etf import simplex_etf
from nclab.etf.layer import fix
from nclab.etf.recipe import Recipe
from nclab.metrics import dnc3_gram, geometry, image_of_means, measure, measure_model
from nclab.run.execute import train
from nclab.run.trained import load_trained

C = 5


def means_of(d=12, seed=0):
    return torch.randn(C, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(means, weight):
    """|| K/|K| - L/|L| ||_F with K = M M^T at the input and L = (W M)(W M)^T."""
    m = means.numpy() - means.numpy().mean(0)
    image = m @ weight.double().numpy().T
    k, l = m @ m.T, image @ image.T  # noqa: E741
    return np.linalg.norm(k / np.linalg.norm(k) - l / np.linalg.norm(l))


@pytest.mark.fast
def test_dnc3_gram_by_hand():
    torch.manual_seed(0)
    layer, means = nn.Linear(12, 7), means_of()
    m = geometry(means)
    assert dnc3_gram(m, image_of_means(m, layer)) == pytest.approx(by_hand(means, layer.weight.detach()), rel=1e-5)


def test_a_multiple_of_an_isometry_keeps_the_gram_matrix():
    layer, m = nn.Linear(12, 12, bias=False), geometry(means_of())
    nn.init.orthogonal_(layer.weight, gain=3)
    assert dnc3_gram(m, image_of_means(m, layer)) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        layer.weight[:, 0] *= 5
    assert dnc3_gram(m, image_of_means(m, layer)) > 0.01


@pytest.mark.parametrize(("of_means", "of_weight"), [(-84, 0), (70, 0), (0, -84), (0, 70), (-84, 70), (70, 30)])
def test_dnc3_gram_at_any_scale(of_means, of_weight):
    torch.manual_seed(0)
    layer, means = nn.Linear(12, 7), means_of()
    m = geometry(means)
    expected = dnc3_gram(m, image_of_means(m, layer))
    with torch.no_grad():
        layer.weight *= 2.0**of_weight
    m = geometry(means * 2.0**of_means)
    assert dnc3_gram(m, image_of_means(m, layer)) == expected > 0


def test_dnc3_gram_of_coincident_means_or_a_layer_of_zeros_is_undefined():
    layer = nn.Linear(12, 7)
    one = geometry(torch.ones(C, 12, dtype=torch.float64))
    assert math.isnan(dnc3_gram(one, image_of_means(one, layer)))
    nn.init.zeros_(layer.weight)
    m = geometry(means_of())
    assert math.isnan(dnc3_gram(m, image_of_means(m, layer)))


def test_an_implicit_frame_carries_means_as_its_matrix_does():
    m, recipe = geometry(means_of(16)), Recipe(frame="hadamard", seed=0)
    layers = [fix(nn.Linear(16, 16), recipe, dense) for dense in (True, False)]
    assert [len(list(layer.children())) for layer in layers] == [0, 1]  # a matrix, and the factors of one
    for layer in layers:
        value = dnc3_gram(m, image_of_means(m, layer))
        assert value == pytest.approx(by_hand(means_of(16), layers[0].weight), rel=1e-5)


def test_rows_of_a_simplex_etf_are_equinorm_and_equiangular():
    w = simplex_etf(C, 12, "random", torch.Generator().manual_seed(0)).T
    h, y = means_of(12).repeat(2, 1), torch.arange(C).repeat(2)
    found = measure(h, y, C, w.double())
    assert found["nc2_weight_equinorm"] == pytest.approx(0, abs=1e-12)
    assert found["nc2_weight_equiangular"] == pytest.approx(0, abs=1e-12)
    w[0] *= 2
    found = measure(h, y, C, w.double())
    assert found["nc2_weight_equinorm"] == pytest.approx(0.4 / 1.2)  # norms 2, 1, 1, 1, 1
    assert found["nc2_weight_equiangular"] == pytest.approx(0, abs=1e-12)
    w[0] = 0
    assert math.isnan(measure(h, y, C, w.double())["nc2_weight_equiangular"])


def test_the_bias_that_undoes_the_global_mean():
    h, y = (means_of(12) + 3).repeat(2, 1), torch.arange(C).repeat(2)
    w = means_of(12, seed=1)
    bias = -w @ h[:C].mean(0)
    assert measure(h, y, C, w, bias)["classifier_bias_collapse"] == pytest.approx(0, abs=1e-12)
    assert measure(h, y, C, w, bias + 2)["classifier_bias_collapse"] == pytest.approx(2 * C**0.5)
    assert "classifier_bias_collapse" not in measure(h, y, C, w)  # no bias is known


def test_measure_model_takes_the_bias_of_the_head():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, C))
    h, y = means_of(12).repeat(2, 1).float(), torch.arange(C).repeat(2)
    found = measure_model(model, [(h, y)], ["0", "2"], C)
    mu = model[1](model[0](h))[:C].mean(0)
    expected = (model[2].weight @ mu + model[2].bias).norm().item()
    assert found["2"]["classifier_bias_collapse"] == pytest.approx(expected, rel=1e-5)
    assert "classifier_bias_collapse" not in found["0"]
    model[2].bias = None
    expected = (model[2].weight @ mu).norm().item()
    assert measure_model(model, [(h, y)], ["2"], C)["2"]["classifier_bias_collapse"] == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.fast
@pytest.mark.parametrize("policy", [(), ("etf=last_k", "etf.k=2"), ("etf=last_k", "etf.k=2", "etf.bias=false")])
def test_a_run_logs_them(tiny, policy):
    """Recomputed from the saved network; also of a hidden layer that is fixed."""
    folder = train(tiny("epochs=2", *policy))
    logged = {r[2:4]: r[4] for r in rows(folder) if r[:2] == (2, "train")}
    assert {layer for layer, metric in logged if metric == "dnc3_gram"} == {"fc1", "fc2", "fc3"}
    model, data, _ = load_trained(folder)
    x, y = data.inputs(data.train.samples), data.train.targets
    with torch.no_grad():
        features = model(x).features
        for layer, feature in {"fc1": x.flatten(1), "fc2": features["act1"], "fc3": features["act2"]}.items():
            means = torch.stack([feature[y == c].double().mean(0) for c in range(10)])
            expected = by_hand(means, model.get_submodule(layer).weight)
            assert logged[layer, "dnc3_gram"] == pytest.approx(expected, rel=1e-4), layer
        mu = torch.stack([features["act3"][y == c].double().mean(0) for c in range(10)]).mean(0)
        bias = 0 if model.fc4.bias is None else model.fc4.bias.double()
        expected = (model.fc4.weight.double() @ mu + bias).norm().item()
    assert logged["act3", "classifier_bias_collapse"] == pytest.approx(expected, rel=1e-5)
    assert {"nc2_weight_equinorm", "nc2_weight_equiangular"} <= {metric for layer, metric in logged if layer == "act3"}
