"""etf=nearest: weights after several steps against a slow loop in float64, and runs: logged, resumed, refused."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import composed
from run_folders import assert_same_run, events, rows
from test_nearest_head import through_the_solve
from torch.nn import functional

from nclab.bench.by_hand import feed, learner
from nclab.config.schema import ConfigError
from nclab.data import Dataset, load_dataset
from nclab.etf import NearestETFHead
from nclab.etf.policies.nearest import Nearest, NearestSettings
from nclab.etf.policy import ETFPolicy, PolicySettings
from nclab.interfaces.batch import Batch, Output
from nclab.metrics import measure
from nclab.models.mlp import MLP
from nclab.run.execute import train, train_seeds
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.system.signals import Stopped, StopSignals
from nclab.training.fit import Diverged
from nclab.training.memory import activation_bytes
from nclab.training.objective import CROSS_ENTROPY
from nclab.training.seeds import least_to_pay
from nclab.training.step import train_epoch

KEYS = ("etf=nearest", "model.width=24", "batch_size=48")
LR, MOMENTUM, DELTA = 0.05, 0.9, 0.01


def network():
    """64 -> 16 -> 16 -> 10 without batch norm, in float64."""
    torch.manual_seed(0)
    return MLP(64, 10, 3, 16, norm="none").double()


def digits(size=130) -> Dataset:
    return load_dataset(composed(f"dataset.train_size={size}", "dataset.test_size=50").dataset, ".")


def features(parameters, x):
    w1, b1, w2, b2 = parameters
    return functional.relu(functional.linear(functional.relu(functional.linear(x, w1, b1)), w2, b2))


def by_hand(parameters, frame, batches, gradient):
    """SGD on cross entropy with the head of arXiv 2411.01248, class by class; the head's W by scipy or, where the
    gradient flows through it, by a solve whose every iteration is in the graph."""
    parameters = [p.detach().clone().requires_grad_() for p in parameters]
    momenta = [torch.zeros_like(p) for p in parameters]
    means, counts = torch.zeros(10, 16, dtype=torch.float64), [0] * 10
    for x, y in batches:
        h = features(parameters, x)
        rows_of = []
        for c in range(10):
            if (y == c).any():
                alpha = max(2 / (counts[c] + 2), 1e-4)
                rows_of.append((1 - alpha) * means[c] + alpha * h[y == c].mean(0))
                counts[c] += 1
            else:
                rows_of.append(means[c])
        now = torch.stack(rows_of)
        means = now.detach()
        centring = np.eye(10) - 1 / 10
        hat = (means - means.mean(0)).T.numpy()
        frame_now, _ = scipy.linalg.polar(2 / 3 * hat / np.linalg.norm(hat) @ centring + DELTA * frame)
        weight = torch.tensor(np.sqrt(10 / 9) * centring @ frame_now.T)
        bias = -weight @ means.mean(0)
        if gradient:
            w, b = through_the_solve(now, torch.tensor(frame), DELTA)  # for its graph; scipy's numbers are exact
            weight, bias = weight + (w - w.detach()), bias + (b - b.detach())
        frame = frame_now
        loss = functional.cross_entropy(h @ weight.T + bias, y)
        for i, g in enumerate(torch.autograd.grad(loss, parameters)):
            momenta[i] = MOMENTUM * momenta[i] + g
            parameters[i] = (parameters[i] - LR * momenta[i]).detach().requires_grad_()
    return parameters, weight.detach(), bias.detach()


def trained(gradient, epochs=2):
    """Model after epochs of our step, the frame it began with, and the batches it saw."""
    data, model = digits(), network()
    policy = Nearest(NearestSettings(delta=DELTA, gradient=gradient))
    start = [p.detach().clone() for p in list(model.parameters())[:4]]
    policy.setup(model, 0)
    frame = model.fc3.frame.numpy().copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    batches = []

    def run(x):
        batches.append(x.double().flatten(1))
        return Output(*model(x.double()))

    one = learner(model, optimizer, CROSS_ENTROPY, run, policy)
    labels = []
    before_loss = policy.before_loss

    def noted(model, batch, out, total):
        labels.append(batch.targets)
        return before_loss(model, batch, out, total)

    policy.before_loss = noted
    fed = feed(data, 40)
    for _ in range(epochs):
        train_epoch(one, fed)
    return model, start, frame, list(zip(batches, labels, strict=True))


@pytest.mark.parametrize("gradient", [True, False])
def test_weights_are_those_of_a_slow_loop(gradient):
    model, start, frame, batches = trained(gradient)
    assert len(batches) == 8  # three of 40 and one of 10, which lacks classes
    assert min(len(y.unique()) for _, y in batches) < 10
    parameters, weight, bias = by_hand(start, frame, batches, gradient)
    for came, expected in zip(model.parameters(), parameters, strict=True):
        torch.testing.assert_close(came.detach(), expected.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(model.fc3.weight, weight, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(model.fc3.bias, bias, rtol=1e-7, atol=1e-7)


def test_the_gradient_through_the_head_changes_the_training():
    first, second = (trained(gradient, epochs=1)[0].fc1.weight for gradient in (True, False))
    assert float((first - second).detach().norm()) > 1e-3


def test_a_policy_without_the_hook_leaves_the_output_alone():
    policy, out = ETFPolicy(PolicySettings()), Output(torch.zeros(1, 2), {})
    assert policy.before_loss(None, None, out) is out
    assert policy.stackable
    assert not Nearest(NearestSettings()).stackable


def test_a_run_collapses_onto_its_head(tiny):
    folder = train(tiny(*KEYS, "epochs=8"))
    found = {(r[2], r[3]): r[4] for r in rows(folder) if r[0] == 8 and r[1] == "train"}
    assert found["network", "accuracy"] > 0.9
    assert found["act3", "nc2_weight_gram"] < 1e-6
    assert found["act3", "nc2_weight_equinorm"] < 1e-6
    start = {(r[2], r[3]): r[4] for r in rows(folder) if r[0] == 0 and r[1] == "train"}
    assert found["act3", "nc3"] < 0.5 * start["act3", "nc3"]

    model, dataset, _ = load_trained(folder)
    head = model.fc4
    assert isinstance(head, NearestETFHead)
    assert list(head.parameters()) == []
    with torch.no_grad():
        out = Output(*model(dataset.inputs(dataset.train.samples)))
    h = out.features["act3"]
    torch.testing.assert_close(out.prediction, h @ head.weight.T + head.bias)
    values = measure(h, dataset.train.targets, 10, head.weight, head.bias)
    assert values["nc3"] == pytest.approx(found["act3", "nc3"], rel=1e-4)

    learnable = sum(p.numel() for p in model.parameters())
    assert found["network", "learnable_parameters"] == learnable
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["parameters_total"] - learnable == 24 * 10 + 10
    stored = 4 * (3 * 24 * 10 + 10) + 8 * 10  # weight, means, frame, bias; counts
    assert summary["memory"]["weights_fixed_bytes"] == stored
    (switch,) = events(folder, "switch")
    assert {key: switch[key] for key in ("epoch", "site", "kind", "frame", "scale", "parameters_freed")} == {
        "epoch": 0,
        "site": "fc4",
        "kind": "etf",
        "frame": "nearest",
        "scale": 1.0,
        "parameters_freed": 250,
    }
    assert events(folder, "start")[0]["fixed"] == "fixed layers: fc4 (nearest ETF)"


@pytest.mark.parametrize(
    "more", [(), ("etf.gradient=false", "etf.bias=false", "precision=bf16", "dataset.augment=crop_flip")]
)
def test_a_signal_between_two_batches_resumes_to_the_same_bits(tiny, tmp_path, monkeypatch, more):
    keys = (*KEYS, *more, "epochs=3", "checkpoint_seconds=1000", "metrics.every=0")
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    config, looks = tiny(*keys, root=tmp_path / "stopped"), []

    def check(signals):
        looks.append(signals)
        if len(looks) == 8:  # of 5 an epoch
            raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(StopSignals, "check", check)
        with pytest.raises(Stopped):
            train(config)
    assert checkpoint.load(config.folder)["progress"]["part"]["batches"] == 2
    assert_same_run(whole, train(config))


def test_seeds_train_in_turns(tiny, tmp_path):
    config = tiny(*KEYS, "epochs=2")
    folders = train_seeds([config.of_seed(seed) for seed in range(4)])
    alone = train(tiny(*KEYS, "epochs=2", "seed=3", root=tmp_path / "alone"))
    (same,) = [folder for folder in folders if folder.name == alone.name]
    assert_same_run(same, alone)


def test_bf16_keeps_the_head_in_float32(tiny):
    folder = train(tiny(*KEYS, "precision=bf16"))
    state = checkpoint.load(folder)["model"]
    assert {state[f"fc4.{name}"].dtype for name in ("bias", "means", "frame")} == {torch.float32}
    found = {r[3]: r[4] for r in rows(folder) if r[0] == 6 and r[1:3] == ("train", "network")}
    assert found["accuracy"] > 0.8


def test_the_count_of_memory_leaves_the_head_alone():
    model = MLP(64, 10, 3, 16)
    policy = Nearest(NearestSettings())
    policy.setup(model, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = Batch(torch.randn(40, 64), torch.arange(40) % 10, torch.arange(40), 40)
    run_of = lambda m: lambda x: Output(*m(x))  # noqa: E731
    through = activation_bytes(model, run_of, CROSS_ENTROPY, batch, policy)
    assert through > activation_bytes(model, run_of, CROSS_ENTROPY, batch)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_training_that_diverges_ends_in_one_line(tiny):
    with pytest.raises(Diverged, match="training diverged in epoch 1"):
        train(tiny(*KEYS, "optimizer.lr=1e30", "model.norm=none"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("etf=nearest", "model.width=9"), r"etf=nearest does not fit layer 'fc4' \(9 -> 10\): the head's 10 vectors"),
        (("etf=nearest", "etf.delta=0"), "etf.delta must be above 0 and finite, got 0"),
        (("etf=nearest", "etf.delta=nan"), "etf.delta must be above 0 and finite, got nan"),
        (("etf=nearest", "model=linear"), "etf=nearest leaves this model nothing to learn"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, keys, message):
    more = () if "model=linear" in keys else ("model.depth=4",)
    with pytest.raises(ConfigError, match=message):
        train(composed("dataset.train_size=200", f"output_root={tmp_path}", *more, *keys))
    assert not list(tmp_path.iterdir())


def test_targets_that_are_values_are_refused(own_registries, tmp_path, monkeypatch):
    from nclab.config.schema import load_named

    monkeypatch.syspath_prepend(str(Path(__file__).parent / "extensions"))
    load_named(["regression"])
    keys = ("plugins=[regression]", "dataset=waves", "loss=mse", "metrics.suite=[r2]", "metrics.headline=r2")
    with pytest.raises(ConfigError, match="etf=nearest follows class means: expected a dataset of classes, got datas"):
        train(composed(*keys, "etf=nearest", f"output_root={tmp_path}"))


def test_it_is_never_stacked():
    class Fake:
        learner = learner(MLP(4, 2, 2, 4), torch.optim.SGD([torch.zeros(1)], lr=0.1), policy=Nearest(NearestSettings()))
        feed = feed(digits(), 10)

    assert least_to_pay(Fake) == float("inf")
