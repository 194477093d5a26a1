"""Linear layers of any model by their module path: found, and checked before they are replaced."""

import math
from difflib import get_close_matches

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from nclab.etf.layer import FixedLinear
from nclab.etf.recipe import Recipe, require_fit

# These hand `weight` and `bias` of the layers below to a fused kernel instead of calling the layers.
READERS = {
    nn.TransformerEncoderLayer: ("linear1", "linear2"),
    nn.MultiheadAttention: ("out_proj",),
}


def linear_names(module: nn.Module, name: str = "") -> list[str]:
    """Module paths of the linear layers in a module (itself included), fixed ones too; `name` is its own path."""
    prefix = f"{name}." if name else ""
    found = (child for child, m in module.named_modules() if isinstance(m, nn.Linear | FixedLinear))
    return [prefix + child if child else name for child in found]


def linear_at(model: nn.Module, name: str) -> nn.Linear:
    """The linear layer at a module path. Raises ValueError where there is none that can be replaced by a fixed one."""
    module = _module_at(model, name)
    kind = type(module).__name__
    if isinstance(module, FixedLinear):
        raise ValueError(f"layer '{name}' is already fixed ({module})")
    if not isinstance(module, nn.Linear):
        inside = linear_names(module, name)
        hint = f"; linear layers in it: {', '.join(inside[:10])}" if inside else ""
        raise ValueError(f"'{name}' is {kind}, expected nn.Linear{hint}")
    if isinstance(module.weight, UninitializedParameter):
        raise ValueError(f"layer '{name}' ({kind}) has no shape yet; run one batch through the model first")
    if not isinstance(module.weight, nn.Parameter):
        raise ValueError(f"the weight of '{name}' is computed (a parametrization); remove it first, then convert")
    own_forward = type(module).forward is not nn.Linear.forward or "forward" in vars(module)
    if own_forward or module.weight.shape != (module.out_features, module.in_features):
        raise ValueError(f"'{name}' is {kind} with a forward or a weight of its own, expected a plain nn.Linear")
    return module


def check_layer(model: nn.Module, name: str, recipe: Recipe) -> None:
    """Raise ValueError, naming the layer, where the recipe cannot fix it; changes nothing."""
    linear = linear_at(model, name)
    require_fit_at(name, linear, recipe)
    if recipe.frame == "nearest" and recipe.kind != "frozen" and not torch.isfinite(linear.weight).all():
        raise ValueError(f"layer '{name}': the ETF nearest to a weight with non-finite entries is undefined")
    if recipe.kind == "frozen_scaled" and not 0 < float(linear.weight.detach().norm()) < math.inf:
        raise ValueError(f"layer '{name}': expected a weight of finite norm above 0 to scale to that of the ETF")
    gone = {"weight": linear.weight} | ({} if recipe.bias or linear.bias is None else {"bias": linear.bias})
    for key, parameter in gone.items():
        named = model.named_parameters(remove_duplicate=False)
        shared = [other for other, p in named if p is parameter and other != f"{name}.{key}"]
        if shared:
            raise ValueError(
                f"'{name}.{key}' is tied to {', '.join(shared)}: fixing one would leave the other learnable. "
                "Untie them first (give the layer a Parameter of its own)"
            )
    if "bias" in gone and reads_weight(model, name):
        parent = type(model.get_submodule(name.rpartition(".")[0])).__name__
        raise ValueError(f"{parent} reads the bias of '{name}' in its fused kernel; keep it (bias=True)")


def require_fit_at(name: str, linear: nn.Linear, recipe: Recipe) -> None:
    """Raise ValueError, naming the layer, where the frame does not fit its shape."""
    if recipe.kind == "frozen":
        return
    try:
        require_fit(linear.out_features, linear.in_features, recipe)
    except ValueError as error:
        shape = f"{linear.in_features} -> {linear.out_features}"
        raise ValueError(f"etf does not fit layer '{name}' ({shape}): {error}") from None


def reads_weight(model: nn.Module, name: str) -> bool:
    """Whether the parent module reads the weight of this layer instead of calling it, so that it must be stored."""
    parent, _, last = name.rpartition(".")
    return any(isinstance(model.get_submodule(parent), kind) and last in names for kind, names in READERS.items())


def _module_at(model: nn.Module, name: str) -> nn.Module:
    if not name:
        raise ValueError("expected the module path of a linear layer in the model, got ''; for a lone layer use fix")
    try:
        return model.get_submodule(name)
    except AttributeError:
        pass
    if name in dict(model.named_parameters(remove_duplicate=False)):
        raise ValueError(f"'{name}' is a parameter, expected the module path of an nn.Linear")
    names = linear_names(model)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"; close matches: {', '.join(close)}" if close else f"; linear layers: {', '.join(names[:10]) or 'none'}"
    raise ValueError(f"the model has no module '{name}'{hint}{' ...' if not close and len(names) > 10 else ''}")
