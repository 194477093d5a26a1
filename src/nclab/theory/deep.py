"""Deep unconstrained features: collapsed, low-rank and strongly regular solutions and their least objectives.

    (1/N) sum_i loss(W_L act(W_(L-1) ... act(W_1 h_i)), y_i) + decay/2 (sum_l |W_l|^2 + |H|^2),  N = C n, no bias
Every solution here is of one shape but for the sizes of its L + 1 matrices: its output is `scale` times
a fixed matrix.
The penalty that is least at a given scale x is a mean inequality over the matrices,
    decay/2 (L + 1) (rho x^2)^(1/(L+1)),
with one number rho for the shape, so that a `Family` has the objective loss(x) + that, minimised over x >= 0 alone.

- Linear layers: a product Z costs (L+1)/2 decay sum_i s_i^(2/(L+1)) over its singular values. Collapsed features have
  C - 1 equal ones (cross-entropy, Z = x (I - J/C) (x) 1_n^T) or C (squared error, Z = x I (x) 1_n^T).
- ReLU: H_L = m I (x) 1_n^T behind the last ReLU, C orthogonal class means, as deep neural collapse (DNC) has it, then
  W_L = (x/m) (I - J/C), or (x/m) I.
- Low rank, linear, cross-entropy: Z = x I_(C/2) (x) [[1, -1], [-1, 1]] (x) 1_n^T, C/2 singular values 2 x sqrt(n).
- Some classes in pairs, linear, cross-entropy: `some_in_pairs`, two sizes instead of one.
- Strongly regular graph (SRG), ReLU: `nclab.theory.regular_graph`.

Garrod and Keating 2024 (arXiv 2410.23169), Sukenik et al. 2024 (arXiv 2405.14468). The penalty of Z and the two
competitors are derived here; their losses are checked against explicit matrices.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from nclab.theory.regular_graph import classes_of, trunk

LOSSES = ("cross_entropy", "mse")


@dataclass(frozen=True)
class Least:
    """The least objective of a family and where it is: `scale` x, the mean `loss` alone; x is 0 where that is least."""

    objective: float
    loss: float
    scale: float


@dataclass(frozen=True)
class Family:
    """Solutions of one shape: objective(x) = loss(x) + decay/2 (L + 1) (rho x^2)^(1/(L+1)). depth: L."""

    loss: Callable[[float], float]
    rho: float
    depth: int

    def objective(self, scale: float, decay: float) -> float:
        """The least objective of its solutions of that scale x >= 0."""
        matrices = self.depth + 1
        return self.loss(scale) + decay / 2 * matrices * (self.rho * scale**2) ** (1 / matrices)

    def least(self, decay: float) -> Least:
        """Its minimum over x >= 0, which may be at 0: below one layer the penalty is not convex.

        Raises ValueError for a decay that is not above 0 and finite.
        """
        if not 0 < decay < math.inf:
            raise ValueError(f"decay: expected above 0 and finite, got {decay:g}")
        at_zero, matrices = self.loss(0.0), self.depth + 1
        # Beyond this x the penalty alone is larger than the objective at 0.
        most = math.log((2 * at_zero / (decay * matrices)) ** matrices / self.rho) / 2
        grid = np.linspace(min(most, 0.0) - 15, most, 4001)  # of log x; 0 is among them, or all are below
        values = [self.objective(math.exp(t), decay) for t in grid]
        i = int(np.argmin(values))
        bounds = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
        found = minimize_scalar(
            lambda t: self.objective(math.exp(t), decay), bounds=bounds, method="bounded", options={"xatol": 1e-10}
        )
        if found.fun >= at_zero:
            return Least(at_zero, at_zero, 0.0)
        scale = math.exp(found.x)
        return Least(float(found.fun), self.loss(scale), scale)


def collapsed(classes: int, per_class: int, depth: int, loss: str = "cross_entropy", relu: bool = False) -> Family:
    """Collapse in all layers: DNC where there is a ReLU (which one matrix, depth 1, has not).

    rho = n C^(L+1) under the squared error; under cross-entropy n (C-1)^(L+1) of linear layers, n (C-1) C^L with ReLU.

    Args:
        classes: C, at least 2.
        per_class: n, samples of each class.
        depth: L, matrices above the features, at least 1.
        loss: cross_entropy or mse (1/2 |z - e_y|^2).
        relu: whether a ReLU follows every matrix but the last.

    Raises:
        ValueError: A number below its least, or another loss.

    >>> round(collapsed(2, 1, 1).least(0.1).objective, 6)  # as one layer: -log 0.9 + 0.1 log 9
    0.325083
    """
    _check(classes, per_class, depth, loss, least_depth=1)
    if loss == "mse":
        return Family(_squared_error, per_class * classes ** (depth + 1), depth)
    hidden = classes if relu and depth > 1 else classes - 1
    return Family(_cross_entropy(classes), per_class * (classes - 1) * hidden**depth, depth)


def low_rank(classes: int, per_class: int, depth: int) -> Family:
    """Classes in pairs that share a direction: rank C/2 in every layer. Linear layers, cross-entropy.

    loss(x) = log(1 + e^(-2x) + (C-2) e^(-x)), rho = 4 n (C/2)^(L+1). Below `collapsed` for C >= 4, L >= 3 and C >= 6,
    L = 2, where decay is small.

    Args:
        classes: C, even and at least 2.
        per_class: n, samples of each class.
        depth: L, matrices above the features, at least 1.

    Raises:
        ValueError: An odd C, or a number below its least.
    """
    _check(classes, per_class, depth, "cross_entropy", least_depth=1)
    if classes % 2:
        raise ValueError(f"classes: expected an even number, which makes pairs; got {classes}")

    def loss(x: float) -> float:
        return math.log1p(math.exp(-2 * x) + (classes - 2) * math.exp(-x))

    return Family(loss, 4 * per_class * (classes / 2) ** (depth + 1), depth)


def some_in_pairs(classes: int, per_class: int, depth: int, pairs: int, decay: float) -> float:
    """The least objective of m pairs and a simplex ETF of the other r = C - 2m classes: rank m + r - 1 = C - 1 - m in
    every layer, between `collapsed` (m = 0) and `low_rank` (m = C/2). Linear layers, cross-entropy.

    Z (x) 1_n^T with Z = x I_m (x) [[1, -1], [-1, 1]] and y (I_r - J/r) on the diagonal, 0 elsewhere:
        loss = (2m/C) log(1 + e^(-2x) + (C-2) e^(-x)) + (r/C) log(1 + (r-1) e^(-y) + 2m e^(-y (1 - 1/r)))
        penalty = (L+1)/2 decay [m (2x sqrt(n))^(2/(L+1)) + (r-1) (y sqrt(n))^(2/(L+1))],
    minimised over x and y.

    Args:
        classes: C, at least 2.
        per_class: n, samples of each class.
        depth: L, matrices above the features, at least 1.
        pairs: m, from 0 to (C - 2) / 2.
        decay: lambda, above 0.

    Raises:
        ValueError: A number outside its range.
    """
    _check(classes, per_class, depth, "cross_entropy", least_depth=1)
    rest, power = classes - 2 * pairs, 2 / (depth + 1)
    if pairs < 0 or rest < 2:
        raise ValueError(f"pairs: expected 0 to {(classes - 2) // 2} of {classes} classes, got {pairs}")
    if not 0 < decay < math.inf:
        raise ValueError(f"decay: expected above 0 and finite, got {decay:g}")

    def objective(logs: np.ndarray) -> float:
        x, y = np.exp(np.minimum(logs, 300.0))
        of_pair = math.log1p(math.exp(-2 * x) + (classes - 2) * math.exp(-x))
        of_rest = math.log1p((rest - 1) * math.exp(-y) + 2 * pairs * math.exp(-y * (1 - 1 / rest)))
        size = pairs * (2 * x * per_class**0.5) ** power + (rest - 1) * (y * per_class**0.5) ** power
        return (2 * pairs * of_pair + rest * of_rest) / classes + (depth + 1) / 2 * decay * size

    starts = [(a, b) for a in (0.0, 1.0, 2.0) for b in (0.0, 1.0, 2.0)]
    exact = {"xatol": 1e-10, "fatol": 1e-15}
    found = [minimize(objective, start, method="Nelder-Mead", options=exact).fun for start in starts]
    return float(min(math.log(classes), *found))


def regular_graph(vertices: int, per_class: int, depth: int, loss: str = "mse") -> Family:
    """The strongly regular graph solution for C = r (r-1) / 2 classes: rank r up to the last ReLU, rank C behind it.

    rho = n C trunk under the squared error, n (C-1) trunk under cross-entropy, with `regular_graph.trunk`.

    Args:
        vertices: r, at least 3.
        per_class: n, samples of each class.
        depth: L, matrices above the features, at least 3.
        loss: mse (1/2 |z - e_y|^2) or cross_entropy.

    Raises:
        ValueError: A number below its least, or another loss.

    >>> graph, collapse = regular_graph(4, 1, 4).least(1e-3), collapsed(6, 1, 4, "mse", relu=True).least(1e-3)
    >>> graph.objective < collapse.objective
    True
    """
    classes = classes_of(vertices)
    _check(classes, per_class, depth, loss, least_depth=3)
    factor = per_class * trunk(vertices, depth)
    if loss == "mse":
        return Family(_squared_error, classes * factor, depth)
    return Family(_cross_entropy(classes), (classes - 1) * factor, depth)


def _squared_error(x: float) -> float:
    """1/(2N) |x I (x) 1_n^T - Y|^2."""
    return (x - 1) ** 2 / 2


def _cross_entropy(classes: int) -> Callable[[float], float]:
    """Of the logits x (I - J/C)."""
    return lambda x: math.log1p((classes - 1) * math.exp(-x))


def _check(classes: int, per_class: int, depth: int, loss: str, least_depth: int) -> None:
    for key, value, least in (("classes", classes, 2), ("per_class", per_class, 1), ("depth", depth, least_depth)):
        if value < least:
            raise ValueError(f"{key}: expected at least {least}, got {value}")
    if loss not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}; got {loss!r}")
