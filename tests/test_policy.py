"""Policies on a small network: which maps they fix, when, and what the optimizer keeps."""

from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from nclab.etf import POLICIES, ETFLinear, ETFPolicy, FixedLinear, FrozenLinear, Measures
from nclab.etf.policies.adaptive import AdaptiveSettings
from nclab.etf.policies.last_k import LastKSettings
from nclab.etf.policy import PolicySettings
from nclab.interfaces.batch import Batch, Output
from nclab.models.mlp import MLP


def network(depth: int = 4, width: int = 16, d_in: int = 20, num_classes: int = 5) -> MLP:
    torch.manual_seed(0)
    return MLP(d_in, num_classes, depth, width)


def policy(name: str, **settings):
    entry = POLICIES[name]
    return entry.build(entry.settings(**settings))


def trained(model: MLP) -> torch.optim.Optimizer:
    """A few steps of SGD with momentum, so that every parameter has state."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(model(torch.randn(32, 20))[0], torch.randint(0, 5, (32,))).backward()
        optimizer.step()
    return optimizer


def fixed(model: MLP) -> list[str]:
    return [site for site, layer in model.etf_sites().items() if isinstance(layer, FixedLinear)]


def separated(*values: float, accuracy: float = 1.0) -> Measures:
    ncc = {f"fc{i}": v for i, v in enumerate(values, 1)}
    return Measures(accuracy, ncc, {layer: (layer,) for layer in ncc})


@pytest.mark.fast
def test_none_fixes_nothing():
    model = network()
    assert policy("none").setup(model, 0) == []
    assert fixed(model) == []


@pytest.mark.fast
@pytest.mark.parametrize("k", [1, 2, 4])
def test_last_k_fixes_the_last_k_maps(k):
    model = network()
    before = sum(p.numel() for p in model.parameters())
    switches = policy("last_k", k=k).setup(model, seed=0)
    assert fixed(model) == ["fc1", "fc2", "fc3", "fc4"][-k:]
    assert [s.site for s in switches] == fixed(model)
    assert all(isinstance(model.etf_sites()[s], ETFLinear) for s in fixed(model))
    assert before - sum(p.numel() for p in model.parameters()) == sum(s.parameters_freed for s in switches)
    assert model(torch.randn(8, 20))[0].shape == (8, 5)


def test_frames_follow_seed_and_site():
    weights = {}
    for seed in (0, 0, 1):
        model = network()
        policy("last_k", k=3).setup(model, seed)
        weights.setdefault(seed, []).append([model.fc2.weight, model.fc3.weight])
    (a, again), (other,) = weights[0], weights[1]
    assert torch.equal(a[0], again[0])
    assert not torch.equal(a[0], other[0])
    assert not torch.equal(a[0], a[1])  # two sites of one shape


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("last_k", {"k": 5}, r"between 1 and 4, .* \(fc1, fc2, fc3, fc4\); got 5"),
        ("last_k", {"k": 0}, "between 1 and 4"),
        ("last_k", {"frame": "nearest"}, "valid here: random, canonical"),
        ("last_k", {"frame": "haar"}, "unknown etf.frame 'haar'; did you mean hadamard. valid: random"),
        ("last_k", {"classifier_frame": "haar"}, "unknown etf.classifier_frame"),
        ("last_k", {"rank": "half"}, "unknown etf.rank 'half'; valid: full, classes"),
        ("last_k", {"scale": -1.0}, "etf.scale must be above 0"),
        ("last_k", {"classifier_scale": float("nan")}, "etf.classifier_scale must be above 0"),
        ("adaptive", {"maps": "ffn"}, "unknown etf.maps 'ffn'; valid: all, hidden"),
        ("adaptive", {"order": "shallow"}, "unknown etf.order 'shallow'"),
        ("adaptive", {"threshold": 1.5}, r"etf.threshold must be in \(0, 1\], got 1.5"),
        ("adaptive", {"patience": 0}, "etf.patience must be at least 1, got 0"),
        ("adaptive", {"start": 0}, "etf.start must be at least 1"),
        ("adaptive", {"pause": 0}, "etf.pause must be at least 1"),
        (
            "last_k",
            {"kind": "froze"},
            "unknown etf.kind 'froze'; did you mean frozen. valid: etf, frozen, frozen_scaled, orthogonal",
        ),
        ("last_k", {"kind": "frozen", "k": 9}, "between 1 and 4"),
        (
            "last_k",
            {"kind": "orthogonal", "frame": "hadamard"},
            "no frame 'hadamard': expected etf.frame random or",
        ),
        ("last_k", {"kind": "frozen_scaled", "classifier_frame": "nearest"}, "'nearest' follows a learnt weight"),
        ("last_k", {"kind": "frozen", "scale": 2.0}, "etf.scale has no effect with etf.kind=frozen"),
        ("transformer_ffn", {}, "needs a model with feed-forward layers"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(name, settings, message):
    model = network()
    with pytest.raises(ValueError, match=message):
        policy(name, **settings).setup(model, 0)
    assert fixed(model) == []


def test_a_model_with_nothing_left_to_learn_is_refused():
    bare = MLP(20, 5, 3, 16, norm="none")
    with pytest.raises(ValueError, match=r"etf.k=3 with etf.bias=false leaves this model nothing to learn"):
        policy("last_k", k=3, bias=False).setup(bare, 0)
    policy("last_k", k=3, bias=False).setup(MLP(20, 5, 3, 16), 0)  # batch norm learns
    policy("last_k", k=3).setup(bare, 0)


def test_too_few_dimensions_for_the_classes_are_refused_by_name():
    model = network(width=16, num_classes=20)
    with pytest.raises(ValueError, match=r"layer 'fc3' \(16 -> 16\): 20 vectors form .* dimension 19 or more"):
        policy("last_k", k=2, rank="classes").setup(model, 0)
    with pytest.raises(ValueError, match=r"layer 'fc4' \(16 -> 20\): 20 vectors form .* got dimension 16"):
        policy("adaptive").setup(model, 0)
    assert fixed(model) == []
    with pytest.raises(ValueError, match=r"layer 'fc4' \(4 -> 5\): frame 'canonical' needs dimension >= 5, got 4"):
        policy("last_k", classifier_frame="canonical").setup(network(width=4), 0)


@pytest.mark.fast
def test_adaptive_waits_for_patience_then_takes_one_map_at_a_time_from_the_output():
    model = network()
    optimizer = trained(model)
    p = policy("adaptive", threshold=0.9, patience=2, start=1)
    p.setup(model, 0)
    log = {
        e: [s.site for s in p.after_epoch(model, optimizer, separated(0.5, 0.95, 0.96, 0.97), e)] for e in range(1, 6)
    }
    assert log == {1: [], 2: ["fc4"], 3: ["fc3"], 4: [], 5: []}  # effective depth 2: fc1 and fc2 stay


def test_adaptive_all_at_once_and_only_hidden():
    model = network()
    p = policy("adaptive", patience=1, start=1, order="at_once", maps="hidden")
    p.setup(model, 0)
    switches = p.after_epoch(model, trained(model), separated(0.95, 0.95, 0.95, 0.95), 1)
    assert [s.site for s in switches] == ["fc2", "fc3"]


def test_adaptive_start_relative_and_absolute_threshold():
    measures = separated(0.1, 0.85, 0.85, 0.85, accuracy=0.9)
    for relative, expected in ((True, ["fc4"]), (False, [])):
        model = network()
        p = policy("adaptive", threshold=0.9, relative=relative, patience=1, start=3)
        p.setup(model, 0)
        optimizer = trained(model)
        assert p.after_epoch(model, optimizer, measures, 2) == []
        assert [s.site for s in p.after_epoch(model, optimizer, measures, 3)] == expected


def test_a_dip_starts_the_patience_afresh():
    model = network()
    p = policy("adaptive", patience=2, start=1)
    p.setup(model, 0)
    optimizer = trained(model)
    high, low = separated(0.1, 0.1, 0.99, 0.99), separated(0.1, 0.1, 0.1, 0.99)
    assert [p.after_epoch(model, optimizer, m, e) for e, m in enumerate((high, low, high), 1)] == [[], [], []]
    assert [s.site for s in p.after_epoch(model, optimizer, high, 4)] == ["fc4"]


@pytest.mark.fast
def test_nan_never_switches():
    model = network()
    p = policy("adaptive", patience=1, start=1)
    p.setup(model, 0)
    optimizer = trained(model)
    good = separated(0.99, 0.99, 0.99, 0.99)
    assert p.after_epoch(model, optimizer, separated(0.99, float("nan"), 0.99, 0.99), 1) == []
    assert p.after_epoch(model, optimizer, separated(0.99, 0.99, accuracy=float("nan")), 2) == []
    with torch.no_grad():
        model.fc4.weight[0, 0] = float("inf")
    assert [s.site for s in p.after_epoch(model, optimizer, good, 3)] == ["fc3"]  # not the diverged one


@pytest.mark.fast
def test_optimizer_forgets_exactly_the_switched_weight():
    model = network()
    optimizer = trained(model)
    momentum = {name: optimizer.state[q]["momentum_buffer"].clone() for name, q in model.named_parameters()}
    gone = model.fc4.weight
    p = policy("adaptive", patience=1, start=1)
    p.setup(model, 0)
    (switch,) = p.after_epoch(model, optimizer, separated(0.0, 0.0, 0.99, 0.99), 1)
    assert switch.parameters_freed == gone.numel()
    assert gone not in optimizer.state
    assert all(q is not gone for group in optimizer.param_groups for q in group["params"])
    for name, q in model.named_parameters():
        assert torch.equal(optimizer.state[q]["momentum_buffer"], momentum[name]), name
    weight = model.fc4.weight.clone()
    functional.cross_entropy(model(torch.randn(32, 20))[0], torch.randint(0, 5, (32,))).backward()
    optimizer.step()
    assert torch.equal(model.fc4.weight, weight)  # no step, no weight decay


def test_nearest_keeps_a_scaled_etf_where_it_is():
    model = network()
    optimizer = trained(model)
    p = policy("adaptive", patience=1, start=1)
    p.setup(model, 0)
    with torch.no_grad():
        etf = policy("last_k", k=1)
        donor = network()
        etf.setup(donor, 5)
        model.fc4.weight.copy_(1.7 * donor.fc4.weight)
    weight = model.fc4.weight.detach().clone()
    p.after_epoch(model, optimizer, separated(0.0, 0.0, 0.99, 0.99), 1)
    torch.testing.assert_close(model.fc4.weight, weight, atol=1e-6, rtol=0)


@pytest.mark.fast
def test_state_decides_as_if_it_had_never_stopped():
    measures = separated(0.1, 0.95, 0.95, 0.95)
    first = policy("adaptive", patience=3, start=1)
    model = network()
    first.setup(model, 0)
    optimizer = trained(model)
    for epoch in (1, 2):
        first.after_epoch(model, optimizer, measures, epoch)
    second = policy("adaptive", patience=3, start=1)
    second.seed = first.seed
    second.load_state_dict(first.state_dict())
    assert [s.site for s in second.after_epoch(model, optimizer, measures, 3)] == ["fc4"]


@pytest.mark.fast
def test_frozen_last_k_freezes_the_initial_weights():
    model = network()
    weights = [model.fc3.weight.detach().clone(), model.fc4.weight.detach().clone()]
    policy("last_k", kind="frozen", k=2).setup(model, 0)
    assert fixed(model) == ["fc3", "fc4"]
    assert isinstance(model.fc3, FrozenLinear)
    assert torch.equal(model.fc3.weight, weights[0])
    assert torch.equal(model.fc4.weight, weights[1])


def test_frozen_adaptive_freezes_the_current_weights():
    model = network()
    p = policy("adaptive", kind="frozen", patience=1, start=1)
    p.setup(model, 0)
    optimizer = trained(model)
    weight = model.fc4.weight.detach().clone()
    (switch,) = p.after_epoch(model, optimizer, separated(0.1, 0.1, 0.95, 0.95), 1)
    assert (switch.site, switch.recipe.kind) == ("fc4", "frozen")
    assert torch.equal(model.fc4.weight, weight)


def test_adaptive_ignores_an_epoch_that_was_not_measured():
    model = network()
    p = policy("adaptive", patience=2, start=1)
    p.setup(model, 0)
    p.after_epoch(model, trained(model), separated(0.1, 0.95, 0.95, 0.95), 1)
    state = p.state_dict()
    assert p.after_epoch(model, trained(model), None, 2) == []
    assert p.state_dict() == state
    assert state["since"]
    assert fixed(model) == []


class Following(ETFPolicy):
    """Sees every step and every epoch."""

    def after_step(self, model, batch, out, step):
        model.seen = (step, len(batch.targets), out.prediction.shape)


class Switching(ETFPolicy):
    def after_epoch(self, model, optimizer, measures, epoch):
        return []


def test_a_policy_says_what_the_training_loop_must_do_for_it():
    settings = PolicySettings()
    plain, following, switching = ETFPolicy(settings), Following(settings), Switching(settings)
    assert [p.stackable for p in (plain, following, switching)] == [True, False, True]
    assert [p.may_switch for p in (plain, following, switching)] == [False, False, True]
    assert [name for name in POLICIES.names() if policy(name).may_switch] == ["adaptive", "clock"]
    assert [name for name in POLICIES.names() if not policy(name).stackable] == ["align", "nearest"]
    model = network()
    batch = Batch(torch.randn(3, 20), torch.zeros(3, dtype=torch.int64), torch.arange(3), 3)
    assert plain.after_step(model, batch, Output(*model.eval()(batch.inputs)), 0) is None
    following.after_step(model, batch, Output(*model(batch.inputs)), 7)
    assert model.seen == (7, 3, (3, 5))
    assert plain.after_epoch(model, None, None, 1) == []


@dataclass
class MySettings(LastKSettings):
    name: str = "mine"


@dataclass
class MyAdaptiveSettings(AdaptiveSettings):
    name: str = "mine"


@dataclass
class StemSettings(LastKSettings):
    name: str = "mine"

    @property
    def stem(self) -> str:
        return "k" + str(self.k)


def test_a_subclass_has_a_label_of_its_own_name():
    assert MySettings(k=2).label == "mine_last2"
    assert MySettings(k=2, kind="frozen").label == "frozen_mine_last2"
    assert LastKSettings(k=2, name="mine").label == "mine_last2"  # named by its YAML alone
    assert MyAdaptiveSettings().label == "mine"
    assert MyAdaptiveSettings(kind="frozen", frame="nearest").label == "frozen_mine_current"
    assert StemSettings(k=2).label == "k2"  # who says how it is called is called so


@pytest.mark.parametrize(
    ("name", "settings", "label"),
    [
        ("none", {}, "none"),
        ("last_k", {"k": 2}, "last2"),
        ("last_k", {"k": 2, "kind": "frozen"}, "frozen_last2"),
        ("adaptive", {}, "adaptive"),
        ("adaptive", {"kind": "frozen"}, "frozen_current"),
        ("transformer_ffn", {"blocks": [3, 1], "classifier": True}, "ffn_1+3_head"),
        ("transformer_ffn", {"kind": "frozen"}, "frozen_ffn_all"),
        ("last_k", {"k": 2, "kind": "frozen_scaled"}, "frozen_scaled_last2"),
        ("adaptive", {"kind": "orthogonal"}, "orthogonal_adaptive"),
    ],
)
def test_labels_stay(name, settings, label):
    assert POLICIES[name].settings(**settings).label == label
