"""metrics.suite=angles: the standard deviation of the cosines, by which Papyan, Han, Donoho 2020 say equiangular.

Their maximal angle, the mean distance of the cosines from -1/(C-1), is `nc2_equiangular` and `nc2_weight_equiangular`
of the suite `collapse`.
"""

import math

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.passes import unit_rows
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes
from nclab.papers.terminal_phase.parts.alone import weight_and_bias


@METRICS.add("angles", SuiteSettings)
class Angles(Metric):
    """At the classifier's input, train split: `nc2_cosine_std` of the centred class means, `nc2_weight_cosine_std` of
    the rows of W, which are not centred, as in the paper; both 0 at collapse."""

    def __init__(self, settings: SuiteSettings | None = None):
        self.context: Context | None = None

    def start(self, context: Context) -> None:
        require_classes("angles", context)
        self.context = context
        self.feature, self.layer = last_layer(context)
        self.meter = CollapseMeter(context.targets.dim)

    def wanted(self, n_pass: int) -> set[str]:
        return {self.feature}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        if self.context.train is None:
            self.meter.add_means(features[self.feature], batch.targets)

    def sums(self) -> Tensor:
        return self.meter.sums() if self.context.train is None else torch.zeros(1, dtype=torch.float64)

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        self.meter.accept(reduced)
        means = self.meter.class_means
        weight, _ = weight_and_bias(self.context)
        found = {
            "nc2_cosine_std": cosine_std(means.centred) if means.rank else math.nan,
            "nc2_weight_cosine_std": cosine_std(weight),
        }
        return {f"{self.layer}/{name}": value for name, value in found.items()}


def cosine_std(rows: Tensor) -> float:
    """Population standard deviation of the cosines of all pairs of rows (C, d). 0 where they are equiangular,
    nan where a row is 0.

    >>> cosine_std(torch.eye(3))
    0.0
    """
    unit = unit_rows(rows)
    i, j = torch.triu_indices(len(rows), len(rows), offset=1)
    return float((unit[i] * unit[j]).sum(1).std(correction=0))
