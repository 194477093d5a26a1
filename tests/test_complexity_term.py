"""loss.complexity: its gradient against finite differences, what a run with it does, and what cannot train with it."""

import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, killed_after, rows
from torch import nn
from torch.func import functional_call, jacrev, vmap

from nclab.config.checks import ConfigError
from nclab.interfaces.batch import Batch, Output
from nclab.parallel.gradients import SummedGradients
from nclab.parallel.group import SINGLE
from nclab.run.build import fit_for_several
from nclab.run.execute import check, train, train_seeds
from nclab.run.trained import load_trained
from nclab.runfolder import checkpoint
from nclab.training.complexity_term import complexity_term
from nclab.training.objective import LOSSES
from nclab.training.step import loss_and_gradient

N, IN, HIDDEN, C = 6, 4, 5, 3
FACTOR = 0.3


class Net(nn.Module):
    """tanh(V tanh(U x + a)), d features, below a classifier."""

    def __init__(self, d):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Sequential(nn.Linear(IN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, d), nn.Tanh())
        self.head = nn.Linear(d, C)
        self.double()

    def forward(self, x):
        features = self.embed(x)
        return Output(self.head(features), {"embed": features})


class OneBatch:
    """A trainee of `loss_and_gradient`."""

    def __init__(self, model, factor):
        self.model, self.factor = model, factor
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def loss(self, batch):
        out = self.model(batch.inputs)
        return LOSSES["cross_entropy"].build(LOSSES["cross_entropy"].settings()).mean(out, batch), out

    def beside(self, batch, out):
        torch.manual_seed(7)
        return complexity_term(self.factor, batch, out) if self.factor else None


def batch_of(n=N):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(n, IN, generator=g, dtype=torch.float64)
    return Batch(x.requires_grad_(), torch.randint(C, (n,), generator=g), torch.arange(n), n)


def gradients(model, factor, batch):
    trainee = OneBatch(model, factor)
    with SummedGradients(model.parameters(), SINGLE) as summed:
        loss, _ = loss_and_gradient(trainee, batch, summed)
    return loss, {name: p.grad.clone() for name, p in model.named_parameters()}


def term(model, batch, factor=FACTOR):
    torch.manual_seed(7)
    return complexity_term(factor, batch, model(batch.inputs))


@pytest.mark.fast
@pytest.mark.parametrize("d", [1, 3])
def test_its_gradient_is_that_of_finite_differences(d):
    """In float64, every weight; the loss that is told is the one without it."""
    model, batch = Net(d), batch_of()
    loss, whole = gradients(model, FACTOR, batch)
    alone, plain = gradients(model, 0.0, batch)
    assert torch.equal(loss, alone)
    step = 1e-6
    for name, p in model.named_parameters():
        expected = torch.zeros_like(p)
        for i in range(p.numel()):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    p.view(-1)[i] += sign * step
                ends.append(term(model, batch).item())
                with torch.no_grad():
                    p.view(-1)[i] -= sign * step
            expected.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(whole[name] - plain[name], expected, rtol=1e-6, atol=1e-8)
        assert bool(expected.any()) == name.startswith("embed")


def exact(model, batch, factor=FACTOR):
    """factor * GC and its gradients, of the whole Jacobian."""
    parameters = dict(model.named_parameters())
    of_one = lambda p, x: functional_call(model, p, (x[None],)).features["embed"][0]  # noqa: E731
    found = vmap(jacrev(of_one, 1), (None, 0))(parameters, batch.inputs.detach())  # (N, d, IN)
    gc = factor * found.square().sum((1, 2)).mean()
    return gc, torch.autograd.grad(gc, list(model.embed.parameters()))


@pytest.mark.fast
def test_it_is_the_complexity_of_the_features():
    """Of one feature exactly; of several on average over its directions."""
    batch = batch_of()
    one = Net(1)
    value, expected = exact(one, batch)
    own = term(one, batch)
    assert own.item() == pytest.approx(value.item(), rel=1e-12)
    for found, wanted in zip(torch.autograd.grad(own, list(one.embed.parameters())), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    three = Net(3)
    value, expected = exact(three, batch)
    torch.manual_seed(0)
    drawn = []
    for _ in range(400):
        own = complexity_term(FACTOR, batch, three(batch.inputs))
        (weight,) = torch.autograd.grad(own, [three.embed[0].weight], retain_graph=True)
        drawn.append(torch.cat([own.detach()[None], weight.flatten()]))
    drawn = torch.stack(drawn)
    distance = (drawn.mean(0) - torch.cat([value.detach()[None], expected[0].flatten()])) / (drawn.std(0) / 20)
    assert distance.abs().max() < 4
    assert 0.5 < distance.square().mean() < 2


def test_a_smaller_share_counts_as_a_share():
    model, batch = Net(3), batch_of()
    half = Batch(batch.inputs, batch.targets, batch.index, 2 * N)
    assert term(model, half).item() == pytest.approx(term(model, batch).item() / 2, rel=1e-12)


PLAIN = ("metrics.suite=[collapse,complexity]", "epochs=4", "optimizer.weight_decay=0", "model.norm=none")


def at_end(folder):
    return {r[3]: r[4] for r in rows(folder) if r[0] == 4 and r[1] == "train" and r[2] in ("act3", "act1", "network")}


@pytest.mark.fast
def test_a_run_with_it_has_a_lower_complexity(tiny):
    without, little, much = (
        at_end(train(tiny(*PLAIN, "model.depth=2", "batch_size=20", "optimizer.lr=0.2", f"loss.complexity={f}")))
        for f in (0, 0.03, 1)
    )
    assert without["geometric_complexity"] > 1.2 * little["geometric_complexity"]
    assert little["geometric_complexity"] > 1.2 * much["geometric_complexity"]


def test_no_metric_of_the_loss_has_it(tiny):
    """Nothing is learnt at this rate, and all numbers are those of the run without."""
    keys = (*PLAIN, "loss.l2=0.1", "optimizer.lr=1e-30", "optimizer.momentum=0")
    without, with_it = (at_end(train(tiny(*keys, f"loss.complexity={f}"))) for f in (0, 100))
    assert without.pop("objective") == without["loss"] + without["l2_penalty"]
    assert repr(with_it) == repr(without)  # `objective` is not measured where the objective has a third term


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_run_ends_as_it_would_have(tiny, tmp_path, epoch):
    keys = (*PLAIN, "loss.complexity=0.1")
    again = tiny(*keys, root=tmp_path / "again")
    folder = train(tiny(*keys))
    killed_after(epoch, again)
    assert_same_run(folder, train(again))


@pytest.mark.parametrize("model", ["cnn", "resnet", "rn", "vgg", "vit"])
@pytest.mark.parametrize("more", [(), ("precision=bf16", "etf=last_k", "etf.k=1")])
def test_every_network_of_images_trains_with_it(tiny, model, more):
    """Convolutions, batch norm, pooling, attention, fixed layers, autocast."""
    keys = (
        f"model={model}",
        "dataset.train_size=40",
        "dataset.test_size=20",
        "epochs=1",
        "batch_size=20",
        "metrics.every=0",
        *more,
    )
    folders = [train(tiny(*keys, f"loss.complexity={f}")) for f in (0, 1e-3)]
    one, two = (load_trained(folder)[0].state_dict() for folder in folders)
    assert all(w.isfinite().all() for w in two.values())
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_several_seeds_in_one_process_train_in_turns(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("nclab.training.seeds.LEAST_SEEDS_ON_CPU", 2)
    keys = (*PLAIN, "loss.complexity=0.1")
    alone = [train(tiny(*keys, f"seed={seed}", root=tmp_path / "alone")) for seed in (0, 1)]
    configs = [tiny(*keys, f"seed={seed}", root=tmp_path / "together") for seed in (0, 1)]
    assert not any(train_seeds(configs).values())
    for folder, config in zip(alone, configs, strict=True):
        one, two = (checkpoint.load(path)["model"] for path in (folder, config.folder))
        assert all(torch.equal(one[name], two[name]) for name in one)


WRONG = {
    "loss.complexity=-1": "loss.complexity must be at least 0 and finite, got -1",
    "loss.complexity=inf": "loss.complexity must be at least 0 and finite, got inf",
    "loss.complexity=1 compile=true": "loss.complexity takes second derivatives, which compiled steps have not: set",
    "loss.complexity=1 optimizer=lbfgs batch_size=null": "loss.complexity is drawn anew each time, and optimizer=lbfgs",
    "loss.complexity=1 dataset=phrases model=tf": "loss.complexity needs inputs with a derivative, images or arrays",
    "loss.complexity=1 dataset=free_features model=unconstrained": "loss.complexity needs inputs with a derivative",
    "loss.complexity=1 loss.l2=0.1 optimizer.weight_decay=0 metrics.headline=train/objective": (
        "unknown metrics.headline 'train/objective'"
    ),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_cannot_be_is_refused(line):
    with pytest.raises(ConfigError, match=WRONG[line]):
        check([composed(*line.split())])


def test_several_processes_are_refused():
    class Two:
        size = 2

    with pytest.raises(ConfigError, match=r"loss\.complexity trains with one process, got 2"):
        fit_for_several(composed("loss.complexity=1"), Two())


def test_names_of_runs_without_it_stay():
    assert "complexity" not in composed("loss.l2=0.1", "optimizer.weight_decay=0").identity()["loss"]
    assert composed("loss.complexity=0.1").identity()["loss"]["complexity"] == 0.1
    assert composed().run_name != composed("loss.complexity=0.1").run_name
