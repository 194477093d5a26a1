"""Regression with unconstrained features: the global minimum in closed form, and the constant of NRC3.

Andriopoulos et al. 2024 (arXiv 2409.04180). Features H (M, d), one row a sample, targets Y (M, n), W (n, d), b (n):

    L(W, H, b) = 1/(2M) |H W^T + 1 b^T - Y|_F^2 + l_h/(2M) |H|_F^2 + l_w/2 |W|_F^2

S = (1/M) sum (y - mean)(y - mean)^T with eigenvalues lambda_1 >= ... >= lambda_n, c = l_h l_w. Everything is decided by
c against them: directions with lambda_k > c are learnt, the others are given up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

NAN = float("nan")


@dataclass(frozen=True)
class UFMMinimum:
    """A global minimum of L. `rank`: of W and H, the number of directions that are learnt.

    weight W (n, d), features H (M, d), bias b (n,), residual (M, n): prediction - Y, loss L.
    """

    weight: np.ndarray
    features: np.ndarray
    bias: np.ndarray
    residual: np.ndarray
    loss: float
    rank: int


def covariance(targets: ArrayLike) -> np.ndarray:
    """S (n, n) of targets (M, n), divided by M.

    >>> covariance([[1.0, 0.0], [-1.0, 0.0]]).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    y = _matrix("targets", targets)
    z = y - y.mean(0)
    return z.T @ z / len(z)


def ufm_loss(
    weight: ArrayLike, features: ArrayLike, bias: ArrayLike, targets: ArrayLike, l_h: float, l_w: float
) -> float:
    """L of the module's docstring, of W (n, d), H (M, d), b (n,), Y (M, n)."""
    w, h, y = (_matrix(name, m) for name, m in (("weight", weight), ("features", features), ("targets", targets)))
    error = h @ w.T + np.asarray(bias, float) - y
    return float(((error**2).sum() + l_h * (h**2).sum()) / (2 * len(y)) + l_w / 2 * (w**2).sum())


def ufm_gram(target_covariance: ArrayLike, l_h: float, l_w: float) -> tuple[np.ndarray, float, int]:
    """W W^T (n, n), L and rank of every global minimum, from S alone; see `ufm_minimum`.

    >>> gram, loss, rank = ufm_gram([[4.0, 0.0], [0.0, 0.04]], l_h=0.5, l_w=0.5)  # sqrt(c) = 1/2
    >>> gram.tolist(), loss, rank
    ([[1.5, 0.0], [0.0, 0.0]], 0.895, 1)
    """
    s, c = _matrix("target_covariance", target_covariance), _product(l_h, l_w)
    values, vectors = np.linalg.eigh(s)
    learnt = values > c
    kept = np.where(learnt, np.sqrt(np.maximum(values, 0.0)) - np.sqrt(c), 0.0)
    loss = np.where(learnt, np.sqrt(c * np.maximum(values, 0.0)) - c / 2, values / 2).sum()
    return np.sqrt(l_h / l_w) * (vectors * kept) @ vectors.T, float(loss), int(learnt.sum())


def ufm_minimum(targets: ArrayLike, dim: int, l_h: float, l_w: float, frame: ArrayLike | None = None) -> UFMMinimum:
    """A global minimum of L in closed form; all others are its rotations, W R and H R.

    With S = U diag(lambda) U^T, A = U diag(max(sqrt(lambda_k) - sqrt(c), 0)) U^T and Y~ = Y - mean:
    W = (l_h/l_w)^(1/4) A^(1/2) F, H = sqrt(l_w/l_h) Y~ S^(-1/2) W (over the directions that are learnt), b = mean.
    Hence W W^T = sqrt(l_h/l_w) A: NRC1 to NRC3 are 0, with g = c exactly where c < lambda_n. The residual of a learnt
    direction is -sqrt(c/lambda_k) times the target, so that its mean square is c. L = sum_k sqrt(c lambda_k) - c/2 over
    learnt directions + lambda_k/2 over the others. At c >= lambda_1 the minimum is W = 0, H = 0.

    Args:
        targets: Y (M, n).
        dim: d, at least the number of directions that are learnt.
        l_h, l_w: Penalties, above 0: without them nothing fixes the scale of W against H, nor NRC1 to NRC3.
        frame: F (n, d) with orthonormal rows; None: one that turns the eigenvectors of S into unit vectors.

    Raises:
        ValueError: An argument is not of that kind.

    >>> m = ufm_minimum([[1.0], [-1.0]], dim=2, l_h=0.25, l_w=1.0)  # S = 1, c = 1/4
    >>> m.rank, m.loss, m.residual.ravel().round(12).tolist()
    (1, 0.375, [-0.5, 0.5])
    """
    y = _matrix("targets", targets)
    s, mean = covariance(y), y.mean(0)
    (_, loss, rank), c = ufm_gram(s, l_h, l_w), l_h * l_w
    values, vectors = np.linalg.eigh(s)  # (n,), (n, n)
    learnt = values > c
    if dim < rank:
        raise ValueError(f"dim must be at least {rank}, the directions that are learnt; got {dim}")
    kept, u = values[learnt], vectors[:, learnt]  # (rank,), (n, rank)
    rows = np.eye(rank, dim) if frame is None else u.T @ _frame(frame, y.shape[1], dim)  # (rank, d), orthonormal
    roots = np.sqrt(np.sqrt(kept) - np.sqrt(c))  # those of A
    w = (l_h / l_w) ** 0.25 * (u * roots) @ rows  # (n, d)
    h = (l_w / l_h) ** 0.25 * ((y - mean) @ u * (roots / np.sqrt(kept))) @ rows  # (M, d)
    return UFMMinimum(w, h, mean, h @ w.T + mean - y, loss, rank)


def best_g(weight_gram: ArrayLike, target_covariance: ArrayLike) -> float:
    """The g in [0, lambda_n] at which `nrc3` is least, for A = W W^T and S the covariance of the targets.

    sqrt(g) = tr(S^(1/2))/n - tr(A) |S_0|^2 / (n <A_0, S_0>), X_0 = X - tr(X)/n I of A and S^(1/2), clipped to
    [0, sqrt(lambda_n)]: NRC3 has one minimum along g. 0 where <A_0, S_0> <= 0 (NRC3 then rises with g), and where S is
    a multiple of I, for which every g below lambda_n gives the same. nan where n = 1.

    >>> best_g([[1.0, 0.0], [0.0, 2.0]], [[4.0, 0.0], [0.0, 9.0]])  # A = S^(1/2) - I
    1.0
    """
    a, root, low = _of_nrc3(weight_gram, target_covariance)
    n = len(a)
    if n == 1:
        return NAN
    a0, s0 = (x - np.trace(x) / n * np.eye(n) for x in (a, root))
    along, spread = (a0 * s0).sum(), (s0**2).sum()
    if along <= 0 or spread <= (8 * n * np.finfo(float).eps) ** 2 * (root**2).sum():
        return 0.0
    return float(np.clip(np.trace(root) / n - np.trace(a) * spread / (n * along), 0.0, low) ** 2)


def nrc3(weight_gram: ArrayLike, target_covariance: ArrayLike, g: float | None = None) -> float:
    """NRC3 = | A/|A|_F - B/|B|_F |_F^2 with A = W W^T and B = S^(1/2) - sqrt(g) I; 0 at collapse, at most 4.

    g: None: `best_g` of this A. nan where n = 1 (both are 1), where W = 0, and where B = 0.

    >>> nrc3([[1.0, 0.0], [0.0, 2.0]], [[4.0, 0.0], [0.0, 9.0]])
    0.0
    """
    a, root, _ = _of_nrc3(weight_gram, target_covariance)
    if g is None:
        g = best_g(weight_gram, target_covariance)
    if len(a) == 1 or not np.isfinite(g):
        return NAN
    b = root - np.sqrt(g) * np.eye(len(a))
    of_a, of_b = np.linalg.norm(a), np.linalg.norm(b)
    if of_a == 0 or of_b <= len(a) * np.finfo(float).eps * np.linalg.norm(root):
        return NAN
    return float(((a / of_a - b / of_b) ** 2).sum())


def _of_nrc3(weight_gram: ArrayLike, target_covariance: ArrayLike) -> tuple[np.ndarray, np.ndarray, float]:
    """A (n, n) at a largest entry of 1, S^(1/2) (n, n), and the root of the least eigenvalue of S."""
    a, s = _matrix("weight_gram", weight_gram), _matrix("target_covariance", target_covariance)
    if a.shape != s.shape or a.shape[0] != a.shape[1]:
        raise ValueError(f"expected two square matrices of one size, got {a.shape} and {s.shape}")
    values, vectors = np.linalg.eigh(s)
    roots = np.sqrt(np.maximum(values, 0.0))
    largest = np.abs(a).max()
    return (a / largest if largest else a), (vectors * roots) @ vectors.T, float(roots[0])


def _product(l_h: float, l_w: float) -> float:
    """c of two penalties above 0."""
    for name, value in (("l_h", l_h), ("l_w", l_w)):
        if not 0 < value < np.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value}")
    return l_h * l_w


def _frame(given: ArrayLike, n: int, dim: int) -> np.ndarray:
    frame = _matrix("frame", given)
    if frame.shape != (n, dim):
        raise ValueError(f"frame must be ({n}, {dim}), got {frame.shape}")
    if not np.allclose(frame @ frame.T, np.eye(n), atol=1e-8):
        raise ValueError("frame must have orthonormal rows")
    return frame


def _matrix(name: str, given: ArrayLike) -> np.ndarray:
    array = np.asarray(given, float)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a matrix, got shape {array.shape}")
    return array
