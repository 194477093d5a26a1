"""The head that is the simplex ETF nearest to the class means: in closed form, with its gradient (arXiv 2411.01248)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def nearest_head(means: Tensor, previous: Tensor, delta: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex ETF classifier that is nearest to the class means, and near to the one before.

    With mu_G the unweighted mean of the class means, H^ (d, K) the centred class means as columns, divided by their
    Frobenius norm, and M = I - 11^T/K:

        U* = argmin over U^T U = I of ||H^ - U M / sqrt(K-1)||_F^2 + delta/2 ||U - U_prox||_F^2
        W = sqrt(K/(K-1)) M U*^T,    b = -W mu_G

    ||U M||_F is the same for every such U, so that U* is the polar factor of 2/sqrt(K-1) H^ M + delta U_prox. The
    paper solves this by a Riemannian trust region; here it is one thin SVD, in float64 whatever the dtype of `means`.

    Both W and b can be differentiated by `means`: see `PolarFactor`. `previous` is a constant.

    Args:
        means: class means of the classifier's input, (K, d).
        previous: U_prox (d, K) with orthonormal columns, of the step before.
        delta: weight of the proximal term. It makes U* unique: H^ has rank K-1 at most.

    Returns (W (K, d), b (K,), U* (d, K)) in the dtype of `means`; the rows of W are unit vectors at cosine -1/(K-1). At
    collapse, means r E^T + mu with E a simplex ETF, W is E^T and nc3 is 0, once U_prox has followed: a step that starts
    elsewhere is off by order delta. Where all means are equal up to rounding H^ is taken as 0: U* is U_prox, without a
    gradient. Means that are not finite give W and b of nan, so that a training ends by its own check of the loss.
    Raises ValueError for d < K, fewer than 2 classes, a frame of another shape, and delta not above 0.

    >>> from nclab.etf import simplex_etf
    >>> etf = simplex_etf(3, 8, "canonical")  # (d, K)
    >>> weight, bias, _ = nearest_head(5 * etf.T, torch.eye(8, 3, dtype=torch.float64))
    >>> torch.allclose(weight, etf.T), torch.allclose(bias, torch.zeros(3, dtype=torch.float64))
    (True, True)
    """
    k, d = means.shape
    require_head(k, d, delta)
    if previous.shape != (d, k):
        raise ValueError(f"expected the previous frame of shape ({d}, {k}), got {tuple(previous.shape)}")
    m = means.double()
    mu = m.mean(0)  # (d,)
    if not m.detach().isfinite().all():
        return torch.full_like(means, math.nan), means.new_full((k,), math.nan), previous
    target = 2 / math.sqrt(k - 1) * _unit(m - mu, m, torch.finfo(means.dtype).eps).T + delta * previous.double()
    frame = PolarFactor.apply(target)
    weight = math.sqrt(k / (k - 1)) * (frame - frame.mean(1, keepdim=True)).T  # (K, d)
    bias = -weight @ mu
    return weight.to(means), bias.to(means), frame.detach().to(means)


def require_head(num_classes: int, dim: int, delta: float) -> None:
    """Raise ValueError unless a head of K vectors can be set in R^d with this delta."""
    if num_classes < 2:
        raise ValueError(f"expected at least 2 classes, got {num_classes}")
    if dim < num_classes:
        raise ValueError(
            f"the head's {num_classes} vectors need a frame in dimension {num_classes} or more, got dimension {dim}"
        )
    if not (delta > 0 and math.isfinite(delta)):
        raise ValueError(f"delta must be above 0 and finite, got {delta}")


def _unit(centred: Tensor, means: Tensor, eps: float) -> Tensor:
    """`centred` over its Frobenius norm; 0 where that is rounding of `means`."""
    largest = means.detach().abs().amax()
    scale = torch.ldexp(torch.ones_like(largest), torch.frexp(largest)[1])  # a power of two: no square overflows
    centred = centred / scale
    cut = len(means) * eps * (means.detach() / scale).norm()
    known = centred.detach().norm() > cut
    return torch.where(known, centred / torch.where(known, centred, 1.0).norm(), 0.0)


class PolarFactor(torch.autograd.Function):
    """U of A = U P, U^T U = I, P symmetric and positive: the argmax of <A, U>; A (d, K), d >= K, of rank K.

    With A = U P, P = V diag(s) V^T, the conditions A = U P, U^T U = I of the constrained argmax, differentiated, are

        dU = U Omega + (I - U U^T) dA P^-1,    Omega P + P Omega = U^T dA - dA^T U

    which V solves entry by entry; backward applies the transpose of this. Unlike autograd through an SVD it never
    divides by a difference of singular values: those of a nearest head's A are all equal at collapse, but one.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        left, s, vh = torch.linalg.svd(a, full_matrices=False)
        u = left @ vh
        ctx.save_for_backward(u, s, vh)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        u, s, vh = ctx.saved_tensors
        inner = u.T @ grad  # (K, K)
        rotated = vh @ inner @ vh.T
        omega = vh.T @ ((rotated - rotated.T) / (s[:, None] + s)) @ vh
        return u @ omega + (grad - u @ inner) @ (vh.T / s) @ vh
