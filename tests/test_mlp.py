"""The paper's MLP and the interface of every model."""

import pytest
import torch

from nclab.models import MODELS, layer_of
from nclab.models.mlp import MLP, MLPSettings


@pytest.mark.fast
def test_the_papers_network_has_its_parameters():
    model = MODELS["mlp"].build(MLPSettings(), (1, 28, 28), 10)
    assert [tuple(layer.weight.shape) for layer in model.etf_sites().values()] == [
        (400, 784),
        (400, 400),
        (400, 400),
        (400, 400),
        (10, 400),
    ]
    # 784*400 + 3*400*400 + 400*10 weights, 4*400 + 10 biases, 4*800 of batch norm
    assert sum(p.numel() for p in model.parameters()) == 802_410


@pytest.mark.fast
def test_features_run_from_input_to_the_classifiers_input():
    model = MLP(12, 3, depth=3, width=8).eval()
    x = torch.rand(5, 1, 3, 4)
    logits, features = model(x)
    assert list(features) == ["fc1", "act1", "fc2", "act2"]
    torch.testing.assert_close(features["fc1"], model.fc1(x.flatten(1)))
    torch.testing.assert_close(features["act1"], model.norm1(features["fc1"]).relu())
    torch.testing.assert_close(logits, model.fc3(features["act2"]))


@pytest.mark.parametrize("kind", ["linear", "activation"])
def test_probes_and_inputs_name_real_features(kind):
    model = MLP(12, 3, depth=4, width=8)
    _, features = model(torch.rand(5, 12))
    names = {**features, "logits": None, "input": None}
    sites = list(model.etf_sites())
    probes = model.probes(kind)
    assert [p.site for p in probes if p.site] == list(model.inputs()) == list(model.etf_roles()) == sites
    assert [p.stage for p in probes if p.stage is not None] == [(site,) for site in sites]
    assert all(f in names for f in (*(p.feature for p in probes), *model.inputs().values()))
    assert (probes[-1].feature, probes[-1].site, model.classifier) == ("logits", "fc4", "fc4")
    assert model.inputs()["fc4"] in [p.feature for p in probes]
    stem = {"linear": "fc", "activation": "act"}[kind]
    assert [layer_of(probes, site) for site in sites] == [*(f"{stem}{i}" for i in (1, 2, 3)), "fc4"]


def test_norm_none_and_other_activations():
    model = MLP(12, 3, depth=3, width=8, norm="none", activation="tanh")
    x = torch.rand(5, 12)
    _, features = model(x)
    torch.testing.assert_close(features["act1"], model.fc1(x).tanh())
    assert sum(p.numel() for p in model.parameters()) == 12 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 1}, "model.depth must be at least 2, got 1"),
        ({"width": 0}, "model.width must be at least 1, got 0"),
        ({"norm": "layer"}, "unknown model.norm 'layer'; valid: batch, none"),
        ({"activation": "swish"}, "unknown model.activation 'swish'; valid: relu"),
    ],
)
def test_impossible_networks_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        MLP(**{"d_in": 12, "num_classes": 3, "depth": 3, "width": 8, **change})
