"""Penalties of their own: lambda_W of weights, lambda_H of free features, lambda_b of biases."""

import json

import pytest
import torch
from conftest import composed
from run_folders import rows

from nclab.config.schema import ConfigError
from nclab.models.unconstrained import Unconstrained, UnconstrainedSettings
from nclab.run.execute import check, train, train_seeds
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.training import seeds as training_seeds
from nclab.training.objective import LOSSES, add_penalty_gradient, penalised, penalty

NO_DECAY = "optimizer.weight_decay=0"
UFM = ("dataset=free_features", "dataset.classes=3", "dataset.per_class=4", "model=unconstrained", "model.dim=5",
       "batch_size=null", "precision=float64", "threads=1", "epochs=3", NO_DECAY)  # fmt: skip
THREE = ("loss.l2=0.1", "loss.l2_features=0.02", "loss.l2_biases=0.3")


def ufm(depth=2):
    torch.manual_seed(0)
    return Unconstrained(12, 3, UnconstrainedSettings(dim=5, depth=depth)).double()


def loss(**settings):
    return LOSSES["cross_entropy"].build(LOSSES["cross_entropy"].settings(**settings))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"l2": 0.1}, {"free": 0.1, "fc1.weight": 0.1, "fc2.weight": 0.1, "fc2.bias": 0.1}),
        (
            {"l2": 0.1, "l2_features": 0.02, "l2_biases": 0.3},
            {"free": 0.02, "fc1.weight": 0.1, "fc2.weight": 0.1, "fc2.bias": 0.3},
        ),
        ({"l2_features": 0.02}, {"free": 0.02}),
        ({"l2_biases": 0.3}, {"fc2.bias": 0.3}),
        ({"l2": 0.1, "l2_features": 0.0}, {"fc1.weight": 0.1, "fc2.weight": 0.1, "fc2.bias": 0.1}),
        (
            {"l2": 0.1, "l2_features": 0.02, "l2_skip": "biases"},
            {"free": 0.02, "fc1.weight": 0.1, "fc2.weight": 0.1},
        ),
        ({"l2_biases": 0.3, "l2_features": 0.02, "l2_skip": "head_bias"}, {"free": 0.02}),
    ],
)
def test_each_kind_of_parameter_has_its_lambda(settings, expected):
    assert loss(**settings).penalties(ufm()) == expected
    assert loss(**settings).penalises


def test_what_is_fixed_is_not_penalised():
    model = ufm()
    model.free.requires_grad_(False)
    assert "free" not in loss(l2=0.1, l2_features=0.02).penalties(model)


def test_the_penalty_and_its_gradient_are_those_of_autograd():
    model, chosen = ufm(), loss(l2=0.1, l2_features=0.02, l2_biases=0.3)
    torch.nn.init.normal_(model.fc2.bias)
    of_weights = model.fc1.weight.square().sum() + model.fc2.weight.square().sum()
    own = 0.05 * of_weights + 0.01 * model.free.square().sum() + 0.15 * model.fc2.bias.square().sum()
    parameters = list(model.parameters())
    expected = torch.autograd.grad(own, parameters)
    assert penalty(chosen, model) == pytest.approx(own.item(), rel=1e-14)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    add_penalty_gradient(penalised(chosen, model))
    for p, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-14, atol=0)


def test_a_run_minimises_all_three(tmp_path):
    """One step of plain gradient descent, by hand."""
    keys = (*UFM, *THREE, "optimizer.lr=0.5", "optimizer.momentum=0", "epochs=1", f"output_root={tmp_path}")
    folder = train(composed(*keys))
    torch.manual_seed(0)
    model = Unconstrained(12, 3, UnconstrainedSettings(dim=5, depth=1)).double()
    labels = torch.arange(3).repeat_interleave(4)
    data = torch.nn.functional.cross_entropy(model(torch.arange(12)).prediction, labels)
    squares = [0.1 * model.fc1.weight.square().sum(), 0.02 * model.free.square().sum()]
    (data + sum(squares) / 2 + 0.15 * model.fc1.bias.square().sum()).backward()
    for name, weight in checkpoint.load(folder)["model"].items():
        start = model.get_parameter(name)
        torch.testing.assert_close(weight, (start - 0.5 * start.grad).detach(), rtol=1e-13, atol=1e-15)
    logged = next(r[4] for r in rows(folder) if r[0] == 0 and r[3] == "l2_penalty")
    assert logged == pytest.approx(sum(squares).item() / 2, rel=1e-13)  # the bias begins at 0


def test_stacked_seeds_have_them_too(tmp_path, monkeypatch):
    monkeypatch.setattr(training_seeds, "LEAST_SEEDS_ON_CPU", 2)
    configs = [composed(*UFM, *THREE, f"output_root={tmp_path}/a").of_seed(seed) for seed in (0, 1)]
    assert list(train_seeds(configs).values()) == [None, None]
    assert '"seeds": 2' in (configs[1].folder / "events.jsonl").read_text()
    alone = train(composed(*UFM, *THREE, "seed=1", f"output_root={tmp_path}/b"))
    found, expected = (checkpoint.load(folder)["model"] for folder in (configs[1].folder, alone))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_names_of_before_are_kept():
    assert composed("loss.l2=0.1", NO_DECAY).identity()["loss"].keys() == {"name", "l2", "l2_skip"}
    named = {composed(*UFM, "loss.l2=0.1", *more).run_name for more in ((), THREE[1:2], THREE[2:], THREE[1:])}
    assert len(named) == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("loss.l2_features=-1",), "loss.l2_features must be at least 0"),
        (("loss.l2_features=nan",), "loss.l2_features must be at least 0"),
        (("loss.l2_biases=nan", "loss.l2=1"), "loss.l2_biases must be above 0"),
        (("loss.l2_biases=0", "loss.l2=1"), "loss.l2_biases must be above 0.*loss.l2_skip=biases leaves them alone"),
        (
            ("loss.l2_biases=0.1", "loss.l2_skip=biases", "loss.l2=1"),
            "loss.l2_skip=biases leaves all biases alone; leave out loss.l2_biases, got 0.1",
        ),
        (("loss.l2_skip=biases", "loss.l2_features=1"), "loss.l2_skip=biases needs loss.l2 above 0"),
        (("loss.l2_skip=head_bias", "loss.l2_features=1"), "loss.l2_skip=head_bias needs loss.l2 or loss.l2_biases"),
        (("loss.l2_features=0.1", "optimizer.weight_decay=0.2"), "both shrink the weights.*got loss.l2_features=0.1"),
        (("loss.l2_biases=0.1", "optimizer.weight_decay=0.2"), "both shrink the weights.*got loss.l2_biases=0.1"),
    ],
)
def test_wrong_values_are_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        composed(*UFM, *keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ("loss.l2_features=0.1",),
            "loss.l2_features needs a model with free features, such as unconstrained; this has none",
        ),
        (
            (*UFM, "loss.l2_biases=0.1", "model.bias=false"),
            "loss.l2_biases needs a model with biases; this has none",
        ),
    ],
)
def test_a_model_without_what_is_penalised_is_refused(keys, message):
    with pytest.raises(ConfigError, match=message):
        check([composed(NO_DECAY, *keys)])


@pytest.mark.parametrize("decay", [THREE, ("loss.l2=0.1",)])
def test_the_objective_is_loss_and_penalty_of_the_measured_network(tmp_path, decay):
    folder = train(composed(*UFM, *decay, "metrics.headline=train/objective", f"output_root={tmp_path}"))
    logged = {(r[0], r[3]): r[4] for r in rows(folder) if r[1:3] == ("train", "network")}
    for epoch in range(4):
        assert logged[epoch, "objective"] == logged[epoch, "loss"] + logged[epoch, "l2_penalty"]
    model, dataset, config = load_trained(folder)
    out = model(dataset.train.samples).prediction
    of = {"free": config.loss.l2_features, "fc1.bias": config.loss.l2_biases}
    own = sum(
        (config.loss.l2 if of.get(n) is None else of[n]) / 2 * p.square().sum() for n, p in model.named_parameters()
    )
    expected = torch.nn.functional.cross_entropy(out, dataset.train.targets) + own
    assert logged[3, "objective"] == pytest.approx(expected.item(), rel=1e-14)
    headline = json.loads((folder / "summary.json").read_text())["headline"]
    assert headline == {"split": "train", "metric": "objective", "value": logged[3, "objective"]}


def test_without_a_penalty_there_is_no_objective(tmp_path):
    keys = (*UFM[:-1], "optimizer.weight_decay=0.1")
    folder = train(composed(*keys, f"output_root={tmp_path}"))
    assert not {"objective", "l2_penalty"} & {r[3] for r in rows(folder)}
    with pytest.raises(ConfigError, match=r"unknown metrics.headline 'train/objective'.*valid: .*train/loss"):
        check([composed(*keys, "metrics.headline=train/objective")])


def test_a_run_that_was_killed_before_its_summary_has_its_objective_too(tmp_path):
    """The last checkpoint is written, and no epoch is left to train."""
    keys = (*UFM, *THREE, "metrics.headline=train/objective", f"output_root={tmp_path}")
    folder = train(composed(*keys))
    before = json.loads((folder / "summary.json").read_text())["headline"]
    for name in ("DONE", "summary.json"):
        (folder / name).unlink()
    train(composed(*keys))
    assert json.loads((folder / "summary.json").read_text())["headline"] == before
