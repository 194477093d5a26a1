"""metrics.suite=[margin]: cosine_margin_min and cosine_margin_mean at the classifier's input."""

from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.margin import of_samples, sample_margins
from nclab.metrics.meter import CollapseMeter
from nclab.metrics.rows import SampledRows
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes


@METRICS.add("margin", SuiteSettings)
class MarginSuite(Metric):
    """Two passes over the train split: mu_G, then the margin of every sample; one over any other, with that mu_G."""

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("margin", context)
        self.context = context
        self.feature, self.layer = last_layer(context)
        self.rows = SampledRows(context.samples, most=context.samples)
        self.passes = 2 if context.train is None else 1
        self.meter = CollapseMeter(context.targets.dim)
        self.mean: Tensor | None = None if context.train is None else context.train.mean  # mu_G (d,)

    def names(self, split: str) -> set[str]:
        return set()

    def wanted(self, n_pass: int) -> set[str]:
        return {self.feature}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        labels, h = self.context.targets.groups(batch.targets), features[self.feature]
        if n_pass < self.passes:
            self.meter.add_means(h, labels)
            return
        weight = self.context.model.get_submodule(self.context.model.classifier).weight
        self.rows.add({"margin": sample_margins(h, labels, weight, self.mean)}, batch.index)

    def sums(self) -> Tensor:
        return self.meter.sums() if self.mean is None else self.rows.sums()

    def next_pass(self, n_pass: int, reduced: Tensor) -> None:
        self.meter.accept(reduced)
        self.mean = self.meter.class_means.means.mean(0)

    def compute(self, reduced: Tensor) -> dict[str, float]:
        self.rows.accept(reduced)
        return {f"{self.layer}/{name}": value for name, value in of_samples(self.rows["margin"]).items()}
