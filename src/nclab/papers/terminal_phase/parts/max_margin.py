"""metrics.suite=max_margin: how far the classifier's direction is from the multi-class max-margin solution.

Soudry et al. 2018: on features that a linear classifier separates, gradient descent on cross-entropy lets the norm of W
grow without end, and its direction tends to that of the hard-margin multi-class SVM, like 1 / log t.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes
from nclab.papers.terminal_phase.parts.alone import head, require_one_process, weight_and_bias

MOST_NUMBERS = 2**25  # of the constraints' matrix, 256 MiB
TOLERANCE = 1e-6  # by which a margin of the solution may miss 1


@METRICS.add("max_margin", SuiteSettings)
class MaxMargin(Metric):
    """At the classifier's input, train split, for a classifier without a bias:

    `max_margin_distance` = || W/||W||_F - V/||V||_F ||_F, V the max-margin solution: 0 in the limit.
    `margin_share` = min_i,c (w_y - w_c) h_i / ||W||_F over that of V: 1 in the limit, above 0 where all are separated.
    `weight_norm` = ||W||_F: without end.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        require_classes("max_margin", context)
        require_one_process("max_margin")
        if head(context).bias is not None:
            raise ValueError("metrics.suite: max_margin needs a classifier without a bias (model.bias=false), got one")
        self.context = context
        self.feature, self.layer = last_layer(context)
        self.features: list[Tensor] = []
        self.labels: list[Tensor] = []

    def wanted(self, n_pass: int) -> set[str]:
        return {self.feature}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        if self.context.train is None:
            self.features.append(features[self.feature].double().cpu())
            self.labels.append(batch.targets.cpu())

    def sums(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)  # one process: nothing to add up

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        h, y = torch.cat(self.features).numpy(), torch.cat(self.labels).numpy()
        weight = weight_and_bias(self.context)[0].numpy()
        found = against_max_margin(weight, h, y)
        return {f"{self.layer}/{name}": value for name, value in found.items()}


def against_max_margin(weight: np.ndarray, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The columns of the suite, for W (C, d), features (N, d) and labels (N,)."""
    best = _cached(features.tobytes(), labels.tobytes(), features.shape, len(weight))
    norm = float(np.linalg.norm(weight))
    distance = np.linalg.norm(weight / norm - best / np.linalg.norm(best))
    share = least_margin(weight, features, labels) / norm * np.linalg.norm(best)
    return {"max_margin_distance": float(distance), "margin_share": float(share), "weight_norm": norm}


def least_margin(weight: np.ndarray, features: np.ndarray, labels: np.ndarray) -> float:
    """min over samples i and classes c other than y of (w_y - w_c) h_i."""
    logits = features @ weight.T  # (N, C)
    rows = np.arange(len(labels))
    right = logits[rows, labels]
    logits[rows, labels] = -np.inf
    return float((right - logits.max(1)).min())


def max_margin(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The hard-margin multi-class SVM of Crammer and Singer without a bias: the V (C, d) of least ||V||_F with
    (v_y - v_c) h_i >= 1 for every sample i and every class c other than y.

    A least-distance problem, solved to rounding by non-negative least squares (Lawson and Hanson 1974, chapter 23).

    Raises:
        ValueError: no linear classifier separates the features, or there are too many of them.

    >>> max_margin(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0, 1]), 2).round(6).tolist()
    [[0.25, 0.0], [-0.25, 0.0]]
    """
    from scipy.optimize import lsq_linear, nnls  # half a second, which other suites need not wait for

    samples, dim = features.shape
    constraints = samples * (classes - 1)
    if constraints * (classes * dim + 1) > MOST_NUMBERS:
        most = MOST_NUMBERS // ((classes - 1) * (classes * dim + 1))
        raise ValueError(f"metrics.suite: max_margin takes at most {most} samples of {dim} numbers, got {samples}")
    others = np.array([[c for c in range(classes) if c != y] for y in labels])  # (N, C-1)
    of = np.arange(samples)[:, None]
    z = np.zeros((samples, classes - 1, classes, dim))  # <z, V> is the margin
    z[of, np.arange(classes - 1), labels[:, None]] += features[:, None]
    z[of, np.arange(classes - 1), others] -= features[:, None]
    matrix = np.vstack([z.reshape(constraints, -1).T, np.ones(constraints)])  # (C d + 1, K)
    wanted = np.zeros(len(matrix))
    wanted[-1] = 1.0
    # On features as even as an ETF's, nnls stops early on some processors. A margin of 1 everywhere is what tells the
    # solution: where it is missed, another algorithm solves the same problem.
    for solve in (
        lambda: nnls(matrix, wanted, maxiter=50 * constraints)[0],
        lambda: lsq_linear(matrix, wanted, bounds=(0, np.inf), method="bvls", tol=1e-15).x,
    ):
        residual = matrix @ solve() - wanted
        if -residual[-1] > 1e-10:  # ||residual||^2, 0 where no V exists
            solution = (-residual[:-1] / residual[-1]).reshape(classes, dim)
            if least_margin(solution, features, labels) >= 1 - TOLERANCE:
                return solution
    raise ValueError(
        f"metrics.suite: max_margin needs features that a linear classifier without a bias separates, got {samples} "
        "that none does; keep fewer samples (dataset.train_size)"
    )


@lru_cache(maxsize=4)
def _cached(features: bytes, labels: bytes, shape: tuple[int, int], classes: int) -> np.ndarray:
    """The features of a linear model stay what they are: solved once a process."""
    return max_margin(np.frombuffer(features).reshape(shape), np.frombuffer(labels, np.int64), classes)
