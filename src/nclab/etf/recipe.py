"""How a fixed weight is made: the recipe, the weight it gives, and the check that a given weight is one."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from nclab.etf.frame import FRAMES, haar, nearest_etf, nearest_etf_product, require_simplex, simplex_etf
from nclab.etf.structured import STRUCTURED
from nclab.interfaces.valid import unknown

KINDS = ("etf", "frozen", "frozen_scaled", "orthogonal")
RANKS = ("full", "classes")  # of a hidden layer
ROWS = "rows"  # of a classifier


@dataclass(frozen=True)
class Recipe:
    """All that is needed to make a fixed weight again.

    kind: `etf`, or a control: `frozen` (the weight as it stood), `frozen_scaled` (that times one factor, so that its
    Frobenius norm is that of the ETF) or `orthogonal` (see `orthogonal_weight`; of the ETF's Frobenius norm too).
    frame and rank: see `etf_weight`. scale: factor
    on the weight; None = least-squares scale for frame nearest, `unit_scale` otherwise. seed: of a frame that is drawn;
    None: torch's global generator gives one when the weight is made, so that no two layers share a frame by accident.
    """

    kind: str = "etf"
    frame: str = "random"
    rank: str = "full"
    scale: float | None = None
    seed: int | None = None
    num_classes: int = 0
    bias: bool = True

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("kind", self.kind, KINDS),
            ("frame", self.frame, FRAMES),
            ("rank", self.rank, (*RANKS, ROWS)),
        ):
            if value not in valid:
                raise ValueError(unknown(name, value, valid))
        require_frame_of_kind(self.kind, self.frame)

    @property
    def seeded(self) -> bool:
        """True where seed and shape alone give the weight; else the weight depends on what was learnt."""
        return self.kind in ("etf", "orthogonal") and self.frame != "nearest"

    @property
    def draws(self) -> bool:
        """True where the weight depends on the seed."""
        return self.seeded and self.frame not in ("canonical", "block")

    def with_seed(self, generator: Generator | None = None) -> "Recipe":
        """The same recipe with a seed: its own, else one drawn from `generator` (None: torch's global one)."""
        if self.seed is not None or not self.draws:
            return self
        drawn = torch.randint(2**32, (), generator=generator, device="cpu" if generator is None else generator.device)
        return replace(self, seed=int(drawn))

    @property
    def implicit(self) -> bool:
        """True where the layer is applied without its weight (d_out, d_in): structured frames, and the product of two
        random thin ETFs."""
        thin = self.frame == "random" and self.rank == "classes"
        return self.kind == "etf" and (self.frame in STRUCTURED or thin)


def require_frame_of_kind(kind: str, frame: str, key: str = "frame") -> None:
    """Raise ValueError for a structured frame of a control: it would be the same layer under another name."""
    if kind in ("frozen_scaled", "orthogonal") and frame in STRUCTURED:
        raise ValueError(f"kind '{kind}' has no frame '{frame}': expected {key} random or nearest")


def vertices(d_out: int, d_in: int, recipe: Recipe) -> list[tuple[int, int]]:
    """(K, d) of each simplex ETF that the weight is made of."""
    if recipe.rank == "classes":
        return [(recipe.num_classes, d_out), (recipe.num_classes, d_in)]
    if recipe.rank == ROWS:
        return [(d_out, d_in)]
    return [(min(d_in, d_out), max(d_in, d_out))]


def is_tall(d_out: int, d_in: int, recipe: Recipe) -> bool:
    """True where the columns of the weight are the vertices, False where its rows are."""
    return d_out >= d_in and recipe.rank != ROWS


def require_fit(d_out: int, d_in: int, recipe: Recipe) -> None:
    """Raise ValueError unless the recipe gives a weight (d_out, d_in); builds nothing."""
    for k, d in vertices(d_out, d_in, recipe):
        require_simplex(k, d, recipe.frame)
        if recipe.kind == "orthogonal" and d < k:
            raise ValueError(f"{k} orthogonal vectors need dimension {k} or more, got dimension {d}")


def unit_scale(d_out: int, d_in: int, recipe: Recipe) -> float:
    """The factor that makes the mean square of a row of a hidden layer's weight 1, so that its outputs have the
    variance of its inputs: sqrt(max(1, d_out / d_in)) at rank full, sqrt(d_out (C-1)) / C at rank classes.

    At factor 1 a layer that widens, as the first of a feed-forward part, would shrink its outputs to where GELU is
    almost linear. A classifier's rows have length 1 as they are: 1.
    """
    if recipe.rank == "classes":
        return math.sqrt(d_out * (recipe.num_classes - 1)) / recipe.num_classes
    return 1.0 if recipe.rank == ROWS else math.sqrt(max(1, d_out / d_in))


def etf_weight(d_out: int, d_in: int, recipe: Recipe, current: Tensor | None = None) -> tuple[Tensor, float]:
    """Fixed weight (d_out, d_in), float64, and its scale, which is already multiplied in.

    rank `full`: a simplex ETF on K = min(d_in, d_out) vertices in the larger dimension, transposed where
    d_out < d_in. All singular values are sqrt(K/(K-1)) but one, which is 0: the layer keeps lengths.
    rank `classes`: M_out M_in^T of two simplex ETFs on C vertices, rank C-1.
    rank `rows`: the d_out rows are a simplex ETF in R^d_in, as a classifier's are at collapse; needs d_in >= d_out - 1.
    `current` (d_out, d_in) is needed by frame `nearest` only. Raises ValueError where the frame does not fit.

    >>> weight, scale = etf_weight(3, 8, Recipe(seed=0))
    >>> (weight @ weight.T).round(decimals=6)
    tensor([[ 1.0000, -0.5000, -0.5000],
            [-0.5000,  1.0000, -0.5000],
            [-0.5000, -0.5000,  1.0000]], dtype=torch.float64)
    """
    tall = is_tall(d_out, d_in, recipe)
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
        generator = frame_generator(recipe)
        with torch.device("cpu"):  # whatever the default device
            first, *second = (simplex_etf(k, d, recipe.frame, generator) for k, d in vertices(d_out, d_in, recipe))
        weight = first @ second[0].T if second else first if tall else first.T
        scale = unit_scale(d_out, d_in, recipe) if recipe.scale is None else recipe.scale
    return scale * weight, scale


def frame_generator(recipe: Recipe) -> Generator:
    """The CPU generator that draws the frames of a weight, in the order of `vertices`."""
    return Generator().manual_seed(recipe.with_seed().seed or 0)


def orthogonal_weight(d_out: int, d_in: int, recipe: Recipe, current: Tensor | None = None) -> tuple[Tensor, float]:
    """The control of an ETF that lacks its simplex: orthonormal vectors instead of centred ones, of the same norm.

    Where the ETF is s E, E = sqrt(K/(K-1)) P (I_K - 11^T/K), this is t P with P (d, K), P^T P = I_K, and t such that
    ||t P||_F = ||s E||_F. frame random: P by Haar measure; nearest: the polar factor of `current` (d_out, d_in), the P
    that is nearest to it. rank `classes`: t P_out P_in^T on C columns each, where the ETFs span C-1 dimensions.

    Returns (weight (d_out, d_in) float64, t). Raises ValueError as `etf_weight`, and where d < K.

    >>> weight, scale = orthogonal_weight(3, 8, Recipe("orthogonal", seed=0))
    >>> torch.allclose(weight @ weight.T, torch.eye(3, dtype=torch.float64)), round(scale, 6)
    (True, 1.0)
    """
    require_fit(d_out, d_in, recipe)
    norm = float(etf_weight(d_out, d_in, recipe, current)[0].norm())
    tall = is_tall(d_out, d_in, recipe)
    if recipe.frame == "nearest":
        u, _, vh = torch.linalg.svd(current.detach().to(device="cpu", dtype=torch.float64), full_matrices=False)
        rank = recipe.num_classes if recipe.rank == "classes" else len(vh)
        weight = u[:, :rank] @ vh[:rank]
    else:
        generator = frame_generator(recipe)
        with torch.device("cpu"):
            first, *second = (haar(d, k, generator) for k, d in vertices(d_out, d_in, recipe))
        weight = first @ second[0].T if second else first if tall else first.T
    scale = norm / float(weight.norm())
    return scale * weight, scale


def scaled_weight(d_out: int, d_in: int, recipe: Recipe, current: Tensor) -> tuple[Tensor, float]:
    """`current` (d_out, d_in) times the factor that gives it the Frobenius norm of the recipe's ETF; float64, and the
    factor. So the control `frozen_scaled` differs from the ETF in its directions, not in its scale.

    Raises ValueError as `etf_weight`, and for a weight of norm 0 or without a norm.

    >>> weight, scale = scaled_weight(3, 8, Recipe("frozen_scaled", seed=0), torch.full((3, 8), 2.0))
    >>> round(float(weight.square().sum()), 6)  # three rows of mean square 1
    3.0
    """
    weight = current.detach().to(device="cpu", dtype=torch.float64)
    if not 0 < float(weight.norm()) < math.inf:
        raise ValueError(f"expected a weight of finite norm above 0, got norm {float(weight.norm())}")
    scale = float(etf_weight(d_out, d_in, recipe, current)[0].norm()) / float(weight.norm())
    return scale * weight, scale


def etf_scale(weight: Tensor, recipe: Recipe) -> float | None:
    """The factor s where `weight` (d_out, d_in) is s times an ETF of the recipe's rank, whatever its frame; else None.

    rank `full` and `rows`: unit vectors at cosine -1/(K-1). rank `classes`: W W^T W = (s C/(C-1))^2 W, rank C-1. Both
    up to the rounding of the weight's dtype.
    """
    tolerance = max(8 * torch.finfo(weight.dtype).eps, 1e-9)  # not below the rounding of this check
    w = weight.detach().to(device="cpu", dtype=torch.float64)
    norm = float(w.norm())
    if not (math.isfinite(norm) and norm > 0):
        return None
    if recipe.rank == "classes":
        c = recipe.num_classes
        scale = norm * math.sqrt(c - 1) / c
        square = (scale * c / (c - 1)) ** 2
        return scale if float((w @ w.T @ w - square * w).norm()) <= tolerance * square * norm else None
    etf = w if is_tall(*w.shape, recipe) else w.T  # (d, K)
    k = etf.shape[1]
    scale = norm / math.sqrt(k)
    simplex = torch.full((k, k), -1 / (k - 1), dtype=torch.float64).fill_diagonal_(1)
    return scale if float((etf.T @ etf / scale**2 - simplex).abs().max()) <= tolerance else None
