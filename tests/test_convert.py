"""convert on any model: what it changes, what it refuses, and what a state dict holds of a converted model."""

import copy
import doctest
import importlib
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from nclab.etf import ETFLinear, FrozenLinear, ImplicitETFLinear, Recipe, convert, etf_weight, fix, fixed_layers
from nclab.etf.policy import site_seed
from nclab.etf.state import pack, state_without_fixed, unpack
from nclab.training.progress import restore_model

NAMES = ["0", "2", "4"]
MODULES = ("convert", "depth_rule", "frame", "layer", "module_path", "policy", "recipe", "state", "structured")
X = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))


def plain(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def converted(seed: int = 0, names=NAMES, **settings) -> nn.Sequential:
    model = plain(seed)
    convert(model, names, seed=seed, **settings)
    return model


def through_a_file(state: dict) -> dict:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def simplex(k: int) -> torch.Tensor:
    return torch.full((k, k), -1 / (k - 1)).fill_diagonal_(1)


def test_converts_in_place_and_says_what_it_did():
    model = plain()
    bias = model[4].bias
    switches = convert(model, ["2", "4"], seed=3)
    assert [(s.layer, s.epoch, s.parameters_freed) for s in switches] == [("2", 0, 256), ("4", 0, 64)]
    assert list(fixed_layers(model)) == ["2", "4"]
    assert model[4].bias is bias
    torch.testing.assert_close(model[4].weight @ model[4].weight.T, simplex(4))
    assert switches[0].recipe.seed == site_seed(3, "2")  # the frame that the same choice has in a run


def test_every_layer_gets_its_own_frame():
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(3)))
    convert(model, ["0", "1", "2"])
    a, b, c = (layer.weight for layer in model)
    assert not torch.allclose(a, b)
    assert not torch.allclose(b, c)
    assert not torch.allclose(converted(1)[2].weight, converted(2)[2].weight)
    assert torch.equal(converted(1)[2].weight, converted(1)[2].weight)


def test_recipes_without_a_seed_never_share_a_frame():
    one, two = (fix(nn.Linear(64, 64), Recipe()) for _ in range(2))
    assert not torch.allclose(one.weight, two.weight)
    assert torch.equal(fix(nn.Linear(64, 64), one.recipe).weight, one.weight)
    torch.manual_seed(4)
    one = fix(nn.Linear(8, 8, device="meta").to_empty(device="cpu"), Recipe(frame="hadamard"))
    torch.manual_seed(4)
    assert torch.equal(one.weight, fix(nn.Linear(8, 8, device="meta").to_empty(device="cpu"), one.recipe).weight)


def test_a_layer_is_constructed_like_nn_linear():
    layer = ETFLinear(512, 10)
    torch.testing.assert_close(layer.weight @ layer.weight.T, simplex(10))
    assert layer.bias.requires_grad
    assert float(layer.bias.detach().abs().max()) <= 512**-0.5
    assert not torch.allclose(ETFLinear(64, 64).weight, ETFLinear(64, 64).weight)
    assert torch.equal(ETFLinear(64, 64, seed=1).weight, ETFLinear(64, 64, seed=1).weight)
    generator = torch.Generator().manual_seed(0)
    assert not torch.allclose(*(ETFLinear(8, 8, seed=generator).weight for _ in range(2)))
    torch.manual_seed(7)
    one = ETFLinear(9, 9)
    torch.manual_seed(7)
    assert torch.equal(one.weight, ETFLinear(9, 9).weight)
    other = ETFLinear(6, 3, bias=False, scale=2.0, dtype=torch.float64)
    assert other.bias is None
    assert (other.weight.dtype, other.scale) == (torch.float64, 2.0)
    torch.testing.assert_close(other.weight.norm(dim=1), torch.full((3,), 2.0, dtype=torch.float64))
    with torch.device("meta"):
        assert ETFLinear(6, 3).weight.is_meta
    x = torch.randn(4, 8)
    fast, dense = (kind(8, 8, frame="hadamard", seed=2) for kind in (ImplicitETFLinear, ETFLinear))
    dense.bias = fast.bias
    torch.testing.assert_close(fast(x), dense(x))
    assert pack(dense)["dense"]
    assert type(unpack(nn.Linear(8, 8), pack(dense))) is ETFLinear
    for kind, frame, message in (
        (ETFLinear, "nearest", "follows the weight of an existing layer"),
        (ImplicitETFLinear, "random", "needs a stored weight; valid here: canonical"),
        (ETFLinear, "haar", "unknown frame 'haar'; did you mean hadamard. valid: random"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(8, 8, frame=frame)
    with pytest.raises(ValueError, match="10 vectors form a simplex ETF in dimension 9 or more, got dimension 8"):
        ETFLinear(8, 10, rank="rows")


def tied() -> nn.Module:
    model = plain()
    model[2].weight = nn.Parameter(torch.randn(16, 16))
    model.add_module("again", nn.Linear(16, 16))
    model.again.weight = model[2].weight
    return model


def same_module_twice() -> nn.Module:
    model = plain()
    model.add_module("again", model[2])
    return model


def parametrized() -> nn.Module:
    model = plain()
    parametrizations.weight_norm(model[2])
    return model


class OwnForward(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


def replaced_forward() -> nn.Module:
    """As libraries that offload weights do it."""
    model = plain()
    model[2].forward = lambda x: 2 * x
    return model


ENCODER = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


@pytest.mark.parametrize(
    ("model", "names", "settings", "message"),
    [
        (plain(), ["2", "layers.0"], {}, "no module 'layers.0'; linear layers: 0, 2, 4"),
        (nn.ModuleDict({"fc1": nn.Linear(4, 4)}), ["fc2"], {}, "no module 'fc2'; close matches: fc1"),
        (plain(), ["2", "1"], {}, "'1' is ReLU, expected nn.Linear"),
        (ENCODER, ["self_attn"], {}, "is MultiheadAttention, expected nn.Linear; linear layers in it: self_attn.out_"),
        (ENCODER, ["self_attn.in_proj_weight"], {}, "is a parameter, expected the module path"),
        (ENCODER, ["linear1"], {"bias": False}, "TransformerEncoderLayer reads the bias of 'linear1'"),
        (ENCODER, ["self_attn.out_proj"], {"bias": False}, "MultiheadAttention reads the bias"),
        (converted(names=["4"]), ["2", "4"], {}, "layer '4' is already fixed"),
        (plain(), ["2", "4", "2"], {}, "only once, got 2 twice"),
        (plain(), [""], {}, "got ''; for a lone layer use fix"),
        (tied(), ["0", "2"], {}, "'2.weight' is tied to again.weight"),
        (same_module_twice(), ["again"], {}, "'again.weight' is tied to 2.weight"),
        (parametrized(), ["2"], {}, "weight of '2' is computed"),
        (nn.Sequential(OwnForward(4, 4)), ["0"], {}, "is OwnForward with a forward or a weight of its own"),
        (replaced_forward(), ["2"], {}, "is Linear with a forward or a weight of its own"),
        (nn.Sequential(nn.LazyLinear(4)), ["0"], {}, "has no shape yet"),
        (plain(), ["2", "0"], {"classifier": "0"}, r"layer '0' \(12 -> 16\): 16 vectors .* dimension 15 or more"),
        (plain(), ["2"], {"classifier": "4"}, r"classifier must be one of the layers to fix \(2\), got '4'"),
        (plain(), ["2"], {"rank": "classes"}, "rank 'classes' needs num_classes"),
        (plain(), ["2"], {"frame": "haar"}, "unknown frame 'haar'; did you mean hadamard. valid: random, canonical"),
        (plain(), ["2"], {"kind": "frozen", "frame": "hadamard"}, "no effect with kind='frozen'"),
        (
            plain(),
            ["2"],
            {"kind": "orthogonal", "frame": "hadamard"},
            "'orthogonal' has no frame 'hadamard'",
        ),
        (plain(), ["2"], {"scale": -1.0}, "scale must be above 0"),
    ],
)
def test_what_cannot_be_converted_is_refused_and_nothing_changes(model, names, settings, message):
    before = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        convert(model, names, **settings)
    assert [type(module) for module in model.modules()] == before


def test_a_diverged_weight_has_no_nearest_etf():
    model = plain()
    with torch.no_grad():
        model[4].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="layer '4': the ETF nearest to a weight with non-finite entries is undefined"):
        convert(model, ["2", "4"], frame="nearest")
    assert not fixed_layers(model)


def test_a_shared_bias_is_kept_and_not_dropped():
    model = plain()
    model[2].bias = model[0].bias
    with pytest.raises(ValueError, match=r"'2.bias' is tied to 0.bias"):
        convert(model, ["2"], bias=False)
    convert(model, ["2"])
    assert model[2].bias is model[0].bias


def test_the_classifier_has_its_rows_for_vertices():
    square = nn.Sequential(nn.Linear(6, 6))
    convert(square, "0", classifier="0")
    torch.testing.assert_close(square[0].weight @ square[0].weight.T, simplex(6))


def test_the_optimizer_forgets_what_is_fixed():
    model = plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    convert(model, ["4"], frame="nearest", optimizer=optimizer)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == sum(
        p.numel() for p in model.parameters()
    )


SAVED = {
    "random": {},
    "classes": {"rank": "classes", "num_classes": 4, "frame": "nearest"},
    "nearest": {"frame": "nearest"},
    "frozen": {"kind": "frozen"},
    "frozen_scaled": {"kind": "frozen_scaled"},
    "orthogonal": {"kind": "orthogonal"},
    "hadamard": {"frame": "hadamard"},
    "implicit classes": {"rank": "classes", "num_classes": 4},
    "signed": {"frame": "signed_permutation"},
}
FULL, CLASSES = {"random", "nearest", "hadamard", "signed"}, {"classes", "implicit classes"}
HOLDS = {  # what a model converted so, with another seed, can take over: a simplex ETF stays one
    "plain": {*SAVED},
    "frozen": {*SAVED},
    "frozen_scaled": {*SAVED},
    "orthogonal": {*SAVED},
    "random": FULL,
    "nearest": FULL,
    "classes": CLASSES,
    "hadamard": set(),
    "implicit classes": set(),
    "signed": set(),
}


@pytest.mark.parametrize("into", HOLDS)
@pytest.mark.parametrize("saved", SAVED)
def test_a_state_gives_equal_outputs_or_an_error_never_another_matrix(saved, into):
    one = converted(0, **SAVED[saved])
    state = through_a_file(one.state_dict())
    assert sorted(state) == sorted(plain().state_dict())
    other = plain(1) if into == "plain" else converted(1, **SAVED[into])
    if saved not in HOLDS[into]:
        with pytest.raises(
            RuntimeError, match=r"0\.weight is not the matrix of the fixed layer '0': the layer .*onvert"
        ):
            other.load_state_dict(state, strict=True)
        return
    other.load_state_dict(state, strict=True)
    torch.testing.assert_close(other(X), one(X))
    for name, layer in fixed_layers(other).items():
        assert torch.equal(layer.weight, state[f"{name}.weight"])


def test_a_learnt_matrix_is_not_taken_for_an_etf():
    for settings in ({}, {"rank": "classes", "num_classes": 4, "frame": "nearest"}):
        with pytest.raises(
            RuntimeError, match=r"holds a simplex ETF, and the state another matrix\. Load the state first"
        ):
            converted(**settings).load_state_dict(plain().state_dict())


@pytest.mark.parametrize("saved", SAVED)
def test_a_state_loads_into_the_same_conversion(saved):
    one, other = (converted(0, **SAVED[saved]) for _ in range(2))
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1)
    other.load_state_dict(through_a_file(one.state_dict()), strict=True)
    torch.testing.assert_close(other(X), one(X))
    assert not any(layer.loaded for layer in fixed_layers(other).values())


def test_a_loaded_frame_is_kept_by_our_checkpoints_too():
    one, other = converted(0), converted(1)
    other.load_state_dict(one.state_dict())
    assert "weight=loaded" in repr(other[2])
    assert other[2].scale == pytest.approx(one[2].scale)
    again = plain(2)
    for name, packed in through_a_file({n: pack(layer) for n, layer in fixed_layers(other).items()}).items():
        again[int(name)] = unpack(again[int(name)], packed)
    assert torch.equal(again[2].weight, one[2].weight)
    assert again[2].loaded


def test_a_state_from_another_shape_or_without_the_weight_is_refused():
    for frame in ("random", "hadamard"):
        model = converted(names=["2"], frame=frame)
        state = model.state_dict()
        with pytest.raises(RuntimeError, match=r"size mismatch for 2\.weight"):
            model.load_state_dict({**state, "2.weight": torch.zeros(3, 3)})
        with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "2\.weight"'):
            model.load_state_dict(state_without_fixed(model))
        assert model.load_state_dict(state_without_fixed(model), strict=False).missing_keys == ["2.weight"]


def test_a_state_survives_half_precision():
    for frame in ("random", "hadamard"):
        one, other = (converted(0, frame=frame, names=["2", "4"]) for _ in range(2))
        state = {name: t.bfloat16() for name, t in one.state_dict().items()}
        other.load_state_dict(state)
        torch.testing.assert_close(other(X), one(X), atol=0.05, rtol=0.05)


def test_a_state_of_double_precision_is_recognised():
    for settings in ({}, {"rank": "classes", "num_classes": 4, "frame": "nearest"}):
        one, other = (nn.Sequential(nn.Linear(300, 300)).double() for _ in range(2))
        for seed, model in enumerate((one, other)):
            convert(model, ["0"], seed=seed, **settings)
        other.load_state_dict(one.state_dict())
        assert other[0].loaded
        assert other[0].scale == pytest.approx(one[0].scale)


def test_a_state_can_be_assigned_to_a_model_on_meta():
    one = converted(0)
    with torch.device("meta"):
        other = converted(1)
    other.load_state_dict(one.state_dict(), assign=True)
    assert torch.equal(other(X), one(X))
    with torch.device("meta"):
        other = converted(1, frame="hadamard")
    with pytest.raises(RuntimeError, match="it is on device meta"):
        other.load_state_dict(converted(1, frame="hadamard").state_dict(), assign=True)


def test_our_checkpoints_stay_as_small_as_the_recipe():
    model = converted(frame="hadamard")
    assert sorted(state_without_fixed(model)) == ["0.bias", "2.bias", "4.bias"]
    assert "0.weight" in model.state_dict()  # and only in there


def test_copies_are_their_own():
    model = converted()
    twin = copy.deepcopy(model)
    twin.load_state_dict(converted(1).state_dict())
    assert not torch.equal(twin[2].weight, model[2].weight)
    assert not model[2].loaded


def test_frozen_layers_keep_the_weight_as_it_stands():
    model = plain()
    weight = model[2].weight.detach().clone()
    convert(model, ["2"], kind="frozen")
    assert isinstance(model[2], FrozenLinear)
    assert torch.equal(model[2].weight, weight)


def test_seedless_weights_differ_too():
    assert not torch.equal(etf_weight(4, 4, Recipe())[0], etf_weight(4, 4, Recipe())[0])


def test_hooks_stay_with_the_layer():
    model, seen = plain(), []
    handle = model[2].register_forward_hook(lambda module, args, out: seen.append(type(module)))
    model[2].register_forward_pre_hook(lambda module, args, kwargs: seen.append("before"), with_kwargs=True)
    model[2].register_full_backward_hook(lambda module, *gradients: seen.append("backward"))
    convert(model, ["2"])
    model(X).sum().backward()
    assert seen == ["before", ETFLinear, "backward"]
    handle.remove()
    model(X)
    assert seen[3:] == ["before"]


def test_a_pickled_model_is_the_same():
    for frame in ("random", "hadamard"):
        model = converted(frame=frame)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        assert torch.equal(torch.load(buffer, weights_only=False)(X), model(X))


class Headed(nn.Module):
    """A model that has a fixed layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(12, 8)
        self.head = ETFLinear(8, 4)
        self.fast = ImplicitETFLinear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.fast(self.body(x)))


def test_a_layer_that_a_model_constructs_is_in_our_checkpoints():
    torch.manual_seed(0)
    model = Headed()
    fixed = {name: pack(layer) for name, layer in fixed_layers(model).items()}
    state = through_a_file({"fixed": fixed, "model": state_without_fixed(model)})
    assert not any("weight" in packed for packed in state["fixed"].values())
    assert sorted(state["model"]) == ["body.bias", "body.weight", "fast.bias", "head.bias"]
    other = Headed()
    assert not torch.allclose(other(X), model(X))
    restore_model(state, other)
    assert torch.equal(other(X), model(X))
    assert [type(layer) for layer in fixed_layers(other).values()] == [ETFLinear, ImplicitETFLinear]


def test_the_examples_in_the_docstrings_run():
    results = [doctest.testmod(importlib.import_module(f"nclab.etf.{name}")) for name in MODULES]
    assert sum(r.failed for r in results) == 0
    assert sum(r.attempted for r in results) > 20


def test_a_generator_is_no_seed_of_convert():
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        convert(nn.Sequential(nn.Linear(8, 3)), ["0"], seed=torch.Generator())
