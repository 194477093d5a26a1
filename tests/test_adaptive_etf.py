"""AdaptiveETF in a training loop of one's own: decides as etf=adaptive does, on a model without probes."""

import io

import pytest
import torch
from torch import nn

from nclab.etf import POLICIES, AdaptiveETF, ETFLinear, FrozenLinear, Measures, convert, fixed_layers
from nclab.metrics import measure_model
from nclab.models.mlp import MLP

STAGES = ["fc1", "fc2", "fc3", "head"]


def model(seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    sizes = {"fc1": (20, 16), "fc2": (16, 16), "fc3": (16, 16), "head": (16, 5)}
    return nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})


def optimizer(of: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(of.parameters(), lr=0.1, momentum=0.9)


def ncc(*values: float, stages=STAGES) -> dict[str, float]:
    return dict(zip(stages, values, strict=True))


SEQUENCE = [
    (0.3, 0.95, 0.96, 0.97),
    (0.5, 0.95, 0.80, 0.97),
    (0.95, 0.96, 0.97, 0.99),
    (0.95, 0.96, float("nan"), 0.99),
    (0.95, 0.96, 0.97, 0.99),
    (0.95, 0.96, 0.97, 0.99),
    (0.5, 0.96, 0.97, 0.99),
    (0.5, 0.96, 0.97, 0.99),
]


@pytest.mark.parametrize("order", ["deepest_first", "at_once"])
@pytest.mark.parametrize("relative", [False, True])
def test_decides_as_the_policy_does(order, relative):
    ours = MLP(20, 5, 4, 16)
    entry = POLICIES["adaptive"]
    numbers = {"threshold": 0.95, "relative": relative, "patience": 2, "start": 2, "pause": 1, "order": order}
    policy = entry.build(entry.settings(**numbers))
    policy.setup(ours, 0)
    own = model()
    adaptive = AdaptiveETF(own, STAGES, **numbers)
    names = dict(zip(["fc1", "fc2", "fc3", "fc4"], STAGES, strict=True))
    first, second = optimizer(ours), optimizer(own)
    decisions = []
    for epoch, values in enumerate(SEQUENCE, 1):
        stages = {name: (name,) for name in names}
        measures = Measures(0.98, ncc(*values, stages=names), stages)
        theirs = [names[s.site] for s in policy.after_epoch(ours, first, measures, epoch)]
        switches = adaptive.update({**ncc(*values), "network": {"accuracy": 0.98}}, second, epoch)
        assert [s.layer for s in switches] == theirs
        assert adaptive.state_dict()["last_switch"] == policy.state_dict()["last_switch"]
        decisions.append(theirs)
    assert sum(map(len, decisions)) >= 2


def test_layers_become_fixed_and_the_optimizer_forgets_them():
    own = model()
    opt = optimizer(own)
    gone = own["head"].weight
    adaptive = AdaptiveETF(own, STAGES, patience=1)
    assert adaptive.update(None, opt, 1) == []
    (switch,) = adaptive.update(ncc(0.1, 0.1, 0.99, 0.99), opt, 1)
    assert (switch.layer, switch.epoch, switch.parameters_freed, switch.recipe.frame) == ("head", 1, 80, "nearest")
    assert isinstance(own["head"], ETFLinear)
    assert all(p is not gone for group in opt.param_groups for p in group["params"])
    assert adaptive.update(ncc(0.1, 0.1, 0.99, 0.99), opt, 2) == []  # fc3 is where the depth ends


def test_stages_are_modules_or_a_mapping_and_measures_may_hold_more():
    own = nn.Sequential()
    own.add_module("features", nn.Conv2d(3, 4, 3))
    own.add_module("block", nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    own.add_module("head", nn.Linear(8, 4))
    adaptive = AdaptiveETF(own, ["features", "block", "head"], patience=1, order="at_once", kind="frozen")
    assert adaptive.stages["features"] == []
    assert adaptive.stages["block"] == ["block.self_attn.out_proj", "block.linear1", "block.linear2"]
    values = {name: {"ncc_accuracy": 0.99, "nc1": 0.5} for name in ("input", "features", "block", "head")}
    switches = adaptive.update(values, optimizer(own), 1)
    assert [s.layer for s in switches] == [*adaptive.stages["block"], "head"]
    assert type(own.head) is FrozenLinear

    own = model()
    adaptive = AdaptiveETF(own, {"early": ["fc1"], "late": ["fc2", "fc3"]}, patience=1, frame="random", seed=4)
    assert [s.layer for s in adaptive.update({"early": 0.99, "late": 0.99}, None, 1)] == ["fc2", "fc3"]
    other = model()
    convert(other, ["fc2"], seed=4)
    assert torch.equal(own["fc2"].weight, other["fc2"].weight)


def test_a_frozen_control_needs_no_frame():
    own = model()
    weight = own["head"].weight.detach().clone()
    AdaptiveETF(own, STAGES, patience=1, kind="frozen").update(ncc(0.99, 0.99, 0.99, 0.99), None, 1)
    assert type(own["head"]) is FrozenLinear
    assert torch.equal(own["head"].weight, weight)


@pytest.mark.parametrize("frame", ["nearest", "random", "hadamard"])
@pytest.mark.parametrize("adaptive_first", [True, False])
def test_goes_on_where_it_was_saved(frame, adaptive_first):
    own = model()
    adaptive = AdaptiveETF(own, STAGES, patience=2, frame=frame)
    opt = optimizer(own)
    for epoch in (1, 2):
        adaptive.update(ncc(0.1, 0.95, 0.95, 0.95), opt, epoch)
    assert list(fixed_layers(own)) == ["head"]
    buffer = io.BytesIO()
    torch.save({"model": own.state_dict(), "adaptive": adaptive.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    fresh = model(1)
    again = AdaptiveETF(fresh, STAGES, patience=2, frame=frame)
    if adaptive_first:
        again.load_state_dict(saved["adaptive"])
        fresh.load_state_dict(saved["model"])
    else:
        fresh.load_state_dict(saved["model"])
        again.load_state_dict(saved["adaptive"])
    assert type(fresh["head"]) is type(own["head"])
    for name in STAGES:
        assert torch.equal(fresh[name].weight, own[name].weight)
        assert torch.equal(fresh[name].bias, own[name].bias)
    decisions = [a.update(ncc(0.1, 0.95, 0.95, 0.95), None, 3) for a in (adaptive, again)]
    assert [[s.layer for s in switches] for switches in decisions] == [["fc3"], ["fc3"]]


def test_a_state_that_does_not_fit_is_refused():
    own = model()
    adaptive = AdaptiveETF(own, STAGES, patience=1)
    before = adaptive.state_dict()
    adaptive.update(ncc(0.99, 0.99, 0.99, 0.99), None, 1)
    with pytest.raises(ValueError, match="the state leaves head learnable; load it into a freshly built model"):
        adaptive.load_state_dict(before)
    with pytest.raises(ValueError, match=r"the state fixes head, which no stage holds: fc2, fc3"):
        AdaptiveETF(model(), STAGES[:3]).load_state_dict(adaptive.state_dict())


@pytest.mark.parametrize(
    ("stages", "settings", "message"),
    [
        (["fc1"], {}, "at least 2 stages"),
        ("fc1", {}, "at least 2 stages"),
        (["fc1", "fc9"], {}, "no module 'fc9'; its parts: fc1, fc2, fc3, head"),
        (["fc1", "fc2", "fc2"], {}, "a stage is named twice"),
        ({"a": ["fc1"], "b": []}, {}, "no stage after 'a' has a linear layer"),
        ({"a": ["fc1"], "b": ["fc9"]}, {}, "no module 'fc9'; close matches: fc"),
        ({"a": [], "b": ["fc2"], "c": ["fc2"]}, {}, "only once, got fc2 twice"),
        (STAGES, {"threshold": 1.5}, r"^threshold must be in \(0, 1\], got 1.5"),
        (STAGES, {"patience": 0}, "^patience must be at least 1, got 0"),
        (STAGES, {"order": "shallow"}, "unknown order 'shallow'; valid: deepest_first"),
        (STAGES, {"classifier": "fc9"}, "classifier must be one of the layers to fix"),
        (STAGES, {"rank": "classes", "num_classes": 20}, "20 vectors form a simplex ETF in dimension 19"),
    ],
)
def test_what_cannot_be_met_is_refused(stages, settings, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveETF(model(), stages, **settings)


def test_measures_that_lack_something_are_refused():
    adaptive = AdaptiveETF(model(), STAGES)
    with pytest.raises(ValueError, match="no NCC accuracy of stage head; measured: fc1, fc2, fc3"):
        adaptive.update(dict.fromkeys(STAGES[:3], 1.0), None, 1)
    with pytest.raises(ValueError, match="stage 'fc1' has no ncc_accuracy; measured: nc1"):
        adaptive.update({s: {"nc1": 1.0} for s in STAGES}, None, 1)
    with pytest.raises(ValueError, match="relative=True needs the train accuracy"):
        AdaptiveETF(model(), STAGES, relative=True).update(ncc(1, 1, 1, 1), None, 1)


def test_it_decides_by_what_measure_model_gives():
    """In a loop of one's own, on a network whose classes are far apart at once; but not by a classifier's input."""
    torch.manual_seed(0)
    labels = torch.arange(100) % 5
    x = 5 * torch.eye(20)[labels] + 0.1 * torch.randn(100, 20)
    net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))
    adaptive = AdaptiveETF(net, ["0", "2", "4"], threshold=0.9, relative=False, patience=1, start=1)
    of = optimizer(net)
    measures = measure_model(net, [(x, labels)], ["0", "2", "4"], 5, classifier=None)
    assert min(values["ncc_accuracy"] for values in measures.values()) == 1.0
    (first,) = adaptive.update(measures, of, 1)
    assert first.layer == "4"
    assert isinstance(net[4], ETFLinear)
    plain = nn.Sequential(nn.Linear(20, 16), nn.Linear(16, 5))
    measures = measure_model(plain, [(x, labels)], ["0", "1"], 5)
    with pytest.raises(ValueError, match="expected the NCC accuracy behind stage '1', got that of its input"):
        AdaptiveETF(plain, ["0", "1"]).update(measures, optimizer(plain), 1)
