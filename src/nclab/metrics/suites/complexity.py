"""metrics.suite=[complexity], exact, or [complexity_estimate], for many features: at the classifier's input, train."""

from collections.abc import Callable

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.complexity import (
    DIRECTIONS,
    directional_complexity,
    estimate_of,
    geometric_collapse,
    sample_complexity,
)
from nclab.metrics.geometry import NAN
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.precision import full_precision
from nclab.metrics.rows import LABELS, SampledRows
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes

MOST_ROWS = 256  # samples of the train split whose derivative is taken
PIECE = 64  # samples whose derivative is taken at once


@METRICS.add("complexity", SuiteSettings)
class ComplexitySuite(Metric):
    """One pass over the train split, then d backward passes of at most 256 of its samples
    (`nclab.metrics.rows.chosen_rows`), the network in evaluation mode.

    `geometric_complexity` of the features f that the classifier reads, (d,), by the inputs as the network sees them;
    `geometric_complexity_error`, its standard error over samples, std / sqrt(n); `geometric_collapse`, with the means
    of the whole split and the complexity of the chosen samples of each class. Every process takes all derivatives.
    """

    name = "complexity"

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes(self.name, context)
        if not context.continuous:
            raise ValueError(
                f"metrics.suite: {self.name} needs inputs with a derivative, images or arrays; this dataset holds "
                "numbers of tokens or rows"
            )
        self.context = context
        self.feature, self.layer = last_layer(context)
        self.rows = SampledRows(context.samples, MOST_ROWS)
        self.meter = CollapseMeter(context.targets.dim)

    def names(self, split: str) -> set[str]:
        return set()

    def wanted(self, n_pass: int) -> set[str]:
        return {"input", self.feature}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        if self.context.train is not None:
            return
        labels = self.context.targets.groups(batch.targets)
        self.like = batch.inputs[:0]  # type, place and shape of the inputs
        self.rows.add({LABELS: labels[:, None], "input": features["input"]}, batch.index)
        self.meter.add_means(features[self.feature], labels)

    def sums(self) -> Tensor:
        if self.context.train is not None:
            return torch.zeros(1, dtype=torch.float64)
        return torch.cat([self.rows.sums(), self.meter.sums()])

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        rows, means = reduced.split([self.rows.size, len(self.meter.sums())])
        self.rows.accept(rows)
        self.meter.accept(means)
        return {f"{self.layer}/{name}": value for name, value in self.measured().items()}

    def measured(self) -> dict[str, float]:
        per_sample = torch.cat(self.of_pieces(sample_complexity))  # (n,)
        return {
            "geometric_complexity": float(per_sample.mean()),
            "geometric_complexity_error": float(per_sample.std() / len(per_sample) ** 0.5),
            "geometric_collapse": self.collapse(per_sample),
        }

    def of_pieces(self, take: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> list[Tensor]:
        """What `take` gives of embedding and inputs, of the chosen samples piece by piece."""
        model, like = self.context.model, self.like
        inputs = self.rows["input"].to(like).view(-1, *like.shape[1:])
        training = model.training
        model.eval()
        try:
            found = []
            for piece in inputs.split(PIECE):
                self.context.check()
                with full_precision(like.device.type):
                    found.append(take(lambda x: Output(*model(x)).features[self.feature], piece).cpu())
            return found
        finally:
            model.train(training)

    def collapse(self, per_sample: Tensor) -> float:
        """`geometric_collapse` of the complexities (n,) of the chosen samples."""
        labels = self.rows[LABELS][:, 0].long()
        of_class = torch.full((self.context.targets.dim,), NAN, dtype=torch.float64)
        for label in labels.unique():
            of_class[label] = per_sample[labels == label].mean()
        return geometric_collapse(of_class, self.meter.class_means)


@METRICS.add("complexity_estimate", SuiteSettings)
class ComplexityEstimateSuite(ComplexitySuite):
    """As suite `complexity`, by Hutchinson's method: 16 backward passes of the same samples instead of d.

    `geometric_complexity_estimate`; `geometric_complexity_estimate_error`, its standard error over the directions
    alone; `geometric_collapse_estimate`. The directions are the same in every measurement of every run.
    """

    name = "complexity_estimate"

    def measured(self) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        take = lambda embed, piece: directional_complexity(embed, piece, DIRECTIONS, generator)  # noqa: E731
        drawn = torch.cat(self.of_pieces(take), 1)  # (M, n)
        estimate, error = estimate_of(drawn)
        return {
            "geometric_complexity_estimate": estimate,
            "geometric_complexity_estimate_error": error,
            "geometric_collapse_estimate": self.collapse(drawn.mean(0)),
        }
