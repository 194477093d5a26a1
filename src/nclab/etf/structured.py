"""Simplex ETFs whose map is applied without a stored matrix, in O(d) or O(d sqrt(d)) a sample, forward and backward.

E = s P (I_K - 11^T/K), s = sqrt(K/(K-1)), P (d, K) with orthonormal columns. A frame is a way to choose P so that P x
and P^T y are cheap. What a frame draws is a few vectors of length d (and two factors of about sqrt(d) x sqrt(d)), kept
as buffers: stacked over seeds they go through torch.func.vmap like any other state.

A frame holds sizes only and has three methods: draw(generator) -> its buffers by name, in float64;
embed(x (n, K), factor, bias, *buffers) = factor P (x - mean x) + bias (n, d), and
project(y (n, d), factor, bias, *buffers) = factor (P^T y - mean P^T y) + bias (n, K), both in new memory. On CPU their
time is memory traffic, fresh pages above all: hence few temporaries, and everything else in place.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.autograd import Function
from torch.nn import functional


@dataclass(frozen=True)
class Block:
    """Column c of P is 1/sqrt(b) on the b = d // K neighbouring units cb .. cb + b - 1; the last d - bK units get 0.

    `canonical` is the same with b = 1: P = the first K columns of the identity. Needs d >= K. O(d); draws nothing.
    """

    num_vertices: int
    dim: int
    canonical: bool = False

    @property
    def width(self) -> int:
        """b, units of a vertex."""
        return 1 if self.canonical else self.dim // self.num_vertices

    def draw(self, generator: Generator | None) -> dict[str, Tensor]:
        return {}

    def embed(self, x: Tensor, factor: float, bias: Tensor | None) -> Tensor:
        used = self.width * self.num_vertices
        mean = _mean(x)
        x = x.repeat_interleave(self.width, 1) if self.width > 1 else x  # (n, bK)
        x = functional.pad(x, (0, self.dim - used)) if used < self.dim else x  # (n, d)
        factor *= self.width**-0.5
        y = x * factor if bias is None else torch.add(bias, x, alpha=factor)
        y[:, :used].sub_(factor * mean)
        return y

    def project(self, y: Tensor, factor: float, bias: Tensor | None) -> Tensor:
        b, k = self.width, self.num_vertices
        y = y[:, : b * k]
        y = y.unflatten(1, (k, b)).sum(2) if b > 1 else y  # (n, K)
        factor *= b**-0.5
        x = y * factor if bias is None else torch.add(bias, y, alpha=factor)
        return x.sub_(factor * _mean(y))


@dataclass(frozen=True)
class SignedPermutation:
    """Column c of P is +-1/sqrt(b) on b = d // K units of its own, units and signs uniformly random: a random signed
    permutation of R^d after `Block`. For K = d, P is a signed permutation matrix. Needs d >= K. O(d)."""

    num_vertices: int
    dim: int

    @property
    def width(self) -> int:
        """b, units of a vertex."""
        return self.dim // self.num_vertices

    def draw(self, generator: Generator | None) -> dict[str, Tensor]:
        b, k = self.width, self.num_vertices
        units = torch.randperm(self.dim, generator=generator)[: b * k]  # units[j K + c]: the j-th unit of vertex c
        vertex = torch.zeros(self.dim, dtype=torch.int64)  # unit -> its vertex; one without gets 0 times the first
        vertex[units] = torch.arange(b * k) % k
        signs = torch.zeros(self.dim, dtype=torch.float64)
        signs[units] = _signs(b * k, generator)
        return {"vertex": vertex, "units": units, "signs": signs}

    def embed(
        self, x: Tensor, factor: float, bias: Tensor | None, vertex: Tensor, units: Tensor, signs: Tensor
    ) -> Tensor:
        y = x.index_select(1, vertex).sub_(_mean(x)).mul_(factor * self.width**-0.5 * signs)
        return y if bias is None else y.add_(bias)

    def project(
        self, y: Tensor, factor: float, bias: Tensor | None, vertex: Tensor, units: Tensor, signs: Tensor
    ) -> Tensor:
        x = y.index_select(1, units).mul_(factor * self.width**-0.5 * signs.index_select(0, units))  # (n, bK)
        x = x.unflatten(1, (self.width, self.num_vertices)).sum(1) if self.width > 1 else x
        return _centre(x, bias)


@dataclass(frozen=True)
class Hadamard:
    """P = the first K columns of Q = L x R, a randomised Hadamard matrix as a Kronecker product.

    L (a, a) and R (b, b), ab = d, are `walsh_hartley` matrices with random row and column signs: every column of Q
    spreads over all d units. Without the column signs P 1 would lie in one unit, which the centring would make 0.
    Where a + b > 4 sqrt(d) for all factors of d (17 and 401, not 13), Q takes two rounds: L x R on the first p = ab
    units, random signs on these, then L x R on the last p, with p the largest square <= d. Needs d >= K. O(d (a + b)).
    """

    num_vertices: int
    dim: int

    @property
    def factors(self) -> tuple[int, int]:
        """(a, b)."""
        root = math.isqrt(self.dim)
        a = next(n for n in range(root, 0, -1) if self.dim % n == 0)
        return (a, self.dim // a) if a + self.dim // a <= 4 * math.sqrt(self.dim) else (root, root)

    def draw(self, generator: Generator | None) -> dict[str, Tensor]:
        left, right = (_signs(n, generator)[:, None] * walsh_hartley(n) * _signs(n, generator) for n in self.factors)
        between = {} if len(left) * len(right) == self.dim else {"signs": _signs(len(left) * len(right), generator)}
        return {"left": left, "right": right, **between}

    def embed(
        self, x: Tensor, factor: float, bias: Tensor | None, left: Tensor, right: Tensor, signs: Tensor | None = None
    ) -> Tensor:
        return _piecewise(lambda rows: self._embed(rows, factor, bias, left, right, signs), x, left, self.dim)

    def project(
        self, y: Tensor, factor: float, bias: Tensor | None, left: Tensor, right: Tensor, signs: Tensor | None = None
    ) -> Tensor:
        k = self.num_vertices
        return _piecewise(lambda rows: self._project(rows, factor, bias, left, right, signs), y, left, k)

    def _embed(
        self, x: Tensor, factor: float, bias: Tensor | None, left: Tensor, right: Tensor, signs: Tensor | None
    ) -> Tensor:
        if signs is None:
            y = _kronecker(x - _mean(x), left, factor * right)
        else:
            p = len(left) * len(right)
            x = functional.pad(x - _mean(x), (0, self.dim - self.num_vertices))
            first = _kronecker(x[:, :p], left, right).mul_(factor * signs)
            rest = factor * x[:, p:]
            second = _kronecker(torch.cat([first[:, self.dim - p :], rest], 1), left, right)
            y = torch.cat([first[:, : self.dim - p], second], 1)
        return y if bias is None else y.add_(bias)

    def _project(
        self, y: Tensor, factor: float, bias: Tensor | None, left: Tensor, right: Tensor, signs: Tensor | None
    ) -> Tensor:
        if signs is None:
            x = _kronecker_adjoint(y, left, factor * right, self.num_vertices)
        else:
            p = len(left) * len(right)
            rest = self.dim - p
            second = _kronecker_adjoint(y[:, rest:], left, factor * right, p)
            first = torch.cat([factor * y[:, :rest], second[:, : p - rest]], 1).mul_(signs)
            first = _kronecker_adjoint(first, left, right, p)
            x = torch.cat([first, second[:, p - rest :]], 1)[:, : self.num_vertices]
        return _centre(x, bias)


Frame = Block | SignedPermutation | Hadamard
PIECE = 2**17  # numbers in a piece: half a MiB in float32
STRUCTURED = ("canonical", "block", "signed_permutation", "hadamard")


def structured_frame(name: str, num_vertices: int, dim: int) -> Frame:
    """The frame of this name (one of STRUCTURED) for P (d, K)."""
    if name == "signed_permutation":
        return SignedPermutation(num_vertices, dim)
    return Hadamard(num_vertices, dim) if name == "hadamard" else Block(num_vertices, dim, name == "canonical")


def walsh_hartley(n: int) -> Tensor:
    """Symmetric orthogonal (n, n) float64 matrix with entries of size at most sqrt(2/n): for n = 2^k m, m odd, the
    Kronecker product of the Walsh-Hadamard matrix of order 2^k (Sylvester) and the discrete Hartley transform of order
    m, (cos + sin)(2 pi i j / m) / sqrt(m) (Bracewell 1983)."""
    odd = n // (n & -n)
    ij = torch.outer(torch.arange(odd), torch.arange(odd)) % odd
    angle = 2 * math.pi / odd * ij.double()
    matrix = (angle.cos() + angle.sin()) / math.sqrt(odd)
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)]) * 0.5**0.5
    return matrix


def _signs(n: int, generator: Generator | None) -> Tensor:
    return 2.0 * torch.randint(2, (n,), generator=generator, dtype=torch.float64) - 1


def _piecewise(apply: Callable[[Tensor], Tensor], x: Tensor, drawn: Tensor, width: int) -> Tensor:
    """apply(x) (n, width), on CPU some rows at a time: the temporaries then stay in the cache and below the size at
    which the allocator gives their pages back to the system, to fetch them anew at the next call."""
    rows = max(1, PIECE // max(x.shape[1], width))
    if x.device.type != "cpu" or len(x) <= rows or torch.compiler.is_compiling():
        return apply(x)
    y = (x[:1, :1] * drawn[:1, :1]).new_empty(len(x), width)  # under vmap stacked where either of the two is
    for piece, out in zip(x.split(rows), y.split(rows), strict=True):
        out.copy_(apply(piece))
    return y


def _rows(x: Tensor) -> Tensor:
    """(..., d) -> (n, d), n = 0 and a lone vector included."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _mean(x: Tensor) -> Tensor:
    """(n, K) -> (n, 1)."""
    return x.sum(1, keepdim=True) / x.shape[1]  # mean() takes twice as long on CPU


def _centre(x: Tensor, bias: Tensor | None) -> Tensor:
    """x - mean x + bias, in place. (n, K)."""
    x.sub_(_mean(x))
    return x if bias is None else x.add_(bias)


def _kronecker(x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(left x right) x for x (n, K) with zeros up to ab: the rows of X (a, b) that hold no x are left out. (n, ab)."""
    b = len(right)
    rows = -(-x.shape[1] // b)
    x = functional.pad(x, (0, rows * b - x.shape[1])) if rows * b > x.shape[1] else x
    x = x.reshape(len(x), rows, b) @ right.T
    return (left[:, :rows] @ x).reshape(len(x), len(left) * b)


def _kronecker_adjoint(y: Tensor, left: Tensor, right: Tensor, num_vertices: int) -> Tensor:
    """The first K entries of (left x right)^T y for y (n, ab). (n, K)."""
    b = len(right)
    rows = -(-num_vertices // b)
    y = left[:, :rows].T @ y.reshape(len(y), len(left), b)  # (n, rows, b); y is not needed twice: its memory is free
    return (y @ right).reshape(len(y), rows * b)[:, :num_vertices]


class _ETFMap(Function):
    """f E x + bias, or f E^T x + bias with `transposed`. Backward is the other map of the two, so that nothing of x is
    kept, every order of derivative exists, and no gradient is scattered."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        frame: Frame, transposed: bool, factor: float, x: Tensor, bias: Tensor | None, *drawn: Tensor
    ) -> Tensor:
        k = frame.num_vertices
        apply = frame.project if transposed else frame.embed
        y = apply(_rows(x), factor * math.sqrt(k / (k - 1)), bias, *drawn)
        return y.reshape(*x.shape[:-1], y.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.frame, ctx.transposed, ctx.factor, _, _, *drawn = inputs
        ctx.save_for_backward(*drawn)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        drawn = ctx.saved_tensors
        of_x = of_bias = None
        if ctx.needs_input_grad[3]:
            of_x = _ETFMap.apply(ctx.frame, not ctx.transposed, ctx.factor, gradient, None, *drawn)
        if ctx.needs_input_grad[4]:
            of_bias = _rows(gradient).sum(0)
        return None, None, None, of_x, of_bias, *(None for _ in drawn)


# Function.apply asks for the signature at every call; cached, a call takes 20 us less.
_ETFMap.forward.__signature__ = inspect.signature(_ETFMap.forward)


class StructuredETF(nn.Module):
    """The simplex ETF E (d, K) of a structured frame, as a pair of maps.

    forward(x (..., K), bias (d,) or None, factor) = factor E x + bias (..., d); adjoint(y (..., d), bias (K,) or None,
    factor) = factor E^T y + bias (..., K). The maps keep no activation for backward. What was drawn from `generator` is
    in non-persistent buffers; under vmap these must be stacked where the bias is. K and d must admit the frame, see
    `nclab.etf.frame.require_simplex`.
    """

    def __init__(self, num_vertices: int, dim: int, frame: str, generator: Generator | None = None):
        super().__init__()
        self.frame = structured_frame(frame, num_vertices, dim)
        for name, tensor in self.frame.draw(generator).items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: Tensor, bias: Tensor | None = None, factor: float = 1.0) -> Tensor:
        return self._map(False, x, bias, factor)

    def adjoint(self, y: Tensor, bias: Tensor | None = None, factor: float = 1.0) -> Tensor:
        return self._map(True, y, bias, factor)

    def _map(self, transposed: bool, x: Tensor, bias: Tensor | None, factor: float) -> Tensor:
        device = x.device.type
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        if autocast and x.dtype != torch.float64:  # as functional.linear does
            x = x.to(torch.get_autocast_dtype(device))
        bias = None if bias is None else bias.to(x.dtype)
        drawn = (t.to(x.dtype) if t.is_floating_point() else t for t in self._buffers.values())
        return _ETFMap.apply(self.frame, transposed, factor, x, bias, *drawn)

    def extra_repr(self) -> str:
        return f"{self.frame}"


class ThinETF(nn.Module):
    """A simplex ETF E (d, K) of few vertices with the maps of `StructuredETF`: E itself, thin, is the buffer. O(dK)."""

    def __init__(self, etf: Tensor):
        super().__init__()
        self.register_buffer("etf", etf, persistent=False)

    def forward(self, x: Tensor, bias: Tensor | None = None, factor: float = 1.0) -> Tensor:
        return functional.linear(factor * x, self.etf, bias)

    def adjoint(self, y: Tensor, bias: Tensor | None = None, factor: float = 1.0) -> Tensor:
        return functional.linear(y, factor * self.etf.T, bias)
