"""metrics.suite=[past]: features of earlier phases at the classifier's input, beside the present ones."""

from dataclasses import fields

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.collapse import classifier_of
from nclab.metrics.past import past_geometry
from nclab.metrics.rows import LABELS, SampledRows
from nclab.metrics.suite import METRICS, Context, Metric, Seen, SuiteSettings, last_layer, require_classes

RIGHT = "right "  # no feature is called so


@METRICS.add("past", SuiteSettings)
class PastSuite(Metric):
    """One pass over the train split: the columns of `nclab.metrics.past.past_geometry` at the classifier's input, nan
    in the first phase and in runs without phases; of other splits nothing. It keeps the features of all samples seen.

    Of the network present_accuracy, past_accuracy and memory_accuracy: the share of these samples that it gets right,
    with several heads within that of the sample; nan of none. 1 at collapse.
    """

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("past", context)
        self.context = context
        self.feature, self.layer = last_layer(context)
        if context.train is None:
            self.seen = context.seen or Seen(torch.arange(context.samples))
            self.rows = SampledRows(context.samples, context.samples, self.seen.rows)

    def names(self, split: str) -> set[str]:
        return {f"{field.name}_accuracy" for field in fields(Seen)} if split == "train" else set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        if self.context.train is None:
            labels = self.context.targets.groups(batch.targets)
            right = self.context.targets.within_heads(out.prediction, labels).argmax(1) == labels
            own = {LABELS: labels[:, None], RIGHT: right[:, None], self.feature: features[self.feature]}
            self.rows.add(own, batch.index)
            self.dtype = features[self.feature].dtype

    def sums(self) -> Tensor:
        return self.rows.sums() if self.context.train is None else torch.zeros(1, dtype=torch.float64)

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        self.rows.accept(reduced)
        # The rows that are held, by their place among them.
        held = self.seen.rows
        seen = Seen(*(torch.searchsorted(held, rows.contiguous()) for rows in vars(self.seen).values()))
        model = self.context.model
        weight, _ = classifier_of(model.etf_sites()[model.classifier])
        features, labels = self.rows[self.feature].to(self.dtype), self.rows[LABELS][:, 0].long()
        found = {f"{self.layer}/{name}": v for name, v in past_geometry(features, labels, seen, weight).items()}
        right = self.rows[RIGHT][:, 0]
        return found | {f"{name}_accuracy": float(right[rows].mean()) for name, rows in vars(seen).items()}
