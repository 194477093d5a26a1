"""Neural regression collapse of features that are at hand (Andriopoulos et al. 2024, arXiv 2409.04180).

Features H (M, d), targets Y (M, n), the head's weight W (n, d). No d x d matrix is formed where M < d. All sums are
float64, so that features of any scale give the same digits.
"""

import torch
from torch import Tensor

NAN = float("nan")


def principal_axes(features: Tensor, count: int) -> Tensor:
    """The first `count` principal components of features (M, d), centred: (d, k) orthonormal columns, float64.

    By the thin SVD of the centred rows where M < d, else by the eigenvectors of their second moments (d, d). k is below
    `count` where the features vary along fewer directions: those with an eigenvalue above `cut_of`.

    >>> principal_axes(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), 1).abs().tolist()
    [[1.0], [0.0]]
    """
    z = features.double()
    return leading(z - z.mean(0), count)[0]


def leading(rows: Tensor, count: int, moment: bool = False) -> tuple[Tensor, Tensor]:
    """As `principal_axes` of rows (N, d) that are centred, or with `moment` of their second moments (d, d), and all
    eigenvalues in falling order, as sums over the rows."""
    if not moment and len(rows) >= rows.shape[1]:
        rows, moment = rows.T @ rows, True
    if moment:
        values, vectors = torch.linalg.eigh(rows)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    else:
        _, singular, axes = torch.linalg.svd(rows, full_matrices=False)
        values, vectors = singular.square(), axes.T
    kept = int((values > cut_of(values)).sum())
    return vectors[:, : min(count, kept)], values


def cut_of(values: Tensor) -> Tensor:
    """Eigenvalues (k,) up to k eps64 times the largest count as 0."""
    return len(values) * torch.finfo(torch.float64).eps * values.max()


def row_axes(weight: Tensor) -> Tensor:
    """An orthonormal basis (d, r) of the row space of W (n, d), float64; r < n where its singular values say so: those
    up to max(n, d) eps64 times the largest count as 0."""
    _, singular, axes = torch.linalg.svd(weight.detach().double(), full_matrices=False)
    cut = max(weight.shape) * torch.finfo(torch.float64).eps * singular.max()
    return axes[singular > cut].T


def outside_of(features: Tensor, axes: Tensor) -> Tensor:
    """|h~ - proj(h~)|^2 (M,), float64, of h~ = h/|h| and the span of orthonormal columns (d, k).

    nan where h = 0, and where there is no axis: a direction of nothing has no distance from anything."""
    h = features.double()
    h = h / torch.linalg.vector_norm(h, dim=1, keepdim=True)  # (M, d)
    if axes.shape[1] == 0:
        return h.new_full((len(h),), NAN)
    return (h - (h @ axes) @ axes.T).square().sum(1)


def nrc1(features: Tensor, count: int) -> float:
    """NRC1 = mean |h~ - proj(h~ | first n principal components of H)|^2, h~ = h/|h|; 0 at collapse, at most 1.

    Args:
        features: H (M, d), of the head's input. Centred for the components alone: h~ itself is not.
        count: n, the number of targets.

    nan where a feature is 0, and where the features do not vary.
    """
    return float(outside_of(features, principal_axes(features, count)).mean())


def nrc2(features: Tensor, weight: Tensor) -> float:
    """NRC2 = mean |h~ - proj(h~ | row space of W)|^2, h~ = h/|h|, H (M, d), W (n, d); 0 at collapse, at most 1.

    nan where a feature is 0, and where W = 0. An untrained W in general position has 1 - n/d.
    """
    return float(outside_of(features, row_axes(weight)).mean())


def explained_variance(features: Tensor, count: int = 5) -> list[float]:
    """Share of the variance of features (M, d) along each of the first principal components; the first n add up to 1 at
    collapse. nan where nothing varies; as many as d, M and `count` allow."""
    z = features.double()
    return shares(leading(z - z.mean(0), 0)[1], count)


def shares(values: Tensor, count: int) -> list[float]:
    """The first `count` of eigenvalues in falling order, over their sum."""
    return (values[:count] / values.sum()).tolist()
