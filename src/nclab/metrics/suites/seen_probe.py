"""metrics.suite=[seen_probe]: a linear probe at the classifier's input, trained on all samples seen so far."""

from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.probing import SeenProbe
from nclab.metrics.rows import LABELS, SampledRows
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes


@METRICS.add("seen_probe", SuiteSettings)
class SeenProbeSuite(Metric):
    """One pass. seen_probe_accuracy of every split but train (`nclab.metrics.probing.SeenProbe`): trained on all train
    samples that the phases so far drew from, tested on the whole other split; none of `train_clean`, whose samples are
    those of train. On the test split of task j after task i it is A*_ij, beside the network's A_ij."""

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("seen_probe", context)
        self.context = context
        self.feature, self.layer = last_layer(context)
        seen = context.seen.rows if context.train is None and context.seen else None
        self.rows = SampledRows(context.samples, context.samples, seen)

    def names(self, split: str) -> set[str]:
        return set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        labels = self.context.targets.groups(batch.targets)
        self.rows.add({LABELS: labels[:, None], self.feature: features[self.feature]}, batch.index)

    def sums(self) -> Tensor:
        return self.rows.sums()

    def compute(self, reduced: Tensor) -> dict[str, float]:
        self.rows.accept(reduced)
        given = self.rows[self.feature], self.rows[LABELS][:, 0]
        if self.context.train is None:
            self.context.check()  # a fit takes seconds
            self.probe = SeenProbe(*given, self.context.targets.heads)
            return {}
        if self.context.of_train:
            return {}
        return {f"{self.layer}/seen_probe_accuracy": self.context.train.probe.accuracy(*given)}
