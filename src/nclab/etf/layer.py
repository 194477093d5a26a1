"""Linear layers whose weight is fixed: ETFLinear, ImplicitETFLinear and FrozenLinear, the controls."""

from contextvars import ContextVar
from copy import deepcopy
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from nclab.etf.frame import simplex_etf
from nclab.etf.recipe import (
    Recipe,
    etf_scale,
    etf_weight,
    frame_generator,
    is_tall,
    orthogonal_weight,
    require_fit,
    scaled_weight,
    unit_scale,
    vertices,
)
from nclab.etf.structured import STRUCTURED, StructuredETF, ThinETF

RECIPES_ONLY = ContextVar("RECIPES_ONLY", default=False)  # state dicts without fixed weights, see `nclab.etf.state`

HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_is_full_backward_hook",
)


class FixedLinear(nn.Module):
    """y = x W^T + b with W fixed: no gradient, no optimizer state, no weight decay. Where it replaces a layer, the bias
    is the learnable one of that layer, the same Parameter; a bias that is a plain tensor is fixed too, a buffer.

    x (..., d_in) -> y (..., d_out). `weight` is W (d_out, d_in). The state dict has the keys of nn.Linear, W included,
    so that it loads into a plain model and into a converted one. A state with another W is taken over where the layer
    can hold it, and refused with an error where it cannot.
    """

    weight: Tensor
    loaded = False  # W came from a state dict, and the recipe does not make it

    def __init__(self, d_out: int, d_in: int, bias: Tensor | None, recipe: Recipe, scale: float):
        super().__init__()
        self.out_features, self.in_features = d_out, d_in
        if bias is None or isinstance(bias, nn.Parameter):
            self.bias = bias
        else:
            self.register_buffer("bias", bias)
        self.recipe = recipe
        self.scale = scale

    def extra_repr(self) -> str:
        r = self.recipe
        text = f"{self.in_features}, {self.out_features}, frame={r.frame}, rank={r.rank}, scale={self.scale:.4g}"
        return f"{text}, weight=loaded" if self.loaded else text

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        key = f"{prefix}weight"
        if RECIPES_ONLY.get():
            destination.pop(key, None)
        elif key not in destination:
            destination[key] = self.weight

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        key = f"{prefix}weight"
        weight = state_dict.get(key)
        if weight is not None and not weight.is_meta and weight.shape == (self.out_features, self.in_features):
            refused = self._take(weight)
            if refused:
                error_msgs.append(f"{key} is not the matrix of the fixed layer '{prefix[:-1]}': {refused}")
                state_dict = {name: value for name, value in state_dict.items() if name != key}
        mine: list[str] = []
        rest = (local_metadata, strict, mine, unexpected_keys, error_msgs)
        super()._load_from_state_dict(self._own_state(state_dict, prefix, error_msgs), prefix, *rest)
        absent = weight is None and not RECIPES_ONLY.get()
        missing_keys += [name for name in mine if name != key] + [key] * absent

    def _take(self, weight: Tensor) -> str | None:
        """Get ready for a weight (d_out, d_in) from a state dict; returns why it cannot be taken."""
        raise NotImplementedError

    def _own_state(self, state_dict: dict[str, Any], prefix: str, error_msgs: list[str]) -> dict[str, Any]:
        """The part of the state that are parameters and buffers of this module."""
        return state_dict


class DenseFixedLinear(FixedLinear):
    """W is a buffer."""

    def __init__(self, weight: Tensor, bias: Tensor | None, recipe: Recipe, scale: float = 1.0):
        super().__init__(*weight.shape, bias, recipe, scale)
        self.register_buffer("weight", weight)

    @classmethod
    def of(cls, weight: Tensor, bias: nn.Parameter | None, recipe: Recipe, scale: float = 1.0) -> Self:
        """The layer of a weight (d_out, d_in) that is at hand."""
        layer = cls.__new__(cls)
        DenseFixedLinear.__init__(layer, weight, bias, recipe, scale)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)

    def _take(self, weight: Tensor) -> str | None:
        if not self.weight.is_meta and torch.equal(self.weight, weight.to(self.weight)):
            return None
        scale = etf_scale(weight, self.recipe) if self.recipe.kind == "etf" else 1.0
        if scale is None:
            return (
                "the layer holds a simplex ETF, and the state another matrix. Load the state first and convert the "
                "model afterwards (frame='nearest', or kind='frozen' to fix the weight as it stands)"
            )
        self.scale, self.loaded = scale, True
        return None


class ETFLinear(DenseFixedLinear):
    """A linear layer fixed to a simplex ETF (arXiv 2412.00884; the classifier alone: Zhu et al. 2021).

    Args:
        in_features, out_features: d_in and d_out.
        bias: whether a bias is learnt, initialised as that of nn.Linear.
        frame: `random` (Haar) or a structured frame, see `nclab.etf.simplex_etf`.
        seed: of the frame. None: torch's global generator gives one, as for the weight of nn.Linear; a Generator gives
            the next one. The layer keeps it in `recipe.seed`.
        scale: factor on the weight; None: `nclab.etf.recipe.unit_scale`.
        rank: `full`, `rows` or `classes` (with num_classes), see `nclab.etf.etf_weight`.
        device, dtype: of weight and bias.

    Raises ValueError where the frame does not fit. At rank full and d_out < d_in the rows are the simplex, as those of
    a classifier at collapse.

    >>> head = ETFLinear(512, 10, seed=0)
    >>> head.weight.shape, [name for name, _ in head.named_parameters()]
    (torch.Size([10, 512]), ['bias'])
    >>> round(float(head.weight[0] @ head.weight[1]), 6)  # -1/9
    -0.111111
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        frame: str = "random",
        seed: int | Generator | None = None,
        scale: float | None = None,
        rank: str = "full",
        num_classes: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        recipe = _recipe(bias, frame, seed, scale, rank, num_classes)
        like = _like(device, dtype)
        weight, scale = etf_weight(out_features, in_features, recipe)
        super().__init__(weight.to(like), _bias(out_features, in_features, like) if bias else None, recipe, scale)


class FrozenLinear(DenseFixedLinear):
    """A control of an ETF claim: the layer frozen as it stood, at initialisation or when a policy fires, or scaled to
    the norm of the ETF; or orthogonal vectors of that norm. See `kind` of `nclab.etf.recipe.Recipe`.
    """


class ImplicitETFLinear(FixedLinear):
    """The layer of `ETFLinear`, same arguments, for the recipes that are `implicit` (structured frames; rank classes):
    applied factor by factor, W never stored.

    Forward and backward keep no activation. `weight` is made anew, in float64 and then rounded, whenever it is read; a
    state dict holds it too, and only a state with the same matrix can be loaded.
    Raises ValueError where the frame does not fit, and for a recipe that needs a stored W.

    >>> layer = ImplicitETFLinear(512, 512, frame="hadamard", seed=0)
    >>> layer(torch.ones(3, 512)).shape
    torch.Size([3, 512])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        frame: str = "hadamard",
        seed: int | Generator | None = None,
        scale: float | None = None,
        rank: str = "full",
        num_classes: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        recipe = _recipe(bias, frame, seed, scale, rank, num_classes)
        like = _like(device, dtype)
        self._build(out_features, in_features, recipe)
        self.to(like)
        self.bias = _bias(out_features, in_features, like) if bias else None

    @classmethod
    def of(cls, like: Tensor, bias: nn.Parameter | None, recipe: Recipe) -> Self:
        """The layer in the place of one with weight `like` (d_out, d_in): its shape, device and dtype."""
        layer = cls.__new__(cls)
        layer._build(*like.shape, recipe)
        layer.to(like)
        layer.bias = bias
        return layer

    def _build(self, d_out: int, d_in: int, recipe: Recipe) -> None:
        if not recipe.implicit:
            valid = f"{', '.join(STRUCTURED)}, or random with rank classes"
            raise ValueError(f"frame '{recipe.frame}' at rank {recipe.rank} needs a stored weight; valid here: {valid}")
        require_fit(d_out, d_in, recipe)
        scale = unit_scale(d_out, d_in, recipe) if recipe.scale is None else recipe.scale
        super().__init__(d_out, d_in, None, recipe, scale)
        generator = frame_generator(recipe)
        with torch.device("cpu"):
            self.etfs = nn.ModuleList(_maps(k, d, recipe.frame, generator) for k, d in vertices(d_out, d_in, recipe))
            like = torch.empty(0, dtype=torch.float64)
        self.register_buffer("like", like, persistent=False)  # dtype and device of W

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.in_features:  # canonical and block frames would take a wider input for theirs
            raise ValueError(f"expected input (..., {self.in_features}), got {tuple(x.shape)}")
        return self._apply_weight(x, self.bias)

    def _apply_weight(self, x: Tensor, bias: Tensor | None) -> Tensor:
        first, *second = self.etfs
        if second:
            return first(second[0].adjoint(x), bias, self.scale)
        tall = is_tall(self.out_features, self.in_features, self.recipe)
        return (first if tall else first.adjoint)(x, bias, self.scale)

    @property
    def weight(self) -> Tensor:
        identity = torch.eye(self.in_features, dtype=torch.float64, device=self.like.device)
        with torch.no_grad():
            return deepcopy(self).double()._apply_weight(identity, None).T.to(self.like.dtype)

    def _take(self, weight: Tensor) -> str | None:
        own = self.weight
        if own.is_meta:
            return "the layer has no numbers yet: it is on device meta"
        tolerance = 4 * max(torch.finfo(t.dtype).eps for t in (own, weight)) * float(own.abs().max())
        if float((own - weight.to(own)).abs().max()) <= tolerance:  # made in float64: equal up to the last rounding
            return None
        r = self.recipe
        return (
            f"the layer applies frame '{r.frame}' of seed {r.seed} without a stored matrix and cannot hold another. "
            "Convert the model with the frame and the seed of the saved one, or with frame='random', which stores it"
        )

    def _own_state(self, state_dict: dict[str, Any], prefix: str, error_msgs: list[str]) -> dict[str, Any]:
        key, expected = f"{prefix}weight", (self.out_features, self.in_features)
        if key in state_dict and state_dict[key].shape != expected:
            came = tuple(state_dict[key].shape)
            error_msgs.append(f"size mismatch for {key}: the state has {came}, the layer expects {expected}")
        return {name: value for name, value in state_dict.items() if name != key}


def _maps(num_vertices: int, dim: int, frame: str, generator: Generator) -> nn.Module:
    if frame in STRUCTURED:
        return StructuredETF(num_vertices, dim, frame, generator)
    return ThinETF(simplex_etf(num_vertices, dim, frame, generator))


def _recipe(
    bias: bool, frame: str, seed: int | Generator | None, scale: float | None, rank: str, num_classes: int
) -> Recipe:
    if frame == "nearest":
        raise ValueError("frame 'nearest' follows the weight of an existing layer: use nclab.etf.fix or convert")
    generator = seed if isinstance(seed, Generator) else None
    recipe = Recipe("etf", frame, rank, scale, None if generator else seed, num_classes, bias)
    return recipe.with_seed(generator)


def _like(device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    """An empty tensor of the device and dtype, by default those of torch."""
    return torch.empty(0, device=device, dtype=dtype)


def _bias(d_out: int, d_in: int, like: Tensor) -> nn.Parameter:
    """(d_out,), as nn.Linear initialises it."""
    bound = d_in**-0.5
    return nn.Parameter(torch.empty(d_out, device=like.device, dtype=like.dtype).uniform_(-bound, bound))


def fix(linear: nn.Linear, recipe: Recipe, dense: bool = False) -> FixedLinear:
    """The fixed layer that takes the place of `linear`.

    Args:
        linear: gives shape, device, dtype, hooks and the bias Parameter; for frame nearest and kinds frozen and
            frozen_scaled also the weight.
        recipe: how the weight is made. Without a seed every call draws another frame from torch's global generator.
        dense: store the weight also where the recipe is implicit.

    Returns: FrozenLinear, ImplicitETFLinear or ETFLinear; its `recipe` names the seed that was drawn.
    Raises ValueError where the frame does not fit.

    >>> a, b = (fix(nn.Linear(64, 64), Recipe()) for _ in range(2))
    >>> torch.equal(a.weight, b.weight)
    False
    >>> torch.equal(fix(nn.Linear(64, 64), a.recipe).weight, a.weight)
    True
    """
    recipe = recipe.with_seed()
    bias = linear.bias if recipe.bias else None
    if recipe.kind == "frozen":
        fixed = FrozenLinear.of(linear.weight.detach().clone(), bias, recipe)
    elif recipe.kind != "etf":
        make = scaled_weight if recipe.kind == "frozen_scaled" else orthogonal_weight
        weight, scale = make(linear.out_features, linear.in_features, recipe, linear.weight)
        fixed = FrozenLinear.of(weight.to(linear.weight), bias, recipe, scale)
    elif recipe.implicit and not dense:
        fixed = ImplicitETFLinear.of(linear.weight, bias, recipe)
    else:
        weight, scale = etf_weight(linear.out_features, linear.in_features, recipe, linear.weight)
        fixed = ETFLinear.of(weight.to(linear.weight), bias, recipe, scale)
    return in_place_of(linear, fixed)


def in_place_of(linear: nn.Module, fixed: FixedLinear) -> FixedLinear:
    """The fixed layer with the hooks and the training mode of the layer whose place it takes."""
    for hooks in HOOKS:  # the same dictionaries, so that their handles still remove them
        setattr(fixed, hooks, getattr(linear, hooks))
    return fixed.train(linear.training)


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the submodule of this name is."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
