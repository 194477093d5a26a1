"""Linear maps whose weight is fixed: ETFLinear, ImplicitETFLinear, the control FrozenLinear, and their recipe."""

import math
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from nclab.etf.frame import FRAMES, nearest_etf, nearest_etf_product, require_simplex, simplex_etf
from nclab.etf.structured import STRUCTURED, StructuredETF, ThinETF

KINDS = ("etf", "frozen")
RANKS = ("full", "classes")  # of a hidden map
ROWS = "rows"  # of a classifier


@dataclass(frozen=True)
class Recipe:
    """All that is needed to make a fixed weight again.

    kind: `etf`, or `frozen` (the control: the weight as it stood). frame and rank: see `etf_weight`. scale: factor
    on the weight; None = least-squares scale for frame nearest, `unit_scale` otherwise. seed: of the random frame.
    """

    kind: str = "etf"
    frame: str = "random"
    rank: str = "full"
    scale: float | None = None
    seed: int = 0
    num_classes: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("kind", self.kind, KINDS),
            ("frame", self.frame, FRAMES),
            ("rank", self.rank, (*RANKS, ROWS)),
        ):
            if value not in valid:
                raise ValueError(f"unknown {name} '{value}'; valid: {', '.join(valid)}")

    @property
    def seeded(self) -> bool:
        """True where seed and shape alone give the weight; else the weight depends on what was learnt."""
        return self.kind == "etf" and self.frame != "nearest"

    @property
    def implicit(self) -> bool:
        """True where the map is applied without its weight (d_out, d_in): structured frames, and the product of two
        random thin ETFs."""
        thin = self.frame == "random" and self.rank == "classes"
        return self.kind == "etf" and (self.frame in STRUCTURED or thin)


def _vertices(d_out: int, d_in: int, recipe: Recipe) -> list[tuple[int, int]]:
    """(K, d) of each simplex ETF that the weight is made of."""
    if recipe.rank == "classes":
        return [(recipe.num_classes, d_out), (recipe.num_classes, d_in)]
    if recipe.rank == ROWS:
        return [(d_out, d_in)]
    return [(min(d_in, d_out), max(d_in, d_out))]


def _tall(d_out: int, d_in: int, recipe: Recipe) -> bool:
    """True where the columns of the weight are the vertices, False where its rows are."""
    return d_out >= d_in and recipe.rank != ROWS


def require_fit(d_out: int, d_in: int, recipe: Recipe) -> None:
    """Raise ValueError unless the recipe gives a weight (d_out, d_in); builds nothing."""
    for vertices, dim in _vertices(d_out, d_in, recipe):
        require_simplex(vertices, dim, recipe.frame)


def unit_scale(d_out: int, d_in: int, recipe: Recipe) -> float:
    """The factor that makes the mean square of a row of a hidden map's weight 1, so that its outputs have the variance
    of its inputs: sqrt(max(1, d_out / d_in)) at rank full, sqrt(d_out (C-1)) / C at rank classes.

    At factor 1 a map that widens, as the first of a feed-forward part, would shrink its outputs to where GELU is almost
    linear. A classifier's rows have length 1 as they are: 1.
    """
    if recipe.rank == "classes":
        return math.sqrt(d_out * (recipe.num_classes - 1)) / recipe.num_classes
    return 1.0 if recipe.rank == ROWS else math.sqrt(max(1, d_out / d_in))


def etf_weight(d_out: int, d_in: int, recipe: Recipe, current: Tensor | None = None) -> tuple[Tensor, float]:
    """Fixed weight (d_out, d_in), float64, and its scale, which is already multiplied in.

    rank `full`: a simplex ETF on K = min(d_in, d_out) vertices in the larger dimension, transposed where
    d_out < d_in. All singular values are sqrt(K/(K-1)) but one, which is 0: the map keeps lengths.
    rank `classes`: M_out M_in^T of two simplex ETFs on C vertices, rank C-1.
    rank `rows`: the d_out rows are a simplex ETF in R^d_in, as a classifier's are at collapse; needs d_in >= d_out - 1.
    `current` (d_out, d_in) is needed by frame `nearest` only. Raises ValueError where the frame does not fit.
    """
    tall = _tall(d_out, d_in, recipe)
    if recipe.frame == "nearest":
        if current is None:
            raise ValueError("frame 'nearest' needs the current weight; before training choose another frame")
        if recipe.rank != "classes":
            etf, best = nearest_etf(current if tall else current.T)
            weight = etf if tall else etf.T
        else:
            weight, best = nearest_etf_product(current, recipe.num_classes)
        scale = best if recipe.scale is None else recipe.scale
    else:
        generator = Generator().manual_seed(recipe.seed)
        first, *second = (simplex_etf(k, d, recipe.frame, generator) for k, d in _vertices(d_out, d_in, recipe))
        weight = first @ second[0].T if second else first if tall else first.T
        scale = unit_scale(d_out, d_in, recipe) if recipe.scale is None else recipe.scale
    return scale * weight, scale


class FixedLinear(nn.Module):
    """y = x W^T + b with W fixed: no gradient, no optimizer state, no weight decay, and not in the state dict. The bias
    is the learnable one of the map that it replaces, the same Parameter.

    x (..., d_in) -> y (..., d_out). `weight` is W (d_out, d_in).
    """

    weight: Tensor

    def __init__(self, d_out: int, d_in: int, bias: nn.Parameter | None, recipe: Recipe, scale: float):
        super().__init__()
        self.out_features, self.in_features = d_out, d_in
        self.bias = bias
        self.recipe = recipe
        self.scale = scale

    def extra_repr(self) -> str:
        r = self.recipe
        return f"{self.in_features}, {self.out_features}, frame={r.frame}, rank={r.rank}, scale={self.scale:.4g}"


class DenseFixedLinear(FixedLinear):
    """W is a non-persistent buffer."""

    def __init__(self, weight: Tensor, bias: nn.Parameter | None, recipe: Recipe, scale: float = 1.0):
        super().__init__(*weight.shape, bias, recipe, scale)
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class ETFLinear(DenseFixedLinear):
    """A linear map fixed to a simplex ETF (arXiv 2412.00884; the classifier alone: Zhu et al. 2021)."""


class FrozenLinear(DenseFixedLinear):
    """The control of every ETF claim: the map frozen as it stood, at initialisation or when a policy fires."""


class ImplicitETFLinear(FixedLinear):
    """The map of `ETFLinear` for the recipes that are `implicit`: applied factor by factor, W never stored.

    Forward and backward keep no activation. `weight` is made anew, in float64 and then rounded, whenever it is read.
    Raises ValueError where the frame does not fit.
    """

    def __init__(self, d_out: int, d_in: int, bias: nn.Parameter | None, recipe: Recipe):
        require_fit(d_out, d_in, recipe)
        scale = unit_scale(d_out, d_in, recipe) if recipe.scale is None else recipe.scale
        super().__init__(d_out, d_in, bias, recipe, scale)
        generator = Generator().manual_seed(recipe.seed)
        self.etfs = nn.ModuleList(_maps(k, d, recipe.frame, generator) for k, d in _vertices(d_out, d_in, recipe))
        self.register_buffer("like", torch.empty(0, dtype=torch.float64), persistent=False)  # dtype and device of W

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.in_features:  # canonical and block frames would take a wider input for theirs
            raise ValueError(f"expected input (..., {self.in_features}), got {tuple(x.shape)}")
        return self._apply_weight(x, self.bias)

    def _apply_weight(self, x: Tensor, bias: Tensor | None) -> Tensor:
        first, *second = self.etfs
        if second:
            return first(second[0].adjoint(x), bias, self.scale)
        tall = _tall(self.out_features, self.in_features, self.recipe)
        return (first if tall else first.adjoint)(x, bias, self.scale)

    @property
    def weight(self) -> Tensor:
        identity = torch.eye(self.in_features, dtype=torch.float64, device=self.like.device)
        with torch.no_grad():
            return deepcopy(self).double()._apply_weight(identity, None).T.to(self.like.dtype)


def _maps(num_vertices: int, dim: int, frame: str, generator: Generator) -> nn.Module:
    if frame in STRUCTURED:
        return StructuredETF(num_vertices, dim, frame, generator)
    return ThinETF(simplex_etf(num_vertices, dim, frame, generator))


def fix(linear: nn.Linear, recipe: Recipe) -> FixedLinear:
    """The fixed map that takes the place of `linear` under `recipe`; keeps device, dtype and the bias Parameter."""
    bias = linear.bias if recipe.bias else None
    if recipe.kind == "frozen":
        return FrozenLinear(linear.weight.detach().clone(), bias, recipe)
    if recipe.implicit:
        layer = ImplicitETFLinear(linear.out_features, linear.in_features, None, recipe).to(linear.weight)
        layer.bias = bias
        return layer
    weight, scale = etf_weight(linear.out_features, linear.in_features, recipe, linear.weight)
    return ETFLinear(weight.to(linear.weight), bias, recipe, scale)


def replace(model: nn.Module, site: str, module: nn.Module) -> None:
    """Put `module` where the submodule named `site` is."""
    parent, _, name = site.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def pack(layer: FixedLinear) -> dict[str, Any]:
    """What a checkpoint holds of a fixed map: the recipe alone where it gives the weight (seeded frames), else the
    recipe and the weight itself, which depends on what was learnt up to the switch."""
    packed: dict[str, Any] = {"recipe": asdict(layer.recipe), "scale": layer.scale}
    if not layer.recipe.seeded:
        packed["weight"] = layer.weight
    return packed


def unpack(linear: nn.Linear, packed: dict[str, Any]) -> FixedLinear:
    """The fixed map of `pack`, in the place of the learnable `linear` of a freshly built model; exact to the bit."""
    recipe = Recipe(**packed["recipe"])
    if recipe.seeded:
        return fix(linear, recipe)
    kind = FrozenLinear if recipe.kind == "frozen" else ETFLinear
    weight = torch.as_tensor(packed["weight"]).to(linear.weight)
    return kind(weight, linear.bias if recipe.bias else None, recipe, packed["scale"])
