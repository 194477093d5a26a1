"""Critical points of one layer on free features under cross-entropy, of any rank (Zhu et al. 2021, Theorem 3.2).

Classes are put into g equal groups; the logits tell groups apart and classes of a group not at all:
    Z = a (I_g - J_g/g) (x) J_m (x) 1_n^T,  C = g m,  e^a = g / (C s) - g + 1,  s = sqrt(n l_W l_H),
rank g - 1, singular values a m sqrt(n), W and H balanced. The gradient is 0 for every g that divides C where C s < 1.
g = 1 is all zero; g = C is the global minimum; all others are strict saddles, with a direction of negative curvature.
arXiv 2105.02375 proves that every critical point is a global minimum or a strict saddle; these are derived here.
"""

import math

import numpy as np


def grouped(
    classes: int,
    groups: int,
    per_class: int,
    dim: int,
    weight: float,
    features: float,
    random: np.random.Generator | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The critical point W (C, d), H (N, d) float64 of that many groups, with b = 0.

    Args:
        classes: C.
        groups: g, which divides C.
        per_class: n, rows of H a class; those of a class follow one another.
        dim: d, at least g - 1.
        weight: l_W.
        features: l_H.
        random: Draws which classes are a group, and the directions in R^d; None: neighbours, and the first axes.

    Raises:
        ValueError: g does not divide C, d is too small, or the penalties are so large that all but 0 is gone.

    >>> w, h = grouped(4, 2, 1, 3, 0.01, 0.01)
    >>> w.shape, h.shape, int(np.linalg.matrix_rank(w @ h.T))
    ((4, 3), (4, 3), 1)
    """
    if groups < 1 or classes % groups:
        valid = ", ".join(str(g) for g in range(1, classes + 1) if classes % g == 0)
        raise ValueError(f"groups: expected a number that divides {classes} ({valid}), got {groups}")
    if dim < groups - 1:
        raise ValueError(f"dim: expected at least {groups - 1}, one less than groups; got {dim}")
    s = math.sqrt(per_class * weight * features)
    if classes * s >= 1:
        raise ValueError(f"expected classes * sqrt(per_class * weight * features) below 1, got {classes * s:g}")
    w, h = np.zeros((classes, dim)), np.zeros((classes * per_class, dim))
    if groups == 1:
        return w, h
    size = classes // groups
    scale = math.log(groups / (classes * s) - groups + 1)
    order = np.arange(classes) if random is None else random.permutation(classes)
    axes = np.eye(dim) if random is None else np.linalg.qr(random.normal(size=(dim, dim)))[0]
    _, vectors = np.linalg.eigh(np.eye(groups) - 1 / groups)
    basis = np.repeat(vectors[:, 1:], size, 0) / math.sqrt(size)  # (C, g - 1), orthonormal: groups, centred
    means = np.empty_like(basis)
    means[order] = basis
    singular = scale * size * math.sqrt(per_class)
    # Balanced: l_W |W|^2 = l_H |H|^2 along each direction.
    tilt = (features / weight) ** 0.25
    w[:] = tilt * math.sqrt(singular) * means @ axes[: groups - 1]
    h[:] = np.repeat(means, per_class, 0) @ axes[: groups - 1] * math.sqrt(singular / per_class) / tilt
    return w, h
