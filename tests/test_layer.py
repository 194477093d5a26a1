"""Fixed linear layers: their weight, what learns, and what a checkpoint holds of them."""

import pytest
import torch
from torch import nn

from nclab.etf import ETFLinear, FrozenLinear, Recipe, etf_weight, fix
from nclab.etf.frame import FRAMES
from nclab.etf.state import pack, state_without_fixed, unpack


def singular_values(weight: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(weight.double())


@pytest.mark.parametrize(("d_in", "d_out"), [(12, 12), (20, 8), (8, 20)])
@pytest.mark.parametrize("frame", FRAMES)
def test_full_rank_map_keeps_lengths_but_one_direction(d_in, d_out, frame):
    current = torch.randn(d_out, d_in)
    weight, scale = etf_weight(d_out, d_in, Recipe(frame=frame), current)
    k = min(d_in, d_out)
    assert weight.shape == (d_out, d_in)
    expected = torch.full((k,), scale * (k / (k - 1)) ** 0.5, dtype=torch.float64)
    expected[-1] = 0
    torch.testing.assert_close(singular_values(weight), expected, atol=1e-7, rtol=1e-9)


@pytest.mark.parametrize("frame", FRAMES)
def test_classes_rank_map_has_rank_c_minus_one(frame):
    weight, _ = etf_weight(20, 15, Recipe(frame=frame, rank="classes", num_classes=4), torch.randn(20, 15))
    assert int((singular_values(weight) > 1e-9).sum()) == 3


@pytest.mark.fast
def test_classifier_rows_are_a_simplex_etf():
    for d_in in (50, 10, 9):  # down to C - 1
        for frame in ("random", "nearest"):
            weight, scale = etf_weight(10, d_in, Recipe(frame=frame, rank="rows"), torch.randn(10, d_in))
            gram = weight @ weight.T / scale**2
            torch.testing.assert_close(gram, torch.full_like(gram, -1 / 9).fill_diagonal_(1))


@pytest.mark.fast
def test_scale_multiplies():
    one, _ = etf_weight(6, 6, Recipe(seed=0))
    two, scale = etf_weight(6, 6, Recipe(seed=0, scale=2.0))
    torch.testing.assert_close(two, 2 * one)
    assert scale == 2.0


@pytest.mark.fast
def test_weight_is_a_buffer_that_our_checkpoints_leave_out():
    linear = nn.Linear(8, 8)
    fixed = fix(linear, Recipe())
    assert isinstance(fixed, ETFLinear)
    assert [name for name, _ in fixed.named_parameters()] == ["bias"]
    assert fixed.bias is linear.bias
    assert sorted(fixed.state_dict()) == sorted(linear.state_dict())
    assert list(state_without_fixed(fixed)) == ["bias"]
    x = torch.randn(3, 8)
    torch.testing.assert_close(fixed(x), x @ fixed.weight.T + fixed.bias)


def test_bias_can_be_dropped():
    fixed = fix(nn.Linear(8, 8), Recipe(bias=False))
    assert not list(fixed.parameters())


@pytest.mark.fast
def test_frozen_keeps_the_weight_it_stood_at():
    linear = nn.Linear(5, 4)
    fixed = fix(linear, Recipe(kind="frozen"))
    assert isinstance(fixed, FrozenLinear)
    assert torch.equal(fixed.weight, linear.weight)
    with torch.no_grad():
        linear.weight.add_(1)
    assert not torch.equal(fixed.weight, linear.weight)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(seed=3),
        Recipe(frame="canonical"),
        Recipe(frame="hadamard"),
        Recipe(frame="nearest"),
        Recipe(kind="frozen"),
        Recipe(rank="classes", num_classes=3, scale=0.5),
        Recipe(frame="nearest", rank="classes", num_classes=3, bias=False),
    ],
)
def test_pack_and_unpack_are_exact(recipe):
    linear = nn.Linear(9, 7)
    fixed = fix(linear, recipe)
    packed = pack(fixed)
    assert ("weight" in packed) == (recipe.frame == "nearest" or recipe.kind == "frozen")
    again = unpack(nn.Linear(9, 7), packed)
    assert type(again) is type(fixed)
    assert torch.equal(again.weight, fixed.weight)
    assert (again.scale, again.recipe) == (fixed.scale, fixed.recipe)
    assert (again.bias is None) == (fixed.bias is None)


@pytest.mark.fast
def test_gradient_passes_through_but_not_into_the_weight():
    fixed = fix(nn.Linear(6, 6).double(), Recipe())
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fixed, x)
    assert not fixed.weight.requires_grad


@pytest.mark.parametrize(("key", "value"), [("kind", "etff"), ("frame", "orthogonal"), ("rank", "low")])
def test_unknown_choices_are_named(key, value):
    with pytest.raises(ValueError, match=rf"unknown {key} '{value}'; (did you mean etf\? )?valid: "):
        Recipe(**{key: value})


def test_nearest_needs_a_weight():
    with pytest.raises(ValueError, match="needs the current weight"):
        etf_weight(4, 4, Recipe(frame="nearest"))
