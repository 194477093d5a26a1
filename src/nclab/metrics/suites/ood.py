"""metrics.suite=[ood] metrics.ood_dataset=NAME: nc5 and neco_auroc at the classifier's input."""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.outside import nc5, neco_auroc
from nclab.metrics.rows import MOST_ROWS, SampledRows
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes


@METRICS.add("ood", SuiteSettings)
class OODSuite(Metric):
    """One pass. nc5 with the train split, of all samples outside; neco_auroc with every other split, of at most 2000
    samples of the train split, of that split and outside (`nclab.metrics.rows.chosen_rows`); of `train_clean`, whose
    samples are those of train, nothing."""

    outside = True

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("ood", context)
        if not context.outside:
            raise ValueError(
                "metrics.suite: ood needs samples of none of the classes: set metrics.ood_dataset to a dataset whose "
                "samples have the shape of this one's"
            )
        self.context = context
        self.feature, self.layer = last_layer(context)
        self.rows = SampledRows(context.samples, MOST_ROWS)
        if context.train is None:
            self.meter = CollapseMeter(context.targets.dim)
            self.others = SampledRows(context.outside, MOST_ROWS)
            self.total: Tensor | float = 0.0  # sum of the features outside, (d,)

    def names(self, split: str) -> set[str]:
        return set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        h = features[self.feature]
        self.rows.add({self.feature: h}, batch.index)
        if self.context.train is None:
            self.meter.add_means(h, self.context.targets.groups(batch.targets))

    def add_outside(self, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        h = features[self.feature]
        self.others.add({self.feature: h}, batch.index)
        self.total = self.total + h.sum(0, dtype=torch.float64)

    def sums(self) -> Tensor:
        if self.context.train is not None:
            return self.rows.sums()
        return torch.cat([self.rows.sums(), self.others.sums(), self.total, self.meter.sums()])

    def compute(self, reduced: Tensor) -> dict[str, float]:
        train = self.context.train
        if train is None:
            sizes = [self.rows.size, self.others.size, len(self.total), len(self.meter.sums())]
            rows, others, total, means = reduced.split(sizes)
            self.rows.accept(rows)
            self.others.accept(others)
            self.meter.accept(means)
            return {f"{self.layer}/nc5": nc5(self.meter.class_means, total / self.context.outside)}
        if self.context.of_train:
            return {}
        self.rows.accept(reduced)
        given = (train.rows[self.feature], self.rows[self.feature], train.others[self.feature])
        return {f"{self.layer}/neco_auroc": neco_auroc(*given, self.context.targets.dim)}
