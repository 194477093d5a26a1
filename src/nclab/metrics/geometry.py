"""ClassMeans: the class means of a layer and what every metric needs of them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
NAN = float("nan")
NEAR = 1e-4  # of |a|^2 + |b|^2: where ||a - b||^2 loses too many digits in |a|^2 + |b|^2 - 2 a . b


@dataclass(frozen=True)
class ClassMeans:
    """Class means of a layer, float64, and what every metric needs of them; `geometry` makes it.

    means (C, d): mu_c.
    scale: a power of two that brings the largest entry of `means` between 1/2 and 1. All below is of scale * mu_c, so
        that no square leaves the range of its precision.
    centred (C, d): the rows m_c of M, m_c = mu_c - mu_G.
    gram (C, C): M M^T.
    eigenvalues (C,): of the Gram, in descending order.
    cut: a squared length up to which a vector between means is rounding (see `geometry`).
    rank: eigenvalues above the cut.
    basis (d, rank): V = M^T U lambda^(-1/2), orthonormal; U are the eigenvectors of the Gram.
    coordinates (C, rank): M V, the rows m_c in that basis.
    distances (C, C): ||mu_c - mu_c'||^2.
    """

    means: Tensor
    scale: float
    centred: Tensor
    gram: Tensor
    eigenvalues: Tensor
    cut: float
    rank: int
    basis: Tensor
    coordinates: Tensor
    distances: Tensor


def class_means(counts: Tensor, sums: Tensor, precision: torch.dtype = torch.float64) -> ClassMeans:
    """Class means and their geometry from the sums of pass 1 over features of dtype `precision`.

    Raises ValueError that names an empty class."""
    counts, sums = counts.cpu(), sums.cpu()
    empty = torch.nonzero(counts == 0).flatten().tolist()
    if empty:
        raise ValueError(f"class {', '.join(map(str, empty))} has no sample: its mean does not exist")
    return geometry(sums / counts[:, None], precision)


def geometry(means: Tensor, precision: torch.dtype = torch.float64) -> ClassMeans:
    """Geometry of class means (C, d) that were taken from features of dtype `precision`.

    Raises ValueError for another shape and for fewer than 2 classes.

    An eigenvalue counts as a direction above the cut max(C eps64 lambda_max, C (eps ||mu||_F)^2), eps that of
    `precision`: the second term is the rounding of the features themselves. Without it C equal means would span
    directions of pure rounding noise (a class token before the first block)."""
    if means.ndim != 2 or not means.shape[1]:
        raise ValueError(f"class means must have shape (C, d) with d > 0, got {tuple(means.shape)}")
    means = means.to(torch.float64)
    num_classes = means.shape[0]
    if num_classes < 2:
        raise ValueError(f"neural collapse needs at least 2 classes, got {num_classes}")
    scale = power_of_two(means, precision)
    scaled = scale * means
    centred = scaled - scaled.mean(0)
    gram = centred @ centred.T
    if not torch.isfinite(gram).all():
        nothing = torch.full((num_classes,), NAN, dtype=torch.float64)
        empty = [means.new_zeros(size, 0) for size in reversed(means.shape)]
        return ClassMeans(means, scale, centred, gram, nothing, NAN, 0, *empty, gram)
    of_classes = num_classes <= means.shape[1]  # the smaller of the two Gram matrices has the same eigenvalues, but 0
    values, vectors = torch.linalg.eigh(gram if of_classes else centred.T @ centred)
    values, vectors = values.flip(0), vectors.flip(1)  # descending
    noise = num_classes * (torch.finfo(precision).eps * scaled.norm()) ** 2
    cut = float(torch.maximum(num_classes * EPS * values[0], noise))
    rank = int((values > cut).sum())
    vectors = vectors[:, :rank]
    basis = centred.T @ (vectors / values[:rank].sqrt()) if of_classes else vectors.contiguous()  # (d, rank)
    eigenvalues = torch.cat([values, values.new_zeros(num_classes - len(values))])
    distances = _squared_distances(centred, gram)
    return ClassMeans(means, scale, centred, gram, eigenvalues, cut, rank, basis, centred @ basis, distances)


def _squared_distances(rows: Tensor, gram: Tensor) -> Tensor:
    """||a - b||^2 (C, C) of all pairs of rows (C, d) with Gram matrix `gram`, float64, to 11 digits: from the Gram
    matrix, and from the differences of the rows where its entries cancel."""
    norms = gram.diagonal()
    largest = norms[:, None] + norms
    distances = largest - 2 * gram
    near = (distances < NEAR * largest).fill_diagonal_(False)
    some = torch.nonzero(near.any(1)).flatten()
    direct = torch.cdist(rows[some], rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    distances[some] = torch.where(near[some], direct, distances[some])
    return distances.fill_diagonal_(0)


def power_of_two(matrix: Tensor, precision: torch.dtype = torch.float64) -> float:
    """The power of two that brings the largest entry of a matrix between 1/2 and 1: multiplying by it loses no digit.

    1 where that entry is 0 or not finite. Exponents end where those of `precision` do: 126 for float32."""
    largest = float(matrix.abs().max())
    if not math.isfinite(largest) or largest == 0:
        return 1.0
    most = 1022 if precision == torch.float64 else 126
    return 2.0 ** -max(-most, min(most, math.frexp(largest)[1]))
