"""etf=clock: fixes given layers at given epochs, and nothing that is measured changes that."""

import pytest
import torch
from conftest import composed
from run_folders import assert_same_run, events, flat, killed_after, rows

from nclab.etf import POLICIES, ETFPolicy, FixedLinear, Measures
from nclab.etf.frame import nearest_etf
from nclab.etf.policy import PolicySettings
from nclab.models.mlp import MLP
from nclab.models.vit import ViT
from nclab.run.execute import train
from nclab.runfolder import checkpoint
from nclab.training import fit as fit_module


def clock(**settings):
    entry = POLICIES["clock"]
    return entry.build(entry.settings(**settings))


def mlp(depth: int = 5, **more) -> MLP:
    torch.manual_seed(0)
    return MLP(20, 5, depth, 16, **more)


def optimizer(model) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def log(policy, model, epochs: int, measures: Measures | None = None) -> dict[int, list[str]]:
    """Epoch -> the layers that became fixed after it, of those epochs that fixed any."""
    policy.setup(model, 0)
    found = {e: [s.site for s in policy.after_epoch(model, optimizer(model), measures, e)] for e in range(1, epochs)}
    return {epoch: sites for epoch, sites in found.items() if sites}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"k": 1, "start": 4}, {4: ["fc5"]}),
        ({"k": 3, "start": 2, "pause": 2}, {2: ["fc5"], 4: ["fc4"], 6: ["fc3"]}),
        ({"k": 4, "start": 1}, {1: ["fc5"], 2: ["fc4"], 3: ["fc3"], 4: ["fc2"]}),
        ({"k": 3, "start": 5, "order": "at_once"}, {5: ["fc3", "fc4", "fc5"]}),
        ({"k": 2, "start": 3, "maps": "hidden"}, {3: ["fc4"], 4: ["fc3"]}),
    ],
)
@pytest.mark.parametrize("measured", [None, 0.0, float("nan"), 1.0])
def test_layers_become_fixed_at_their_epochs_whatever_is_measured(settings, expected, measured):
    names = [f"fc{i}" for i in range(1, 6)]
    measures = (
        None if measured is None else Measures(measured, dict.fromkeys(names, measured), {n: (n,) for n in names})
    )
    model = mlp()
    policy = clock(**settings)
    assert policy.candidates(model) == {site: epoch for epoch, sites in expected.items() for site in sites}
    assert log(policy, model, 10, measures) == expected
    assert policy.candidates(model) == {}


def test_a_stage_of_a_transformer_is_a_block():
    model = ViT((1, 8, 8), 3, width=8, heads=2, blocks=3, patch=4, ratio=2)
    found = log(clock(k=3, start=1), model, 5)
    assert list(found.values()) == [
        ["head"],
        ["block3.ffn_in", "block3.ffn_out"],
        ["block2.ffn_in", "block2.ffn_out"],
    ]


def test_the_frame_is_the_nearest_of_the_learnt_weight():
    model = mlp()
    before = model.fc5.weight.detach().clone()
    log(clock(k=1, start=2), model, 3)
    etf, scale = nearest_etf(before.T)
    torch.testing.assert_close(model.fc5.weight, (scale * etf.T).float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["frozen", "frozen_scaled", "orthogonal"])
def test_controls_are_of_the_same_layers_at_the_same_epochs(kind):
    model = mlp()
    before = model.fc4.weight.detach().clone()
    assert log(clock(kind=kind, k=2, start=2), model, 5) == {2: ["fc5"], 3: ["fc4"]}
    assert model.fc4.recipe.kind == kind
    assert torch.equal(model.fc4.weight, before) == (kind == "frozen")


def test_a_diverged_layer_is_left_alone():
    model = mlp()
    with torch.no_grad():
        model.fc5.weight[0, 0] = float("nan")
    assert log(clock(k=2, start=1), model, 5) == {2: ["fc4"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "etf.k must be at least 1, got 0"),
        ({"k": 5}, r"etf.k must be between 1 and 4, the stages .* \(fc2, fc3, fc4, fc5\); got 5"),
        ({"k": 4, "maps": "hidden"}, r"etf.k must be between 1 and 3, .* \(fc2, fc3, fc4\); got 4"),
        ({"start": 0}, "etf.start must be at least 1, got 0"),
        ({"pause": 0}, "etf.pause must be at least 1, got 0"),
        ({"order": "shallow"}, "unknown etf.order 'shallow'; valid: deepest_first, at_once"),
        ({"maps": "ffn"}, "unknown etf.maps 'ffn'; valid: all, hidden"),
        # One run, one name
        ({"k": 1, "pause": 3}, r"etf.pause has no effect with etf.k=1; leave it out \(got 3\)"),
        ({"k": 1, "order": "at_once"}, r"etf.order has no effect with etf.k=1; leave it out \(got at_once\)"),
        ({"k": 2, "order": "at_once", "pause": 2}, r"etf.pause has no effect with etf.order=at_once; .*got 2"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(settings, message):
    model = mlp()
    with pytest.raises(ValueError, match=message):
        clock(**settings).setup(model, 0)
    assert not any(isinstance(layer, FixedLinear) for layer in model.etf_sites().values())


def test_switches_after_the_end_are_refused():
    settings = POLICIES["clock"].settings
    settings(k=3, start=7, pause=1).complete(10, 1)
    message = (
        r"etf.k=3 switches is due after epoch 10 \(etf.start=8, etf.pause=1, etf.order=deepest_first\); .* epochs=10"
    )
    with pytest.raises(ValueError, match=message):
        settings(k=3, start=8).complete(10, 1)
    settings(k=3, start=9, order="at_once").complete(10, 0)  # needs no measurement
    with pytest.raises(ValueError, match="epochs must be at least 2, got 1"):
        settings().complete(1, 1)
    third = settings(k=2)
    third.complete(12, 1)
    assert (third.start, third.last) == (4, 5)


def test_labels_say_how_many():
    settings = POLICIES["clock"].settings
    assert settings(k=3).label == "clock3"
    assert settings(k=3, kind="frozen").label == "frozen_clock3"
    assert not settings().needs_measures
    assert isinstance(settings(), PolicySettings)


# ---- in runs: the control of etf=adaptive

LATE = ("etf.start=2", "etf.pause=2", "epochs=7", "seed=1")
MET = ("etf=adaptive", "etf.patience=1", "etf.threshold=1e-6", *LATE)  # a bar that is met from the first epoch on


@pytest.mark.parametrize(
    ("k", "epochs", "keys"),
    [
        (3, [2, 4, 6], ()),
        (3, [2, 2, 2], ("etf.order=at_once",)),
        (3, [2, 4, 6], ("etf.kind=frozen",)),
        (3, [2, 4, 6], ("etf.kind=orthogonal", "etf.frame=random", "etf.classifier_frame=random")),
        (2, [2, 4], ("optimizer=adamw", "etf.maps=hidden")),
        (3, [2, 4, 4, 6, 6], ("model=vit", "model.blocks=3")),
    ],
)
def test_adaptive_that_fires_at_the_epochs_of_the_clock_is_the_clock_to_the_bit(tiny, k, epochs, keys):
    late = [key for key in LATE if not (key.startswith("etf.pause") and "etf.order=at_once" in keys)]
    adaptive, by_clock = train(tiny(*MET, *keys)), train(tiny("etf=clock", f"etf.k={k}", *late, *keys))
    told = [[{n: v for n, v in e.items() if n != "time"} for e in events(f, "switch")] for f in (adaptive, by_clock)]
    assert told[0] == told[1]
    assert [e["epoch"] for e in told[0]] == epochs
    assert (adaptive / "metrics.csv").read_bytes() == (by_clock / "metrics.csv").read_bytes()
    one, two = checkpoint.load(adaptive), checkpoint.load(by_clock)
    for part in ("model", "optimizer", "fixed", "generators"):
        assert flat(one[part]) == flat(two[part]), part


def test_at_once_fixes_all_layers_beyond_the_effective_depth():
    """The workshop version: the effective depth is fc3, as fc2 is below the bar again."""
    entry = POLICIES["adaptive"]
    policy = entry.build(entry.settings(order="at_once", start=1, patience=1, relative=False, threshold=0.9))
    model = mlp(depth=6)
    values = {"fc1": 0.95, "fc2": 0.5, "fc3": 0.95, "fc4": 0.96, "fc5": 0.97, "fc6": 0.98}
    measures = Measures(1.0, values, {name: (name,) for name in values})
    policy.setup(model, 0)
    assert [s.site for s in policy.after_epoch(model, optimizer(model), measures, 1)] == ["fc4", "fc5", "fc6"]
    fixed = [name for name, layer in model.etf_sites().items() if isinstance(layer, FixedLinear)]
    assert fixed == ["fc4", "fc5", "fc6"]


def test_a_killed_clock_goes_on_bit_for_bit(tiny, tmp_path):
    keys = ("etf=clock", "etf.k=2", *LATE)
    whole = train(tiny(*keys, root=tmp_path / "whole"))
    config = tiny(*keys, root=tmp_path / "cut")
    killed_after(3, config)
    assert_same_run(whole, train(config))


def test_a_clock_needs_no_measurement(tiny):
    folder = train(tiny("etf=clock", "etf.k=2", "metrics.every=0", *LATE))
    assert [e["epoch"] for e in events(folder, "switch")] == [2, 4]
    assert {row[0] for row in rows(folder)} == {7}


def test_a_clock_that_ends_too_late_is_refused_before_training():
    with pytest.raises(ValueError, match="etf=clock would not end in time"):
        composed("etf=clock", "etf.k=3", "etf.start=4", "epochs=6")


@pytest.mark.parametrize(
    ("keys", "copies"),
    [
        (("etf=clock", "etf.k=1", "etf.start=5"), 1),
        (("etf=clock", "etf.k=2", "etf.start=4", "etf.pause=3"), 2),
        (("etf=adaptive", "etf.start=7", "etf.patience=1", "etf.threshold=1e-6"), 3),  # three stages, one an epoch
        (("etf=none",), 0),
    ],
)
def test_the_network_is_copied_before_a_switch_alone(tiny, monkeypatch, keys, copies):
    made, copy = [], fit_module.deepcopy
    monkeypatch.setattr(fit_module, "deepcopy", lambda model: made.append(model) or copy(model))
    folder = train(tiny("epochs=12", *keys))
    assert len({e["epoch"] for e in events(folder, "switch")}) == len(made) == copies


def test_a_policy_that_does_not_say_when_may_switch_after_every_epoch():
    class Own(ETFPolicy):
        def after_epoch(self, model, optimizer, measures, epoch):
            return []

    assert Own(PolicySettings()).may_switch_after(mlp(), 3)
    assert not ETFPolicy(PolicySettings()).may_switch_after(mlp(), 3)
