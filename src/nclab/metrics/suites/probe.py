"""metrics.suite=[probe]: a linear probe and nearest neighbours at every probe point."""

from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.probing import knn_accuracy, linear_probe_accuracy
from nclab.metrics.rows import LABELS, MOST_ROWS, SampledRows
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, require_classes


@METRICS.add("probe", SuiteSettings)
class ProbeSuite(Metric):
    """One pass. linear_probe_accuracy and knn_accuracy of every split but train: trained on at most 2000 samples of the
    train split, tested on at most 2000 of the other (`nclab.metrics.rows.chosen_rows`). None of `train_clean`, whose
    samples are those of train."""

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("probe", context)
        self.context = context
        self.features = list(dict.fromkeys(probe.feature for probe in context.probes))
        self.rows = SampledRows(context.samples, MOST_ROWS)

    def names(self, split: str) -> set[str]:
        return set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        labels = self.context.targets.groups(batch.targets)
        self.rows.add({LABELS: labels[:, None], **{f: features[f] for f in self.features}}, batch.index)

    def sums(self) -> Tensor:
        return self.rows.sums()

    def compute(self, reduced: Tensor) -> dict[str, float]:
        self.rows.accept(reduced)
        if self.context.train is None or self.context.of_train:
            return {}
        own, train = self.rows, self.context.train.rows
        found = {}
        for f in self.features:
            self.context.check()  # a fit takes seconds
            given = (train[f], train[LABELS][:, 0], own[f], own[LABELS][:, 0])
            found[f] = {"linear_probe_accuracy": linear_probe_accuracy(*given), "knn_accuracy": knn_accuracy(*given)}
        return {
            f"{probe.layer}/{name}": value
            for probe in self.context.probes
            for name, value in found[probe.feature].items()
        }
