"""The controls of an ETF differ from it in one thing: the same layers, the same norm, other directions."""

import pytest
import torch
from torch import nn

from nclab.etf import FrozenLinear, Recipe, convert, etf_weight, fix
from nclab.etf.policies.last_k import LastKSettings
from nclab.etf.policies.transformer_ffn import TransformerFFNSettings
from nclab.etf.policy import POLICIES
from nclab.etf.recipe import orthogonal_weight, scaled_weight
from nclab.etf.state import pack, unpack
from nclab.models import MODELS

SHAPES = {"square": (12, 12), "wide": (8, 20), "tall": (20, 8), "classifier": (4, 12)}  # (d_out, d_in)
CONTROLS = {"frozen_scaled": scaled_weight, "orthogonal": orthogonal_weight}


def current(d_out: int, d_in: int) -> torch.Tensor:
    return torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(d_out), dtype=torch.float64)


@pytest.mark.parametrize("kind", CONTROLS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [None, 3.0])
@pytest.mark.parametrize(("frame", "rank"), [("random", "full"), ("nearest", "full"), ("random", "classes")])
def test_a_control_has_the_norm_of_its_etf(kind, shape, scale, frame, rank):
    rank = "rows" if shape == "classifier" else rank
    keys = {"frame": frame, "rank": rank, "scale": scale, "seed": 1, "num_classes": 4}
    d_out, d_in = SHAPES[shape]
    w = current(d_out, d_in)
    etf, _ = etf_weight(d_out, d_in, Recipe("etf", **keys), w)
    weight, factor = CONTROLS[kind](d_out, d_in, Recipe(kind, **keys), w)
    assert float(weight.norm()) == pytest.approx(float(etf.norm()), rel=1e-12)
    before = w if kind == "frozen_scaled" else weight / factor
    torch.testing.assert_close(weight, factor * before)
    if frame == "random" and scale is None:  # the paper's claim is about rows of length 1
        assert float(weight.square().sum(1).mean()) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frame", ["random", "nearest"])
def test_orthogonal_vectors_lack_the_simplex_alone(shape, frame):
    """All singular values are equal, those of an ETF but one; the nearest frame is the polar factor."""
    d_out, d_in = SHAPES[shape]
    w = current(d_out, d_in)
    rank = "rows" if shape == "classifier" else "full"
    weight, factor = orthogonal_weight(d_out, d_in, Recipe("orthogonal", frame, rank, seed=0), w)
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(values, torch.full_like(values, factor))
    if frame == "nearest":  # <P, A> is at its largest, the nuclear norm of A
        assert float((weight / factor * w).sum()) == pytest.approx(float(torch.linalg.svdvals(w).sum()))


def test_orthogonal_at_rank_classes_is_a_partial_isometry():
    keys = {"rank": "classes", "num_classes": 4, "seed": 0}
    for frame in ("random", "nearest"):
        weight, factor = orthogonal_weight(20, 15, Recipe("orthogonal", frame, **keys), current(20, 15))
        expected = torch.zeros(15, dtype=torch.float64)
        expected[:4] = factor
        torch.testing.assert_close(torch.linalg.svdvals(weight), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", CONTROLS)
@pytest.mark.parametrize("frame", ["random", "nearest"])
def test_a_control_is_packed_and_unpacked_to_the_bit(kind, frame):
    layer = fix(nn.Linear(12, 6), Recipe(kind, frame, seed=3))
    assert isinstance(layer, FrozenLinear)
    again = unpack(nn.Linear(12, 6), torch.load(_saved(pack(layer)), weights_only=True))
    assert torch.equal(again.weight, layer.weight)
    assert (again.recipe, again.scale) == (layer.recipe, layer.scale)
    assert ("weight" in pack(layer)) == (kind == "frozen_scaled" or frame == "nearest")


def _saved(state):
    from io import BytesIO

    file = BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_policy_fixes_the_layers_of_the_etf_at_their_scale(kind):
    """The one thing that differs: rows of an MLP's classifier, and feed-forward layers of a ViT (0.58, 0.63, 1.26 as
    PyTorch initialises them)."""
    for model, policy in (
        ("mlp", LastKSettings(name="last_k", k=2)),
        ("vit", TransformerFFNSettings(name="transformer_ffn")),
    ):
        settings = {"mlp": {"depth": 4, "width": 24}, "vit": {"width": 16, "heads": 2, "blocks": 1, "patch": 4}}[model]
        norms = []
        for of_kind in ("etf", kind):
            torch.manual_seed(0)
            net = MODELS[model].build(MODELS[model].settings(name=model, **settings), (1, 8, 8), 10)
            made = type(policy)(**{**vars(policy), "kind": of_kind})
            switches = POLICIES[policy.name].build(made).setup(net, 0)
            weights = {s.layer: net.get_submodule(s.layer).weight for s in switches}
            norms.append({layer: round(float(w.norm()), 4) for layer, w in weights.items()})
        assert norms[0] == norms[1]
        assert len(norms[0]) == 2


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (
            "orthogonal",
            (10, 9),
            "etf does not fit layer '0' (9 -> 10): 10 orthogonal vectors need dimension 10",
        ),
        ("frozen_scaled", (11, 9), "11 vectors form a simplex ETF in dimension 10 or more"),
    ],
)
def test_a_control_that_its_etf_has_not_or_that_does_not_fit_is_refused(kind, shape, message):
    model = nn.Sequential(nn.Linear(shape[1], shape[0]))
    with pytest.raises(ValueError) as refused:  # noqa: PT011 the message holds brackets
        convert(model, ["0"], kind=kind, classifier="0")
    assert message in str(refused.value)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_weight_without_a_norm_cannot_be_scaled(value):
    model = nn.Sequential(nn.Linear(6, 4))
    nn.init.constant_(model[0].weight, value)
    with pytest.raises(ValueError, match="layer '0': expected a weight of finite norm above 0"):
        convert(model, ["0"], kind="frozen_scaled")
    with pytest.raises(ValueError, match="expected a weight of finite norm above 0, got norm"):
        scaled_weight(4, 6, Recipe("frozen_scaled"), model[0].weight)
