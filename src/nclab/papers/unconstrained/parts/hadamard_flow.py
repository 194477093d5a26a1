"""metrics.suite=hadamard: singular values, singular vectors and the Lyapunov function of model=hadamard."""

import math

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, require_classes
from nclab.papers.unconstrained.parts.hadamard import Hadamard
from nclab.theory.hadamard import leakage


@METRICS.add("hadamard", SuiteSettings)
class HadamardFlow(Metric):
    """Of the product Z = W H (K, K) with the frames L, R in which it was diagonal at the start, train split, network:

    `s_0` ... `s_{K-1}`: the diagonal of L^T Z R. From a Hadamard start s_0 never moves.
    `singular_value_0` ... `singular_value_{K-1}`: of Z, the largest first. The s_i again as long as L and R stay the
        singular vectors.
    `leakage`: || off-diagonal of L^T Z R ||_F / || Z ||_F. 0 as long as they stay.
    `log_excess`: log E, the loss being log(1 + E). To minus infinity.
    `lyapunov`: V = -log E / || P Z ||_* with P = I - 11^T / K and the nuclear norm; from a Hadamard start that of
        `nclab.theory.hadamard`. Below 1/(K-1) for every Z, by the same two inequalities; 1/(K-1) in the limit of
        collapse alone. nan of P Z = 0.
    `etf_cosine`: cosine of P Z and P, the simplex ETF. 1 at collapse.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        require_classes("hadamard", context)
        if not isinstance(context.model, Hadamard):
            raise ValueError(
                f"metrics.suite: hadamard measures model=hadamard, which knows its frames; got a model of kind "
                f"{type(context.model).__name__}"
            )
        self.context = context

    def wanted(self, n_pass: int) -> set[str]:
        return set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        """All is in the weights: the features are one of them."""

    def sums(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)  # nothing to add up

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        model = self.context.model
        z, left, right = (t.detach().double().cpu() for t in (model.product(), model.left, model.right))
        return of_product(z, left, right)


def of_product(z: Tensor, left: Tensor, right: Tensor) -> dict[str, float]:
    """The columns of the suite, for Z, L and R (K, K) in float64."""
    classes = len(z)
    centred = z - z.mean(0)  # P Z
    target = torch.eye(classes, dtype=z.dtype) - 1 / classes
    others = (z - z.diagonal()).fill_diagonal_(-math.inf)  # minus the margins of each column's class
    loss = torch.logsumexp(others, 0).exp().log1p().mean()
    log_excess = float(torch.log(torch.expm1(loss)))
    size, nuclear = float(centred.norm()), float(torch.linalg.svdvals(centred).sum())
    found = {
        "leakage": leakage(z.numpy(), left.numpy(), right.numpy()),
        "log_excess": log_excess,
        "lyapunov": -log_excess / nuclear if nuclear else math.nan,
        "etf_cosine": float((centred * target).sum()) / (size * float(target.norm())) if size else math.nan,
    }
    found |= {f"s_{i}": float(value) for i, value in enumerate((left.T @ z @ right).diagonal())}
    return found | {f"singular_value_{i}": float(value) for i, value in enumerate(torch.linalg.svdvals(z))}
