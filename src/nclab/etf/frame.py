"""Simplex equiangular tight frames (ETFs): K unit vectors in R^d, every pair at cosine -1/(K-1).

All mathematics runs in float64 on the CPU, so that a frame does not depend on the device, and is rounded once.
"""

import torch
from torch import Generator, Tensor

from nclab.etf.structured import STRUCTURED, StructuredETF

FRAMES = ("random", *STRUCTURED, "nearest")


def simplex_basis(num_vectors: int) -> Tensor:
    """Orthonormal basis of the hyperplane orthogonal to the all-ones vector (Helmert contrasts).

    Shape (K, K-1), float64; B B^T = I_K - 11^T/K. Used instead of the K x K centring matrix because the simplex
    spans K-1 dimensions only: d = K-1 needs no orthonormal K-frame, which would not fit.

    >>> simplex_basis(2).flatten()
    tensor([ 0.7071, -0.7071], dtype=torch.float64)
    """
    k = torch.arange(1, num_vectors, dtype=torch.float64)
    basis = torch.triu(torch.ones(num_vectors, num_vectors - 1, dtype=torch.float64))
    basis[torch.arange(1, num_vectors), torch.arange(num_vectors - 1)] = -k
    return basis / torch.sqrt(k * (k + 1))


def require_simplex(num_vectors: int, dim: int, frame: str = "random") -> None:
    """Raise ValueError unless a simplex ETF of K vectors with this frame exists in R^d: K >= 2, d >= K - 1, and
    d >= K for the structured frames."""
    if num_vectors < 2:
        raise ValueError(f"a simplex ETF needs at least 2 vectors, got {num_vectors}")
    if dim < num_vectors - 1:
        raise ValueError(
            f"{num_vectors} vectors form a simplex ETF in dimension {num_vectors - 1} or more, got dimension {dim}"
        )
    if frame in STRUCTURED and dim < num_vectors:
        raise ValueError(f"frame '{frame}' needs dimension >= {num_vectors}, got {dim}; 'random' fits")


def _on_subspace(q: Tensor, num_vectors: int) -> Tensor:
    """sqrt(K/(K-1)) Q B^T for Q (d, K-1) with orthonormal columns: the ETF that spans the columns of Q."""
    return (num_vectors / (num_vectors - 1)) ** 0.5 * q @ simplex_basis(num_vectors).T


def haar(dim: int, columns: int, generator: Generator | None) -> Tensor:
    """(d, columns) float64 matrix with orthonormal columns, uniform over all such (Haar measure).

    QR of *normal* numbers with the signs of R's diagonal moved into Q: QR alone is not uniform (Mezzadri 2007), and
    uniform numbers would lean every frame towards the all-ones direction.
    """
    q, r = torch.linalg.qr(torch.randn(dim, columns, dtype=torch.float64, generator=generator))
    return q * torch.sign(torch.diagonal(r))


def simplex_etf(num_vectors: int, dim: int, frame: str = "random", generator: Generator | None = None) -> Tensor:
    """Simplex ETF of K vectors in R^d: E = sqrt(K/(K-1)) P (I_K - 11^T/K), P (d, K) with orthonormal columns.

    Returns (d, K), float64: unit columns, pairwise cosine -1/(K-1), columns sum to zero, singular values
    sqrt(K/(K-1)) (K-1 times) and 0.

    frame: `random` (Haar-distributed P drawn from `generator`) or one of the structured frames, which need d >= K:
    `canonical` (P = first K columns of the identity: the formula printed in arXiv 2412.00884), `block`,
    `signed_permutation`, `hadamard`, see `nclab.etf.structured`. For the frame nearest to a matrix see `nearest_etf`.
    Raises ValueError where d < K-1 (no such frame exists), K < 2, or the frame is unknown.

    >>> etf = simplex_etf(10, 512, generator=torch.Generator().manual_seed(0))
    >>> etf.shape, round(float(etf[:, 0] @ etf[:, 0]), 6), round(float(etf[:, 0] @ etf[:, 1]), 6)
    (torch.Size([512, 10]), 1.0, -0.111111)
    """
    require_simplex(num_vectors, dim, frame)
    if frame == "random":
        return _on_subspace(haar(dim, num_vectors - 1, generator), num_vectors)
    if frame in STRUCTURED:
        return StructuredETF(num_vectors, dim, frame, generator)(torch.eye(num_vectors, dtype=torch.float64)).T
    raise ValueError(f"unknown frame '{frame}' for simplex_etf; valid: random, {', '.join(STRUCTURED)}")


def nearest_etf(target: Tensor) -> tuple[Tensor, float]:
    """The scaled simplex ETF nearest to a matrix in Frobenius norm: argmin over P and s of ||s E(P) - A||_F.

    `target` A is (d, K), K vectors as columns. With A B = U S V^T (B the simplex basis) the best frame is
    Q = U V^T (orthogonal Procrustes, Schoenemann 1966) and, that fixed, the least-squares scale
    s = <E, A> / ||E||_F^2 = <E, A> / K >= 0. Returns (E (d, K) float64, s).
    Raises ValueError where d < K-1 or A is not finite.

    >>> etf, scale = nearest_etf(3 * simplex_etf(4, 8, "canonical"))
    >>> round(scale, 6), torch.allclose(etf, simplex_etf(4, 8, "canonical"))
    (3.0, True)
    """
    dim, num_vectors = target.shape
    require_simplex(num_vectors, dim)
    target = _finite_double(target)
    u, _, vh = torch.linalg.svd(target @ simplex_basis(num_vectors), full_matrices=False)
    etf = _on_subspace(u @ vh, num_vectors)  # (d, K)
    return etf, float((etf * target).sum() / num_vectors)


def nearest_etf_product(target: Tensor, num_classes: int) -> tuple[Tensor, float]:
    """The scaled product of two simplex ETFs on C vertices, M_out M_in^T, nearest to a matrix A (d_out, d_in).

    M_out M_in^T = C/(C-1) Q_out Q_in^T for free orthonormal Q: the best are the first C-1 singular vectors of A.
    Returns (product (d_out, d_in) float64 of rank C-1, least-squares scale s >= 0). Raises as `nearest_etf`.

    >>> product, scale = nearest_etf_product(torch.eye(6), num_classes=3)
    >>> int(torch.linalg.matrix_rank(product))
    2
    """
    require_simplex(num_classes, min(target.shape))
    target = _finite_double(target)
    u, _, vh = torch.linalg.svd(target, full_matrices=False)
    product = num_classes / (num_classes - 1) * u[:, : num_classes - 1] @ vh[: num_classes - 1]
    return product, float((product * target).sum() / product.square().sum())


def _finite_double(target: Tensor) -> Tensor:
    target = target.detach().to(device="cpu", dtype=torch.float64)
    if not torch.isfinite(target).all():
        raise ValueError("the nearest ETF of a weight with non-finite entries is undefined: training has diverged")
    return target
