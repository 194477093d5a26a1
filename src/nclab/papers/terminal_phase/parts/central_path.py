"""metrics.suite=central_path: the squared error as a part that features decide and a part that W decides.

Han, Papyan, Donoho 2022, "Neural collapse under MSE loss: proximity to and dynamics on the central path", in our
notation: features h~ = (h, 1) (d + 1) with the bias in W~ = (W, b), penalties D = diag(lambda_W, ..., lambda_W,
lambda_b),
    L(W~)  = 1/(2N) sum_i ||W~ h~_i - e_y||^2 + 1/2 tr(W~ D W~^T)
    W_LS   = (1/N) Y H~^T (G + D)^(-1),  G = H~ H~^T / N         the least-squares classifier of these features
    L      = L_LS + L_perp,  L_LS = L(W_LS),  L_perp = 1/2 tr((W~ - W_LS) (G + D) (W~ - W_LS)^T)
    L_LS   = L_NC1 + L_NC23
    L_NC1  = 1/2 tr(W_LS (Sigma_W + D) W_LS^T),  L_NC23 = sum_c n_c / (2N) ||W_LS mu~_c - e_c||^2
The central path is where L_perp = 0.
"""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes
from nclab.papers.terminal_phase.parts.alone import head, weight_and_bias


@METRICS.add("central_path", SuiteSettings)
class CentralPath(Metric):
    """At the classifier's input, train split: `last_layer_objective` L, `least_squares_loss` L_LS,
    `central_path_distance` L_perp, `least_squares_nc1` L_NC1, `least_squares_nc23` L_NC23.

    lambda is that of the loss's own penalty (loss.l2): of W in `Context.penalties`, of the bias likewise. L is the
    logged loss of loss=mse plus the penalty of the classifier. At collapse on the central path L_perp and
    tr(W_LS Sigma_W W_LS^T) are 0.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        require_classes("central_path", context)
        self.context = context
        self.feature, self.layer = last_layer(context)
        layer, classes = head(context), context.targets.dim
        self.size = layer.in_features + (layer.bias is not None)  # d or d + 1
        self.products = torch.zeros(self.size, self.size, dtype=torch.float64)
        self.by_class = torch.zeros(classes, self.size, dtype=torch.float64)
        self.counts = torch.zeros(classes, dtype=torch.float64)

    def wanted(self, n_pass: int) -> set[str]:
        return {self.feature}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        if self.context.train is not None:
            return
        h = features[self.feature].double()
        if self.size > h.shape[1]:
            h = torch.cat([h, h.new_ones(len(h), 1)], 1)  # (B, d + 1)
        y = batch.targets
        self.products += (h.T @ h).cpu()
        self.by_class += (
            torch.zeros(len(self.counts), self.size, dtype=h.dtype, device=h.device).index_add_(0, y, h).cpu()
        )
        self.counts += y.bincount(minlength=len(self.counts)).cpu()

    def sums(self) -> Tensor:
        if self.context.train is not None:
            return torch.zeros(1, dtype=torch.float64)
        return torch.cat([self.products.flatten(), self.by_class.flatten(), self.counts])

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        products, by_class, counts = reduced.cpu().split([self.size**2, self.by_class.numel(), len(self.counts)])
        weight, bias = weight_and_bias(self.context)
        extended = weight if bias is None else torch.cat([weight, bias[:, None]], 1)  # (C, d + 1)
        name = self.context.model.classifier
        penalties = torch.full((self.size,), self.context.penalties.get(f"{name}.weight", 0.0), dtype=torch.float64)
        if bias is not None:
            penalties[-1] = self.context.penalties.get(f"{name}.bias", 0.0)
        found = decomposed(
            extended, products.view(self.size, self.size), by_class.view(-1, self.size), counts, penalties
        )
        return {f"{self.layer}/{key}": value for key, value in found.items()}


def decomposed(
    weight: Tensor, products: Tensor, by_class: Tensor, counts: Tensor, penalties: Tensor
) -> dict[str, float]:
    """The columns of the suite.

    Args:
        weight: W~ (C, D).
        products: sum_i h~_i h~_i^T (D, D).
        by_class: sums of h~ by class (C, D), which is Y H~^T.
        counts: samples by class (C,), each above 0.
        penalties: the diagonal of D (D,).
    """
    total = counts.sum()
    gram = products / total
    cross = by_class / total  # Y H~^T / N
    whole = gram + penalties.diag()
    best = _solved(whole, cross)
    gap = weight - best
    shares = counts / total
    means = by_class / counts[:, None]  # (C, D)
    within = gram - means.T @ (shares[:, None] * means)  # Sigma_W
    misses = best @ means.T - torch.eye(len(counts), dtype=weight.dtype)  # column c: W_LS mu~_c - e_c
    nc1 = ((best @ (within + penalties.diag())) * best).sum() / 2
    nc23 = (shares * misses.square().sum(0)).sum() / 2
    return {
        "last_layer_objective": float(_objective(weight, whole, cross)),
        "least_squares_loss": float(_objective(best, whole, cross)),
        "central_path_distance": float(((gap @ whole) * gap).sum() / 2),
        "least_squares_nc1": float(nc1),
        "least_squares_nc23": float(nc23),
    }


def _objective(weight: Tensor, whole: Tensor, cross: Tensor) -> Tensor:
    """L(W~) = 1/2 - tr(W~ H~ Y^T / N) + 1/2 tr(W~ (G + D) W~^T)."""
    return 0.5 - (weight * cross).sum() + ((weight @ whole) * weight).sum() / 2


def _solved(whole: Tensor, cross: Tensor) -> Tensor:
    """The X (C, D) of least norm with X (G + D) = Y H~^T / N: without a penalty G may be singular, and the loss of all
    solutions is one. Directions of less than rounding have no say."""
    values, vectors = torch.linalg.eigh(whole)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
    basis = vectors[:, kept]
    return ((cross @ basis) / values[kept]) @ basis.T
