"""The strongly regular graph (SRG) solution of deep unconstrained features with ReLU (Sukenik et al. 2024).

C = r (r-1) / 2 classes are the edges of the complete graph on r vertices; B (r, C) is its incidence matrix, B_ve = 1
where vertex v is an end of edge e: B B^T = (r-2) I + J. With L >= 3 matrices, one column a class,
    W_1 H     = b B,                    the ReLU changes nothing
    W_l       = w I_r,                  l = 2 .. L-2: H_(L-1) = b w^(L-3) B
    W_(L-1)   = q (B^T - J/2),          rows q (1_e - 1/2): the entries behind it are
                                        q b w^(L-3) times 1, 0, -1 for two edges with 2, 1, 0 common vertices
    H_L       = m I,  m = q b w^(L-3),  behind the ReLU
    W_L       = (x/m) I                 (squared error), (x/m) (I - J/C) (cross-entropy)
The rank is at most r up to the last ReLU: far below C, at the price of W_(L-1).

Of W_1 and H with that product those are taken whose |W_1|^2 + |H|^2 is least: twice the nuclear norm of b B (x) 1_n^T.
arXiv 2405.14468; the scalars are derived here and checked by direct minimisation.
"""

from itertools import combinations

import numpy as np


def classes_of(vertices: int) -> int:
    """C = r (r-1) / 2. Raises ValueError for fewer than 3 vertices."""
    if vertices < 3:
        raise ValueError(f"vertices: expected at least 3, got {vertices}")
    return vertices * (vertices - 1) // 2


def incidence(vertices: int) -> np.ndarray:
    """B (r, C) float64 of the complete graph, a column an edge. Raises ValueError for fewer than 3 vertices.

    >>> incidence(3).astype(int).tolist()
    [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    """
    found = np.zeros((vertices, classes_of(vertices)))
    for edge, ends in enumerate(combinations(range(vertices), 2)):
        found[list(ends), edge] = 1
    return found


def nuclear_norm(vertices: int) -> float:
    """|B|_* = (r-1) sqrt(r-2) + sqrt(2 (r-1)): the singular values of B are sqrt(2 (r-1)) and r - 1 times sqrt(r-2)."""
    classes_of(vertices)
    return (vertices - 1) * (vertices - 2) ** 0.5 + (2 * (vertices - 1)) ** 0.5


def trunk(vertices: int, depth: int) -> float:
    """The least penalty of H, W_1 .. W_(L-1) that give H_L = m I (x) 1_n^T is decay/2 L (n trunk m^2)^(1/L).

    |B|_*^2 of H and W_1, r of each of the L - 3 that are w I_r, C r / 4 of W_(L-1): the product of what each costs.
    DNC has C^L in its place.

    Args:
        vertices: r, at least 3.
        depth: L, at least 3.
    """
    return nuclear_norm(vertices) ** 2 * vertices ** (depth - 3) * classes_of(vertices) * vertices / 4


def matrices(vertices: int, per_class: int, depth: int, scale: float) -> list[np.ndarray]:
    """[H, W_1, ..., W_L] float64 of the solution whose output is scale I (x) 1_n^T at the least penalty.

    H (r, C n), W_1 .. W_(L-2) (r, r), W_(L-1) (C, r), W_L (C, C); zero rows and columns make them wider.

    Args:
        vertices: r, at least 3.
        per_class: n, samples of each class, which follow one another.
        depth: L, at least 3.
        scale: x, above 0.

    Raises:
        ValueError: A number below its least.
    """
    if depth < 3:
        raise ValueError(f"depth: expected at least 3, got {depth}")
    if not scale > 0:
        raise ValueError(f"scale: expected above 0, got {scale:g}")
    b, classes = incidence(vertices), classes_of(vertices)
    left, singular, right = np.linalg.svd(b, full_matrices=False)
    shapes = [
        np.repeat(np.sqrt(singular)[:, None] * right, per_class, 1) / per_class**0.25,
        left * np.sqrt(singular) * per_class**0.25,
        *[np.eye(vertices)] * (depth - 3),
        b.T - 0.5,
        np.eye(classes),
    ]
    costs = np.array([(shape**2).sum() for shape in shapes])
    # Equal costs of all matrices are the least at a given product of their factors, which is x.
    each = (scale * np.sqrt(costs).prod()) ** (1 / len(shapes))
    return [each / cost**0.5 * shape for shape, cost in zip(shapes, costs, strict=True)]
