"""How many directions a matrix uses, and how evenly class means lie on the sphere."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from nclab.metrics.geometry import EPS, NAN, ClassMeans, power_of_two


def spectrum(matrix: Tensor, noise: float = 0.0) -> Tensor:
    """Squared singular values of a matrix (n, d) in descending order, float64, up to one common factor.

    They are the eigenvalues of the smaller of its two Gram matrices, (n, n) or (d, d). What is below
    max(n, d) eps64 times the largest, or below `noise` (a squared length in units of the matrix), counts as 0. All are
    nan where the largest is 0, below `noise`, or not finite.

    >>> import torch
    >>> spectrum(torch.diag(torch.tensor([1.0, 2.0])))
    tensor([0.2500, 0.0625], dtype=torch.float64)
    """
    rows = matrix.detach().double().cpu()
    scale = power_of_two(rows)
    rows = scale * rows
    rows = rows if len(rows) <= rows.shape[1] else rows.T
    gram = rows @ rows.T
    if not torch.isfinite(gram).all():
        return torch.full((len(gram),), NAN, dtype=torch.float64)
    squares = torch.linalg.eigvalsh(gram).flip(0)
    # The square of a scale of 2^600 is beyond a float: the root of the noise is scaled, and infinite is no error.
    root = math.sqrt(noise) * scale
    cut = max(max(matrix.shape) * EPS * float(squares[0]), root * root)
    squares = torch.where(squares > cut, squares, 0.0)
    return squares if squares[0] > 0 else torch.full_like(squares, NAN)


def feature_spectrum(features: Tensor, means: ClassMeans, precision: torch.dtype | None = None) -> Tensor:
    """`spectrum` of features (n, d) minus mu_G, the unweighted mean of the class means of the train split; what is
    below the rounding of the features themselves, (eps ||H||_F)^2, counts as 0. What suite `spectra` takes its
    `_features` columns of.

    Args:
        features: (n, d) of any split. means: of the train features, as a meter gives them. precision: the dtype in
            which the features were computed, if it is not theirs.

    Raises ValueError for features of another width than the means.

    >>> import torch
    >>> from nclab.metrics import geometry
    >>> h = torch.eye(4)
    >>> round(stable_rank(feature_spectrum(h, geometry(h))), 6)
    3.0
    """
    if features.ndim != 2 or features.shape[1] != means.means.shape[1]:
        width = means.means.shape[1]
        raise ValueError(f"features must have shape (n, {width}), as the class means, got {tuple(features.shape)}")
    rows = features.detach().double().cpu()
    root = torch.finfo(precision or features.dtype).eps * float(rows.norm())
    return spectrum(rows - means.means.mean(0), root * root)


def effective_rank(squares: Tensor) -> float:
    """exp(entropy of the singular values, each divided by their sum), of what `spectrum` gives. Roy and Vetterli 2007.

    Between 1 and the rank, which it reaches where all singular values are equal. C - 1 at collapse.

    >>> import torch
    >>> round(effective_rank(spectrum(torch.eye(5))), 6)
    5.0
    """
    share = squares.sqrt() / squares.sqrt().sum()
    return float(torch.special.entr(share).sum().exp())


def stable_rank(squares: Tensor) -> float:
    """||.||_F^2 / ||.||_2^2, of what `spectrum` gives. Rudelson and Vershynin 2007. Between 1 and the rank, which it
    reaches where all singular values are equal; at most the square of `effective_rank`. C - 1 at collapse."""
    return float(squares.sum() / squares[0])


def hyperspherical_uniformity(m: ClassMeans) -> float:
    """Mean over pairs of log(1 / || m_c/|m_c| - m_c'/|m_c'| ||) of the centred class means. Liu 2023 (arXiv
    2303.06484), with the logarithmic kernel.

    Lower is more even. The least there is with d >= C - 1 is that of the simplex ETF, -1/2 log(2C / (C-1)), at
    collapse; where C > d + 1 it lies above that. nan where two means have one direction, or a mean is mu_G itself.
    """
    logs = _log_inverse_distances(m)
    return NAN if logs is None else float(logs.mean())


def gnc2(m: ClassMeans) -> float:
    """std / |mean| over pairs of log(1 / || m_c/|m_c| - m_c'/|m_c'| ||), population std. 0 at collapse, where all
    pairs are equally far. Wu and Papyan 2024 (arXiv 2405.17767), for more classes than dimensions.

    nan where `hyperspherical_uniformity` is, and where that is 0."""
    logs = _log_inverse_distances(m)
    return NAN if logs is None or logs.mean() == 0 else float(logs.std(correction=0) / logs.mean().abs())


def _log_inverse_distances(m: ClassMeans) -> Tensor | None:
    """Of every pair of directions of the centred class means; None where one is undefined or two are the same up to
    the rounding of the features."""
    squares = m.gram.diagonal()
    if m.rank == 0 or (squares <= m.cut).any():
        return None
    directions = m.centred / squares.sqrt()[:, None]  # (C, d)
    distances = functional.pdist(directions)  # (C (C-1) / 2,)
    i, j = torch.triu_indices(len(squares), len(squares), offset=1)
    if (distances.square() * torch.minimum(squares[i], squares[j]) <= m.cut).any():
        return None
    return -distances.log()
