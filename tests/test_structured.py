"""Structured simplex ETFs: the map without a stored matrix against the matrix, forward, backward, stacked, compiled."""

import io
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional

from nclab.etf import FixedLinear, ImplicitETFLinear, Recipe, etf_weight, fix, simplex_etf
from nclab.etf.recipe import require_fit
from nclab.etf.state import load_without_fixed, pack, state_without_fixed, unpack
from nclab.etf.structured import STRUCTURED, Hadamard, StructuredETF, walsh_hartley

SIZES = [(2, 2), (2, 3), (7, 7), (13, 13), (17, 17), (12, 17), (5, 17), (3, 10), (10, 36), (16, 16), (5, 64), (20, 20)]
SHAPES = [(12, 12), (7, 7), (17, 17), (20, 9), (9, 20), (19, 16)]  # (d_out, d_in)
TYPES = [(shape, torch.float64, 1e-12) for shape in SHAPES] + [((9, 20), torch.float32, 1e-5)]
RANKS = ["full", "classes", "rows"]
RECIPES = [Recipe(frame=f, rank=r, num_classes=4, seed=5) for f in STRUCTURED for r in RANKS]
RECIPES.append(Recipe(rank="classes", num_classes=4, seed=5))
# Once a frame, each with another rank: for what does not depend on how frame, rank and shape meet.
FEW = [replace(RECIPES[0], frame=f, rank=r) for f, r in zip(STRUCTURED, [*RANKS, "full"], strict=True)] + RECIPES[-1:]


def name(recipe: Recipe) -> str:
    return f"{recipe.frame}-{recipe.rank}"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(recipe: Recipe, d_out: int, d_in: int, dtype: torch.dtype = torch.float64) -> FixedLinear:
    torch.manual_seed(1)
    return fix(nn.Linear(d_in, d_out, dtype=dtype), recipe)


def fits(recipe: Recipe, d_out: int, d_in: int) -> bool:
    return recipe.rank != "rows" or d_in >= d_out


@pytest.mark.fast
@pytest.mark.parametrize("frame", STRUCTURED)
def test_exact_simplex_etf_and_its_adjoint(frame):
    for k, d in SIZES:
        etf = simplex_etf(k, d, frame, generator())  # (d, K)
        gram = torch.full((k, k), -1 / (k - 1), dtype=torch.float64).fill_diagonal_(1)
        size = f"{k} vectors in dimension {d}: {{}}".format
        torch.testing.assert_close(etf.T @ etf, gram, atol=1e-12, rtol=0, msg=size)
        torch.testing.assert_close(etf.sum(1), torch.zeros(d, dtype=torch.float64), atol=1e-12, rtol=0, msg=size)
        adjoint = StructuredETF(k, d, frame, generator()).adjoint(torch.eye(d, dtype=torch.float64))  # (d, K)
        torch.testing.assert_close(adjoint, etf, atol=1e-12, rtol=0, msg=size)


def test_walsh_hartley_is_symmetric_orthogonal_and_flat():
    for n in (1, 2, 3, 8, 12, 25):
        matrix = walsh_hartley(n)
        torch.testing.assert_close(matrix @ matrix, torch.eye(n, dtype=torch.float64))
        torch.testing.assert_close(matrix, matrix.T)
        assert matrix.abs().max() <= (2 / n) ** 0.5 + 1e-12, n


@pytest.mark.parametrize(("d", "factors"), [(400, (20, 20)), (784, (28, 28)), (1024, (32, 32)), (401, (20, 20))])
def test_hadamard_spreads_every_vertex_and_leaves_no_unit_dead(d, factors):
    assert Hadamard(d, d).factors == factors
    etf = simplex_etf(d, d, "hadamard", generator())
    assert (etf.abs() > 1e-3 / d**0.5).sum(0).min() >= 0.75 * factors[0] * factors[1]
    assert etf.norm(dim=1).min() > 0.5  # rows too; without column signs one would be 0
    assert etf.abs().max() < 6 / d**0.5  # a Haar frame of this size has 5


def test_block_and_canonical_agree_where_the_width_stays():
    assert torch.equal(simplex_etf(9, 9, "block"), simplex_etf(9, 9, "canonical"))
    block = simplex_etf(3, 11, "block")
    assert block[9:].eq(0).all()  # 11 = 3 * 3 + 2
    assert torch.equal(block[0], block[2])


def test_signed_permutation_is_one():
    p = StructuredETF(8, 8, "signed_permutation", generator(2))
    etf = p(torch.eye(8, dtype=torch.float64)).T
    frame = etf * (7 / 8) ** 0.5  # P (I - 11^T/K): entries +-(1 - 1/8) at the permutation, +-1/8 elsewhere
    assert sorted(frame.abs().argmax(0).tolist()) == list(range(8))
    torch.testing.assert_close(frame.abs().max(0).values, torch.full((8,), 7 / 8, dtype=torch.float64))
    assert {-1.0, 1.0} == set(p.signs.tolist())


@pytest.mark.parametrize("frame", ["signed_permutation", "hadamard"])
def test_drawn_frames_follow_their_generator(frame):
    assert torch.equal(simplex_etf(5, 9, frame, generator(1)), simplex_etf(5, 9, frame, generator(1)))
    assert not torch.equal(simplex_etf(5, 9, frame, generator(1)), simplex_etf(5, 9, frame, generator(2)))


@pytest.mark.fast
@pytest.mark.parametrize("recipe", RECIPES, ids=name)
def test_forward_and_gradients_equal_those_of_the_matrix(recipe):
    for shape, dtype, atol in TYPES:
        check_forward_and_gradients(recipe, shape, dtype, atol)


def check_forward_and_gradients(recipe: Recipe, shape: tuple[int, int], dtype: torch.dtype, atol: float) -> None:
    if not fits(recipe, *shape):
        with pytest.raises(ValueError, match=r"form a simplex ETF in dimension|needs dimension >= 19"):
            require_fit(*shape, recipe)
        return
    implicit = layer(recipe, *shape, dtype)
    assert isinstance(implicit, ImplicitETFLinear)
    weight, scale = etf_weight(*shape, recipe)
    assert implicit.scale == scale
    assert implicit.weight.dtype == dtype
    torch.testing.assert_close(implicit.weight, weight.to(dtype), atol=atol, rtol=0)
    d_in = shape[1]
    g = generator(3)
    wide = torch.randn(d_in, 3, 2, dtype=dtype, generator=g)
    for x in (torch.randn(6, d_in, dtype=dtype, generator=g), wide.permute(2, 1, 0), wide[:, 0, 0], wide[:, :0, 0].T):
        x = x.detach().requires_grad_()
        y, expected = implicit(x), functional.linear(x, weight.to(dtype), implicit.bias)
        torch.testing.assert_close(y, expected, atol=atol, rtol=0)
        dy = torch.randn(y.shape, dtype=dtype, generator=g)
        for ours, theirs in zip(
            torch.autograd.grad(y, (x, implicit.bias), dy),
            torch.autograd.grad(expected, (x, implicit.bias), dy),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize(("recipe", "shape"), [*zip(FEW, [(6, 6), (4, 7), (4, 7), (7, 5), (7, 5)], strict=True)])
def test_derivatives_of_both_orders(recipe, shape):
    implicit = layer(recipe, *shape)
    x = torch.randn(2, 2, shape[1], dtype=torch.float64, requires_grad=True)

    def apply(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional_call(implicit, {"bias": bias}, x)

    assert torch.autograd.gradcheck(apply, (x, implicit.bias))
    assert torch.autograd.gradgradcheck(apply, (x, implicit.bias))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("recipe", FEW, ids=name)
def test_layers_of_several_seeds_run_as_one(recipe, shared):
    """vmap over stacked parameters and buffers, over a batch each or one batch for all."""
    layers = [layer(replace(recipe, seed=seed), 10, 12) for seed in range(3)]
    state = stack_module_state(layers)
    base = deepcopy(layers[0]).to("meta")
    x = torch.randn(*(() if shared else (3,)), 5, 12, dtype=torch.float64)

    def loss(state, x):
        return functional_call(base, state, (x,)).pow(3).sum()

    def gradient(x, state):
        return torch.func.grad(loss, argnums=1)(state, x)

    out = vmap(lambda state, x: functional_call(base, state, (x,)), in_dims=(0, None if shared else 0))(state, x)
    grads = vmap(gradient, in_dims=(None if shared else 0, 0))(x, state)
    for i, one in enumerate(layers):
        xi = (x if shared else x[i]).clone().requires_grad_()
        torch.testing.assert_close(out[i], one(xi))
        expected = torch.autograd.grad(one(xi).pow(3).sum(), xi)[0]
        torch.testing.assert_close(grads[i], expected)


@pytest.mark.parametrize("stacked", [("x",), ("state",), ("state", "x")], ids="+".join)
def test_hadamard_piece_by_piece_is_the_same(monkeypatch, stacked):
    layers = [layer(Recipe(frame="hadamard", seed=seed), 9, 9) for seed in range(2)]
    state = stack_module_state(layers) if "state" in stacked else dict(layers[0].named_buffers())
    x = torch.randn(*((2,) if "x" in stacked else ()), 11, 9, dtype=torch.float64)

    def run() -> torch.Tensor:
        axes = tuple(0 if key in stacked else None for key in ("state", "x"))
        return vmap(lambda state, x: functional_call(layers[0], state, (x,)), in_dims=axes)(state, x)

    whole = run()
    monkeypatch.setattr("nclab.etf.structured.PIECE", 40)  # 4 rows at a time
    torch.testing.assert_close(run(), whole)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.rank == "full"], ids=name)
def test_compiled_equals_eager(recipe):
    implicit = layer(recipe, 9, 9, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(implicit, backend="aot_eager", fullgraph=True)
    x = torch.randn(4, 9, requires_grad=True)
    y, expected = compiled(x), implicit(x)
    torch.testing.assert_close(y, expected)
    gradients = (torch.autograd.grad(out.square().sum(), (x, implicit.bias)) for out in (y, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("recipe", FEW, ids=name)
def test_a_checkpoint_holds_the_recipe_alone(recipe):
    implicit = layer(recipe, 10, 12, torch.float32)
    assert list(state_without_fixed(implicit)) == ["bias"]
    assert [n for n, _ in implicit.named_parameters()] == ["bias"]
    packed = pack(implicit)
    assert set(packed) == {"recipe", "scale"}
    buffer = io.BytesIO()
    torch.save(packed, buffer)
    buffer.seek(0)
    again = unpack(nn.Linear(12, 10), torch.load(buffer, weights_only=True))
    load_without_fixed(again, state_without_fixed(implicit))
    x = torch.randn(3, 12)
    assert torch.equal(again(x), implicit(x))
    assert torch.equal(again.weight, implicit.weight)
    assert type(again) is type(implicit)
    assert (again.recipe, again.scale, str(again)) == (implicit.recipe, implicit.scale, str(implicit))


@pytest.mark.parametrize("recipe", FEW, ids=name)
def test_copies_dtypes_and_no_bias(recipe):
    implicit = layer(replace(recipe, bias=False), 10, 12, torch.float32)
    assert not list(implicit.parameters())
    double = deepcopy(implicit).double()
    assert double.weight.dtype == torch.float64
    assert implicit.weight.dtype == torch.float32
    x = torch.randn(3, 12, dtype=torch.float64)
    torch.testing.assert_close(double(x), functional.linear(x, double.weight))
    torch.testing.assert_close(double(x).float(), implicit(x.float()))
    assert layer(recipe, 10, 12).to("meta").weight.shape == (10, 12)


@pytest.mark.parametrize("recipe", FEW, ids=name)
def test_autocast_gives_what_a_dense_map_gives(recipe):
    implicit = layer(recipe, 10, 12, torch.float32)
    x = torch.randn(8, 12, requires_grad=True)
    outputs = []
    for run in (implicit, lambda x: functional.linear(x, implicit.weight, implicit.bias)):
        with torch.autocast("cpu", torch.bfloat16):
            y = run(x)
        assert y.dtype == torch.bfloat16
        outputs.append((y, *torch.autograd.grad(y.float().square().sum(), (x, implicit.bias))))
    for ours, theirs in zip(*outputs, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, atol=0.02 * float(theirs.detach().abs().max()), rtol=0)


@pytest.mark.parametrize("recipe", FEW, ids=name)
def test_nothing_of_the_input_is_kept_for_backward(recipe):
    implicit = layer(recipe, 10, 12, torch.float32)
    saved = []
    x = torch.randn(50, 12, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = implicit(x)
    assert y.requires_grad
    assert all(50 not in t.shape for t in saved)


@pytest.mark.parametrize("frame", ["canonical", "hadamard"])  # the others have the same check
@pytest.mark.parametrize(
    ("shape", "rank", "message"),
    [
        ((10, 9), "rows", "needs dimension >= 10, got 9; 'random' fits"),
        ((4, 12), "classes", "5 vectors form a simplex ETF in dimension 4 or more|needs dimension >= 5, got 4"),
        ((1, 1), "full", "at least 2 vectors, got 1"),
    ],
)
def test_shapes_without_such_a_frame_are_refused(frame, shape, rank, message):
    with pytest.raises(ValueError, match=message):
        layer(Recipe(frame=frame, rank=rank, num_classes=5), *shape)
    with pytest.raises(ValueError, match="needs dimension >= 5, got 4; 'random' fits"):
        simplex_etf(5, 4, frame)


def test_inputs_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"expected input \(\.\.\., 12\), got \(3, 11\)"):
        layer(Recipe(frame="canonical"), 10, 12)(torch.zeros(3, 11, dtype=torch.float64))


def test_dense_recipes_stay_dense():
    for recipe in (Recipe(), Recipe(frame="nearest", rank="classes", num_classes=3), Recipe(kind="frozen")):
        assert "weight" in dict(layer(recipe, 6, 6).named_buffers())
