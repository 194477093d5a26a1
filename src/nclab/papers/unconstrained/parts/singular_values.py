"""metrics.suite=[singular_values]: singular values of class means and weights, layer by layer."""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, require_classes


@METRICS.add("singular_values", SuiteSettings)
class SingularValues(Metric):
    """At every probe point, train split: `means_singular_1` ... `means_singular_K`, the singular values of the class
    means (C, d) as they are, not centred, in descending order, 0 beyond min(C, d); K = C. Of the layer's weight
    `weight_singular_1` ... `weight_singular_K` likewise, its C largest.

    At collapse the first C - 1 of both are equal where class means are centred (a simplex ETF), the first C where they
    are orthogonal.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        require_classes("singular_values", context)
        self.context = context
        self.features = list(dict.fromkeys(probe.feature for probe in context.probes))
        self.means: dict[str, Tensor] = {}  # sums by class (C, d)
        self.counts = torch.zeros(context.targets.dim, dtype=torch.float64)

    def names(self, split: str) -> set[str]:
        return set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        if self.context.train is not None:
            return
        y = batch.targets
        self.counts += y.bincount(minlength=len(self.counts)).cpu()
        for name in self.features:
            h = features[name].double()
            own = h.new_zeros(len(self.counts), h.shape[1]).index_add_(0, y, h).cpu()  # (C, d)
            self.means[name] = self.means[name] + own if name in self.means else own

    def sums(self) -> Tensor:
        return torch.cat([self.counts, *(self.means[name].flatten() for name in self.features if name in self.means)])

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        counts, *sums = reduced.cpu().split([len(self.counts), *(self.means[name].numel() for name in self.features)])
        means = {
            name: own.view(len(counts), -1) / counts[:, None] for name, own in zip(self.features, sums, strict=True)
        }
        layers, values = self.context.model.etf_sites(), {}
        for probe in self.context.probes:
            found = {"means": means[probe.feature]}
            if probe.site in layers:
                found["weight"] = layers[probe.site].weight.detach().double().cpu()
            for what, matrix in found.items():
                for i, value in enumerate(leading(matrix, len(counts)), 1):
                    values[f"{probe.layer}/{what}_singular_{i}"] = value
        return values


def leading(matrix: Tensor, count: int) -> list[float]:
    """The `count` largest singular values of a matrix, in descending order; 0 where it has fewer; nan where a number of
    it is not finite.

    >>> leading(torch.diag(torch.tensor([1.0, 3.0])), 3)
    [3.0, 1.0, 0.0]
    """
    if not matrix.isfinite().all():
        return [float("nan")] * count
    found = torch.linalg.svdvals(matrix)[:count].tolist()
    return found + [0.0] * (count - len(found))
