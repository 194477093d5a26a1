"""metrics.suite=[calibration]: ece, nll and brier of every split, in the layer `network`."""

from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.calibration import of_samples, sample_scores
from nclab.metrics.rows import SampledRows
from nclab.metrics.suite import METRICS, NETWORK, Context, Metric, SuiteSettings, require_classes


@METRICS.add("calibration", SuiteSettings)
class CalibrationSuite(Metric):
    """One pass; of every sample four numbers are kept, since bins of equal mass need the order of all. With several
    heads, probabilities within that of the sample."""

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("calibration", context)
        self.targets = context.targets
        self.rows = SampledRows(context.samples, most=context.samples)

    def names(self, split: str) -> set[str]:
        return {"ece", "nll", "brier"}

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        labels = self.targets.groups(batch.targets)
        scores = sample_scores(features["logits"], labels, self.targets.others(labels.device))
        self.rows.add({"scores": scores}, batch.index)

    def sums(self) -> Tensor:
        return self.rows.sums()

    def compute(self, reduced: Tensor) -> dict[str, float]:
        self.rows.accept(reduced)
        return {f"{NETWORK}/{name}": value for name, value in of_samples(self.rows["scores"]).items()}
