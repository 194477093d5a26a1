"""Fixed layers in a checkpoint of our own: their recipes instead of their weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from nclab.etf.layer import RECIPES_ONLY, ETFLinear, FixedLinear, FrozenLinear, fix, in_place_of
from nclab.etf.nearest_head import NearestETFHead
from nclab.etf.recipe import Recipe


def pack(layer: FixedLinear) -> dict[str, Any]:
    """What a checkpoint holds of a fixed layer: the recipe alone where it gives the weight (seeded frames), else the
    recipe and the weight itself, which was learnt up to the switch or came from a state dict. The other buffers of a
    NearestETFHead are in the state dict."""
    packed: dict[str, Any] = {"recipe": asdict(layer.recipe), "scale": layer.scale}
    if isinstance(layer, NearestETFHead):
        packed["nearest"] = layer.settings()
    if layer.loaded or not layer.recipe.seeded:
        packed["weight"] = layer.weight
    elif layer.recipe.implicit and isinstance(layer, ETFLinear):
        packed["dense"] = True
    return packed


def unpack(linear: nn.Linear | FixedLinear, packed: dict[str, Any]) -> FixedLinear:
    """The fixed layer of `pack`, in the place of `linear` of a freshly built model; exact to the bit."""
    recipe = Recipe(**packed["recipe"])
    if "weight" not in packed:
        return fix(linear, recipe, packed.get("dense", False))
    kind = ETFLinear if recipe.kind == "etf" else FrozenLinear
    weight = torch.as_tensor(packed["weight"]).to(linear.weight, copy=True)
    if "nearest" in packed:
        shape = linear.in_features, linear.out_features
        head = NearestETFHead(*shape, **packed["nearest"], device=weight.device, dtype=weight.dtype)
        head.weight.copy_(weight)
        return in_place_of(linear, head)
    layer = kind.of(weight, linear.bias if recipe.bias else None, recipe, packed["scale"])
    layer.loaded = recipe.seeded
    return in_place_of(linear, layer)


def fixed_layers(model: nn.Module) -> dict[str, FixedLinear]:
    """The fixed layers of a model by module path."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FixedLinear)}


def state_without_fixed(model: nn.Module) -> dict[str, Tensor]:
    """`model.state_dict()` without the weights of fixed layers, for a checkpoint that holds what `pack` gives.

    >>> from nclab.etf import convert
    >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    >>> switches = convert(model, ["1"])
    >>> list(state_without_fixed(model))
    ['0.weight', '0.bias', '1.bias']
    """
    with _recipes_only():
        return model.state_dict()


def load_without_fixed(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what `state_without_fixed` gave, strictly, into a model whose layers were restored by `unpack`."""
    with _recipes_only():
        model.load_state_dict(state)


@contextmanager
def _recipes_only() -> Iterator[None]:
    token = RECIPES_ONLY.set(True)
    try:
        yield
    finally:
        RECIPES_ONLY.reset(token)
