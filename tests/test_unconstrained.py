"""dataset=free_features and model=unconstrained: features that are parameters below one or several weight matrices."""

import pytest
import torch
from conftest import composed
from run_folders import rows
from torch.func import functional_call, vmap
from torch.nn import functional

from nclab.data import DATASETS, load_dataset
from nclab.interfaces.shapes import ImageShape, IndexShape
from nclab.models import MODELS
from nclab.run.execute import train


def samples(**settings):
    return load_dataset(DATASETS["free_features"].settings(**settings), "data")


def model(rows=12, outputs=4, seed=0, **settings):
    torch.manual_seed(seed)
    entry = MODELS["unconstrained"]
    return entry.build(entry.settings(**settings), IndexShape(rows), outputs)


def test_balanced_classes_hold_as_many_rows_each():
    dataset = samples(classes=3, per_class=4)
    assert list(dataset.splits) == ["train"]
    assert dataset.train.samples.tolist() == list(range(12))
    assert dataset.train.targets.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.shape == IndexShape(12)
    assert dataset.targets.count == 3


def test_imbalance_falls_by_the_same_factor_from_class_to_class():
    counts = samples(classes=4, per_class=100, imbalance=1000 / 27).train.targets.bincount().tolist()
    assert counts == [100, 30, 9, 3]  # times 0.3; 2.7 rows are 3
    assert samples(classes=2, per_class=100, imbalance=100).train.targets.bincount().tolist() == [100, 1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes": 1}, r"dataset\.classes must be at least 2, got 1"),
        ({"per_class": 0}, r"dataset\.per_class must be at least 1, got 0"),
        ({"imbalance": 0.5}, r"dataset\.imbalance must be between 1 and dataset\.per_class \(5\), got 0\.5"),
        ({"imbalance": 6.0}, r"dataset\.imbalance must be between 1 and dataset\.per_class \(5\), got 6"),
        ({"train_size": 5}, r"dataset\.train_size means nothing .* dataset\.per_class; got 5"),
        ({"test_size": 5}, r"dataset\.test_size means nothing .* got 5"),
        ({"valid_size": 5}, r"dataset\.valid_size means nothing .* got 5"),
        ({"label_noise": 0.5}, r"dataset\.label_noise means nothing .* got 0\.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        samples(**{"per_class": 5, **settings})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("activation", "act"), [("relu", torch.relu), ("none", lambda x: x)])
@pytest.mark.parametrize("tau", [None, 5.0])
def test_forward_is_the_product_of_the_matrices(bias, activation, act, tau):
    net = model(dim=6, depth=3, activation=activation, tau=tau, bias=bias)
    x = torch.tensor([3, 0, 3])
    h = net.free[x]
    for layer in (net.fc1, net.fc2):
        assert layer.bias is None
        h = act(h @ layer.weight.T)
    if tau is not None:
        h = tau * h / h.norm(dim=1, keepdim=True)
    expected = h @ net.fc3.weight.T + (net.fc3.bias if bias else 0)
    out = net(x)
    torch.testing.assert_close(out.prediction, expected)
    torch.testing.assert_close(list(out.features.values())[-1], h)
    assert (net.fc3.bias is not None) == bias


def test_the_output_and_the_features_have_no_activation():
    net = model(dim=6, depth=2)
    out = net(torch.arange(12))
    assert (out.features["free"] < 0).any()
    assert (out.prediction < 0).any()
    torch.testing.assert_close(out.features["free"], net.free)


def test_one_matrix_reads_the_features_themselves():
    net = model(dim=6, depth=1)
    assert net.inputs() == {"fc1": "free"}
    assert [(p.layer, p.role) for p in net.probes("linear")] == [("free", "classifier_input"), ("fc1", "classifier")]
    net = model(dim=6, depth=1, tau=2.0)
    assert net.inputs() == {"fc1": "scaled"}
    assert [p.role for p in net.probes("linear")] == ["hidden", "classifier_input", "classifier"]


@pytest.mark.parametrize(
    ("settings", "kind", "layers"),
    [
        ({"depth": 3}, "activation", ["free", "act1", "act2", "fc3"]),
        ({"depth": 3}, "linear", ["free", "fc1", "fc2", "act2", "fc3"]),
        ({"depth": 3, "activation": "none"}, "activation", ["free", "fc1", "fc2", "fc3"]),
        ({"depth": 3, "activation": "none"}, "linear", ["free", "fc1", "fc2", "fc3"]),
        ({"depth": 2, "tau": 1.0}, "linear", ["free", "fc1", "scaled", "fc2"]),
        ({"depth": 2, "tau": 1.0}, "activation", ["free", "act1", "scaled", "fc2"]),
    ],
)
def test_every_layer_is_probed_once(settings, kind, layers):
    net = model(dim=6, **settings)
    probes = net.probes(kind)
    assert [p.layer for p in probes] == layers
    features = net(torch.arange(2)).features
    assert {p.feature for p in probes} - {"logits"} <= set(features)
    assert next(reversed(features)) == net.inputs()[net.classifier] in {p.feature for p in probes}
    assert [site for p in probes for site in p.stage or ()] == list(net.etf_roles())


def test_initial_scales():
    net = model(rows=3000, outputs=50, dim=40, depth=2, feature_std=0.5, weight_std=0.2)
    assert net.free.std().item() == pytest.approx(0.5, rel=0.02)
    assert net.fc1.weight.std().item() == pytest.approx(0.2, rel=0.06)
    assert net.fc2.weight.std().item() == pytest.approx(0.2, rel=0.06)
    assert (net.fc2.bias == 0).all()
    assert model(dim=400, depth=2).fc1.weight.std().item() == pytest.approx(1 / 20, rel=0.02)


def test_free_features_are_the_only_ones():
    net = model(dim=6, depth=2)
    assert net.free_features() == {"free"}
    assert dict(net.named_parameters()).keys() == {"free", "fc1.weight", "fc2.weight", "fc2.bias"}


def test_seeds_stack_under_vmap():
    nets = [model(dim=6, depth=2, tau=2.0, seed=seed) for seed in range(3)]
    x = torch.stack([torch.randperm(12) for _ in nets])
    stacks = {name: torch.stack([net.get_parameter(name) for net in nets]) for name, _ in nets[0].named_parameters()}
    found = vmap(lambda p, rows: functional_call(nets[0], p, (rows,)).prediction)(stacks, x)
    torch.testing.assert_close(found, torch.stack([net(own).prediction for net, own in zip(nets, x, strict=True)]))


def test_label_names_what_runs_differ_in():
    settings = MODELS["unconstrained"].settings
    assert settings(dim=64, depth=1).label == "ufm1x64"
    assert settings(dim=30, depth=4).label == "ufm4x30_relu"
    assert settings(dim=30, depth=4, activation="none", tau=5.0).label == "ufm4x30_none_tau5"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dim": 0}, r"model\.dim must be at least 1, got 0"),
        ({"depth": 0}, r"model\.depth must be at least 1, got 0"),
        ({"activation": "gelu"}, r"unknown model\.activation 'gelu'; did you mean relu\? valid: relu, none"),
        ({"tau": 0.0}, r"model\.tau must be above 0 and finite, or null; got 0"),
        ({"tau": float("inf")}, r"model\.tau must be above 0 and finite, or null; got inf"),
        ({"feature_std": 0.0}, r"model\.feature_std must be above 0 and finite; got 0"),
        ({"weight_std": -1.0}, r"model\.weight_std must be above 0 and finite, or null; got -1"),
    ],
)
def test_a_model_that_cannot_be_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        model(**settings)


def test_samples_must_be_row_numbers():
    entry = MODELS["unconstrained"]
    with pytest.raises(
        ValueError, match=r"model=unconstrained .* row numbers, such as dataset=free_features; .* images"
    ):
        entry.build(entry.settings(), ImageShape(1, 8, 8), 10)


def test_values_need_no_classes():
    net = model(rows=20, outputs=3, dim=5)
    assert net(torch.arange(20)).prediction.shape == (20, 3)
    assert functional.mse_loss(net(torch.arange(20)).prediction, torch.zeros(20, 3)).isfinite()


def test_a_run_measures_every_layer(tmp_path):
    given = ["dataset=free_features", "dataset.per_class=3", "model=unconstrained", "model.dim=12", "model.depth=2"]
    keys = [*given, "batch_size=null", "epochs=2", "metrics.probe=activation", "loss.l2=0.001",
            "optimizer.weight_decay=0", f"output_root={tmp_path}", "device=cpu"]  # fmt: skip
    folder = train(composed(*keys))
    assert "free_features-ufm2x12_relu-none-e2-s0" in folder.name
    found = {r[2]: r[4] for r in rows(folder) if r[:2] == (2, "train") and r[3] == "nc1"}
    assert found.keys() == {"free", "act1", "fc2"}
    assert all(value > 0 for value in found.values())
