"""Losses and the explicit penalty: against autograd, against torch's own optimizers, alone, in batches and in a run."""

import json

import pytest
import torch
from conftest import composed
from omegaconf import OmegaConf
from run_folders import FROZEN, Killed, assert_same_run, events, rows
from torch.nn import functional

from nclab.bench.by_hand import feed, learner
from nclab.config.schema import ConfigError, typed
from nclab.config.stored import stored_config
from nclab.data import load_dataset
from nclab.interfaces.batch import Batch, Output
from nclab.models.mlp import MLP
from nclab.papers.depth.parts.rn import ResNet
from nclab.run.execute import train, train_seeds
from nclab.runfolder import checkpoint
from nclab.training import seeds as training_seeds
from nclab.training.fit import Fit
from nclab.training.objective import CROSS_ENTROPY, LOSSES, add_penalty_gradient, penalised, penalty
from nclab.training.step import train_epoch

LOGITS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NO_DECAY = "optimizer.weight_decay=0"
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


def given(logits=LOGITS, labels=LABELS, rows=slice(None)) -> tuple[Output, Batch]:
    """These rows of a batch: what a model made of them, and their labels."""
    own = labels[rows]
    return Output(logits[rows], {}), Batch(logits[rows], own, torch.arange(len(own)), len(labels))


def loss(name: str = "cross_entropy", **settings):
    entry = LOSSES[name]
    return entry.build(entry.settings(**settings))


@pytest.mark.fast
def test_squared_error_is_half_the_squared_distance_to_the_one_hot_label():
    slow = [sum((z - float(c == y)) ** 2 for c, z in enumerate(row)) / 2 for row, y in zip(LOGITS, LABELS, strict=True)]
    torch.testing.assert_close(loss("mse").each(*given()), torch.stack(slow))
    assert loss("mse").mean(*given(functional.one_hot(LABELS, 5).double())) == 0


def test_squared_error_of_values_is_half_the_squared_distance():
    values = LOGITS + torch.arange(5.0)
    out, batch = Output(LOGITS, {}), Batch(LOGITS, values, torch.arange(7), 7)
    torch.testing.assert_close(loss("mse").each(out, batch), torch.full((7,), 15.0, dtype=torch.float64))
    assert loss("mse").scores(out, batch).keys() == {"loss"}


@pytest.mark.fast
def test_cross_entropy_is_torchs_to_the_bit():
    """Runs of before there was a choice are repeated bit for bit."""
    logits = LOGITS.float()
    assert torch.equal(loss().mean(*given(logits)), functional.cross_entropy(logits, LABELS))


@pytest.mark.fast
@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
def test_shares_of_a_batch_add_up_to_its_mean(name):
    chosen = loss(name)
    parts = [chosen.mean(*given(rows=rows)) for rows in (slice(0, 3), slice(3, 7), slice(7, 7))]
    torch.testing.assert_close(sum(parts), chosen.mean(*given()))
    torch.testing.assert_close(chosen.each(*given()).mean(), chosen.mean(*given()))


@pytest.mark.parametrize(("skip", "left_out"), [("none", 0), ("head_bias", 1), ("biases", 4)])
def test_the_penalty_and_its_gradient_are_those_of_autograd(skip, left_out):
    torch.manual_seed(0)
    model = ResNet((1, 4, 4), 5, blocks=2, width=6).double()
    chosen = loss(l2=0.3, l2_skip=skip)
    named = dict(model.named_parameters())
    assert len(named) - len(chosen.penalties(model)) == left_out
    x = torch.randn(7, 1, 4, 4, dtype=torch.float64)
    objective = chosen.mean(*given(model(x).prediction))
    theta = [p for name, p in named.items() if not name.endswith("bias") or (skip != "biases" and left_out == 0)]
    if skip == "head_bias":
        theta = [p for name, p in named.items() if name != "head.bias"]
    added = 0.15 * sum(p.square().sum() for p in theta)
    expected = torch.autograd.grad(objective + added, list(named.values()))
    assert penalty(chosen, model) == pytest.approx(added.item(), rel=1e-12)
    chosen.mean(*given(model(x).prediction)).backward()
    add_penalty_gradient(penalised(chosen, model))
    for p, gradient in zip(named.values(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


@pytest.mark.parametrize(
    "optimizer", [lambda p, decay: torch.optim.SGD(p, 0.1, 0.9, weight_decay=decay),
                  lambda p, decay: torch.optim.Adam(p, 0.01, weight_decay=decay)]
)  # fmt: skip
def test_an_epoch_with_a_penalty_is_one_with_coupled_weight_decay(tiny, optimizer):
    """torch's SGD and Adam add decay * theta to the gradient: the same objective, unlike AdamW's."""
    dataset = load_dataset(tiny().dataset, ".")

    def trained(chosen, decay):
        torch.manual_seed(0)
        model = MLP(64, 10, 3, 16).double()
        one = learner(model, optimizer(model.parameters(), decay), chosen, lambda x: model(x.double()))
        train_epoch(one, feed(dataset, 50, (1, 1)))
        return model.state_dict()

    torch.testing.assert_close(trained(loss(l2=0.01), 0.0), trained(CROSS_ENTROPY, 0.01))
    assert not torch.equal(trained(CROSS_ENTROPY, 0.0)["fc1.weight"], trained(loss(l2=0.01), 0.0)["fc1.weight"])


def test_a_fixed_map_is_not_penalised(tiny):
    folder = train(tiny("etf=last_k", "etf.k=2", "loss.l2=0.1", NO_DECAY, "epochs=1"))
    state = checkpoint.load(folder)["model"]
    learnt = sum(t.double().square().sum() for name, t in state.items() if name.startswith(("fc", "norm"))
                 and "running" not in name and "num_batches" not in name)  # fmt: skip
    logged = {r[3]: r[4] for r in rows(folder) if r[0] == 1 and r[1:3] == ("train", "network")}
    assert logged["l2_penalty"] == pytest.approx(0.05 * float(learnt), rel=1e-6)


def test_where_all_is_fixed_there_is_no_penalty(tiny):
    keys = ("model.norm=none", "model.depth=2", "etf=last_k", "etf.k=2", "loss.l2=0.1", "loss.l2_skip=biases", NO_DECAY)
    folder = train(tiny(*keys, "epochs=1"))
    assert {r[4] for r in rows(folder) if r[3] == "l2_penalty"} == {0.0}


def test_a_head_that_is_fixed_with_its_bias_needs_no_sparing(tiny):
    keys = ("etf=last_k", "etf.k=1", "etf.bias=false", "loss.l2=0.1", "loss.l2_skip=head_bias", NO_DECAY)
    assert (train(tiny(*keys, "epochs=1")) / "DONE").exists()


def test_what_a_switch_fixes_leaves_the_penalty_and_a_resume_goes_on_so(tiny, monkeypatch, tmp_path):
    keys = (*FROZEN, "loss.l2=0.05", NO_DECAY, "metrics.every=1")
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    switch = events(whole, "switch")[0]
    with monkeypatch.context() as patch:
        patch.setattr(Fit, "begin_epoch", lambda self: self.progress.epoch == switch["epoch"] + 1 and _kill())
        with pytest.raises(Killed):
            train(tiny(*keys))
    assert_same_run(train(tiny(*keys)), whole)
    state = checkpoint.load(whole)
    fixed = {e["site"] for e in events(whole, "switch")}
    stored = {name.rpartition(".")[0]: t for name, t in state["model"].items() if name.endswith(".weight")}
    last = [r[4] for r in rows(whole) if r[0] == 6 and r[3] == "l2_penalty"]
    learnt = [t for name, t in state["model"].items() if _learnt(name, fixed)]
    assert last == [pytest.approx(0.025 * float(sum(t.double().square().sum() for t in learnt)), rel=1e-6)]
    assert fixed & {"fc1", "fc2", "fc3", "fc4"}, stored.keys()


def _kill():
    raise Killed()


def _learnt(name: str, fixed: set[str]) -> bool:
    layer, _, kind = name.rpartition(".")
    return not (kind.startswith(("running", "num_batches")) or (layer in fixed and kind != "bias"))


def test_a_run_minimises_what_it_was_told_to(tiny):
    """Its penalty ends lower than without one, its loss is the squared error of its own logits."""
    keys = ("model=rn", "model.blocks=2", "loss=mse", NO_DECAY, "batch_size=null", "epochs=40")
    folder, free = (train(tiny(*keys, f"loss.l2={l2}")) for l2 in ("0.05", "1e-9"))
    first, last = ({r[3]: r[4] for r in rows(folder) if r[0] == e and r[1:3] == ("train", "network")} for e in (0, 40))
    assert last["loss"] < 0.8 * first["loss"]
    of_free = next(r[4] for r in rows(free) if r[0] == 40 and r[3] == "l2_penalty") * 0.05 / 1e-9
    assert last["l2_penalty"] < 0.9 * of_free
    assert json.loads((folder / "summary.json").read_text())["final"]["train"]["loss"] == last["loss"]


def test_full_batch_is_one_step_an_epoch(tiny):
    """The same as naming the size of the train split."""
    whole, named = (train(tiny(f"batch_size={size}", "epochs=3")) for size in ("null", 200))
    assert whole != named
    for folder in (whole, named):
        steps = {s["step"].item() for s in checkpoint.load(folder)["optimizer"]["state"].values() if "step" in s}
        assert steps <= {3}
    assert (whole / "metrics.csv").read_bytes() == (named / "metrics.csv").read_bytes()


def test_seeds_at_once_minimise_the_penalty_too(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(training_seeds, "LEAST_SEEDS_ON_CPU", 2)
    keys = ("model=rn", "model.blocks=2", "loss=mse", "loss.l2=0.02", NO_DECAY, "loss.l2_skip=head_bias", "epochs=4")
    configs = [tiny(*keys).of_seed(seed) for seed in (0, 1)]
    train_seeds(configs)
    for config in configs:
        alone = train(tiny(*keys, f"seed={config.seed}", root=tmp_path / "alone"))
        ours, theirs = (
            {r[1:4]: r[4] for r in rows(f) if r[0] == 4 and r[3] in ("loss", "l2_penalty")}
            for f in (config.folder, alone)
        )
        assert len(ours) == 3
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert "seeds" in (config.folder / "events.jsonl").read_text()


def test_the_penalty_falls_with_depth_by_interpolation():
    for blocks in (2, 34):
        config = composed("model=rn", f"model.blocks={blocks}", "loss.l2='${over:0.005,${model.blocks}}'", NO_DECAY)
        assert config.loss.l2 == 0.005 / blocks
    assert composed("experiment=depth/rn2", "model.blocks=13").loss.l2 == 0.005 / 13
    assert composed("experiment=depth/rn2_constant", "model.blocks=13").loss.l2 == 0.0025


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("loss.l2=-1", "loss.l2 must be at least 0"),
        ("loss.l2=nan", "loss.l2 must be at least 0"),
        ("loss.l2_skip=all", "unknown loss.l2_skip 'all'; valid: none, head_bias, biases"),
        ("loss.l2='${over:1,0}'", "loss.l2: .*divides by 0"),
        ("loss.l2=0.1", "loss.l2 and optimizer.weight_decay both shrink the weights.*, got loss.l2=0.1 opt.*=0.0005"),
        ("loss.l2_skip=biases", "loss.l2_skip=biases needs loss.l2 above 0: without it no bias is penalised"),
        ("batch_size=1", "batch_size must be at least 2"),
    ],
)
def test_wrong_values_are_refused(key, message):
    with pytest.raises(ConfigError, match=message):
        composed(key)


def test_runs_of_before_there_was_a_choice_are_found_and_resumed(tiny):
    """Their names do not hold the loss, their configuration has none."""
    config = tiny()
    assert "loss" not in config.identity()
    assert "loss" in tiny("loss.l2=0.1", NO_DECAY).identity()
    folder = train(config)
    file = folder / "config.yaml"
    text = file.read_text()
    start = text.index("loss:\n")
    file.write_text(text[:start] + text[text.index("optimizer:\n") :])
    assert typed(OmegaConf.create(stored_config(file))).loss == config.loss
    assert train(config) == folder
    assert_same_run(train(tiny(f"resume={folder}")), folder)


def test_a_loss_that_defines_each_alone_is_trained_by_it():
    """Below a loss whose mean is a faster way to the same: the inherited one would train on that."""

    class Tenfold(type(CROSS_ENTROPY)):
        def each(self, out, batch):
            return 10 * super().each(out, batch)

    ours = Tenfold(LOSSES["cross_entropy"].settings())
    torch.testing.assert_close(ours.mean(*given()), 10 * CROSS_ENTROPY.mean(*given()))
