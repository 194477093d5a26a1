"""Losses and weights that are numbers no more: the layer in which that began is named, and nothing of it is kept."""

import signal

import pytest
import torch
from run_folders import assert_same_run, events, folder_of
from torch.nn import functional

from nclab.interfaces.batch import Output
from nclab.models.mlp import MLP
from nclab.models.vit import ViT
from nclab.run.execute import train, train_seeds
from nclab.runfolder import checkpoint
from nclab.system.signals import StopSignals
from nclab.training import seeds as training_seeds
from nclab.training.finite import first_not_finite, is_finite
from nclab.training.fit import Diverged, Fit
from nclab.training.progress import Part

SHAPE = (1, 8, 8)
NAN, HUGE = float("nan"), 3e38
MODELS = {"mlp": lambda: MLP(64, 10, 4, 16), "vit": lambda: ViT(SHAPE, 10, width=16, heads=2)}


@pytest.fixture
def x():
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", MODELS)
def test_a_sound_network_has_no_culprit(kind, x):
    assert first_not_finite(MODELS[kind](), x) is None
    assert first_not_finite(MODELS[kind]()) is None


@pytest.mark.parametrize("kind", MODELS)
def test_every_weight_can_be_the_culprit(kind, x):
    """Also without a batch, as after an epoch on a GPU; and what lies behind it is not blamed."""
    for name in dict(MODELS[kind]().named_parameters()):
        model = MODELS[kind]()
        with torch.no_grad():
            model.get_parameter(name).flatten()[-1] = NAN
        module, _, key = name.rpartition(".")
        for batch in (None, x):
            assert first_not_finite(model, batch) == f"{key} of {module or 'the model'}"


@pytest.mark.parametrize(
    ("kind", "site", "culprit"),
    [
        ("mlp", "fc1", "output of fc1"),
        ("mlp", "fc4", "output of fc4"),
        ("vit", "block1.ffn_out", "output of block1.ffn_out"),
        ("vit", "block2.ffn_in", "output of block2.ffn_in"),
        ("vit", "head", "output of head"),
    ],
)
def test_an_output_that_overflows_is_the_culprit_while_its_weights_are_sound(kind, site, culprit, x):
    model = MODELS[kind]()
    layer = model.get_submodule(site)
    layer.forward = lambda h: functional.linear(h, layer.weight) * HUGE * HUGE
    assert first_not_finite(model) is None
    assert first_not_finite(model, x) == culprit


def test_numbers_whose_squares_overflow_are_not_finite():
    assert is_finite([torch.tensor([1e18]), torch.tensor([3])])
    assert is_finite([])
    for bad in (1e20, NAN, float("inf")):
        assert not is_finite([torch.tensor([1.0]), torch.tensor([bad, 0.0])])


def overflow(monkeypatch, at_batch):
    """From the given batch on, counted over the run, the output of fc3 is too large for a float32."""
    count = {"batches": 0}
    forward = MLP.forward

    def counted(self, x):
        count["batches"] += self.training
        if count["batches"] == at_batch:
            self.fc3.forward = lambda h: functional.linear(h, self.fc3.weight) * HUGE * HUGE
        return forward(self, x)

    monkeypatch.setattr(MLP, "forward", counted)


def test_a_run_stops_at_the_batch_and_names_the_layer(tiny, monkeypatch):
    """Batch 6 is the second of epoch 3: two batches of 128 and 72 images an epoch. The weights are sound still."""
    config = tiny()
    models = []
    stop = Fit._stop_diverged

    def looked_at(self, loss, epoch):
        models.append(self.model)
        stop(self, loss, epoch)

    monkeypatch.setattr(Fit, "_stop_diverged", looked_at)
    overflow(monkeypatch, at_batch=6)
    said = r"diverged in epoch 3 at learning rate 0.05 \(loss nan, first not finite: the output of fc3\); lower"
    with pytest.raises(Diverged, match=said + r" optimizer.lr. The last good checkpoint stays"):
        train(config)
    (event,) = events(config.folder, "diverged")
    assert (event["epoch"], event["where"], event["learning_rate"]) == (3, "output of fc3", 0.05)
    assert is_finite(list(models[0].parameters()))
    assert checkpoint.load(config.folder)["progress"]["epoch"] == 2


def test_after_the_cause_is_gone_the_same_command_goes_on(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        overflow(patch, at_batch=6)
        with pytest.raises(Diverged):
            train(tiny())
    assert_same_run(train(tiny(root=tmp_path / "whole")), train(tiny()))


def test_weights_are_named_where_the_batches_were_not_watched(tiny, monkeypatch):
    """As on a GPU: seen at the end of the epoch only."""
    monkeypatch.setattr(Fit, "watch", lambda *_: False)
    set_lr = Fit._set_lr

    def explode(self, epoch):
        set_lr(self, epoch)
        if epoch == 2:
            self.learner.optimizer.param_groups[0]["lr"] = 1e38

    monkeypatch.setattr(Fit, "_set_lr", explode)
    with pytest.raises(
        Diverged, match=r"in epoch 3 at learning rate 1e\+38 \(loss nan, first not finite: the weight of fc1"
    ):
        train(tiny())
    assert checkpoint.load(tiny().folder)["progress"]["epoch"] == 2


def test_one_seed_of_a_batched_model_is_seen_at_its_batch_and_costs_no_other(tiny, monkeypatch):
    """Its three last maps are sound, but their product is beyond a float32."""
    monkeypatch.setattr(training_seeds, "LEAST_SEEDS_ON_CPU", 2)
    configs = [tiny("model.norm=none").of_seed(seed) for seed in range(3)]
    begin = Fit.begin_epoch

    def then_grow(self):
        begin(self)
        if folder_of(self) == configs[1].folder and self.progress.epoch == 2:
            for site in ("fc2", "fc3", "fc4"):
                self.model.get_submodule(site).weight.data.fill_(1e15)

    monkeypatch.setattr(Fit, "begin_epoch", then_grow)
    ended = train_seeds(configs)
    assert [type(ended[config.folder]) for config in configs] == [type(None), Diverged, type(None)]
    (event,) = events(configs[1].folder, "diverged")
    assert (event["epoch"], event["where"]) == (3, "output of fc4")
    assert checkpoint.load(configs[1].folder)["progress"]["epoch"] == 2


def test_a_gpu_is_never_waited_for(tiny):
    """On the device without values a loss cannot be looked at."""
    assert Fit.watch(None, torch.empty((), device="meta"), None) is False


def test_a_loss_that_is_not_finite_in_the_measurement_only_is_traced_too(tiny, monkeypatch):
    forward = MLP.forward

    def at_evaluation(self, x):
        logits, features = out = forward(self, x)
        return out if self.training else Output(logits * NAN, {**features, "fc2": features["fc2"] * NAN})

    monkeypatch.setattr(MLP, "forward", at_evaluation)
    with pytest.raises(Diverged, match=r"in epoch 1 .*first not finite: the output of fc2"):
        train(tiny("metrics.every=0", "epochs=1"))


def test_a_stop_signal_saves_no_weights_that_are_not_finite(tiny, monkeypatch):
    """The step of the last batch before the stop blew up; no loss has shown it yet."""
    count = Part.count

    def then_stop(self, loss, samples):
        count(self, loss, samples)
        StopSignals._active.number = signal.SIGTERM
        with torch.no_grad():
            fits[0].model.fc2.weight.fill_(NAN)

    fits = []
    begin = Fit.begin_epoch

    def in_epoch_three(self):
        begin(self)
        fits[:] = [self]
        if self.progress.epoch == 2:
            monkeypatch.setattr(Part, "count", then_stop)

    monkeypatch.setattr(Fit, "begin_epoch", in_epoch_three)
    with pytest.raises(Diverged, match="first not finite: the weight of fc2"):
        train(tiny())
    state = checkpoint.load(tiny().folder)
    assert state["progress"]["epoch"] == 2
    assert is_finite(list(state["model"].values()))
