"""metrics.suite=[few_shot] dataset.source_classes=N: what the features are worth on the classes that are held out."""

import torch
from torch import Tensor

from nclab.interfaces.batch import Batch, Output
from nclab.metrics.at_hand import measure
from nclab.metrics.few_shot import EPISODES, few_shot_accuracy, half_probe_accuracy
from nclab.metrics.geometry import NAN
from nclab.metrics.rows import LABELS, MOST_ROWS, SampledRows
from nclab.metrics.suite import METRICS, Context, Metric, SuiteSettings, last_layer, require_classes

SHOTS = (1, 5)


@METRICS.add("few_shot", SuiteSettings)
class FewShotSuite(Metric):
    """One pass over the held-out samples, with the train split; of at most 2000 of them, at the classifier's input.

    `few_shot_accuracy_1` and `_5`, by the nearest class mean, and `few_shot_error_1` and `_5`, their standard errors,
    of 1000 episodes, the same ones in every measurement; `target_linear_accuracy`, of a linear probe of one half on the
    other; `target_cdnv`, `cdnv` of the held-out classes. That of the source classes is in suite `collapse`.
    """

    outside = True

    def __init__(self, settings: SuiteSettings | None = None):
        pass

    def start(self, context: Context) -> None:
        require_classes("few_shot", context)
        if not context.held_out:
            raise ValueError(
                "metrics.suite: few_shot needs held-out classes: set dataset.source_classes or dataset.source_list"
            )
        if context.held_out < 2:
            raise ValueError(f"metrics.suite: few_shot needs two held-out classes or more, got {context.held_out}")
        self.context = context
        self.feature, self.layer = last_layer(context)
        self.rows = SampledRows(context.outside, MOST_ROWS)

    def names(self, split: str) -> set[str]:
        return set()

    def wanted(self, n_pass: int) -> set[str]:
        return set()

    def add(self, n_pass: int, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        """Nothing of the source classes."""

    def add_outside(self, features: dict[str, Tensor], batch: Batch, out: Output) -> None:
        self.rows.add({LABELS: batch.targets[:, None], self.feature: features[self.feature]}, batch.index)

    def sums(self) -> Tensor:
        return torch.zeros(1, dtype=torch.float64) if self.context.train is not None else self.rows.sums()

    def compute(self, reduced: Tensor) -> dict[str, float]:
        if self.context.train is not None:
            return {}
        self.rows.accept(reduced)
        h, y = self.rows[self.feature], self.rows[LABELS][:, 0].long()
        found = {}
        for shots in SHOTS:
            self.context.check()
            found[f"few_shot_accuracy_{shots}"], found[f"few_shot_error_{shots}"] = few_shot_accuracy(
                h, y, shots, episodes=EPISODES
            )
        self.context.check()
        found["target_linear_accuracy"] = half_probe_accuracy(h, y)
        all_there = len(y.unique()) == self.context.held_out and bool(torch.isfinite(h).all())
        found["target_cdnv"] = measure(h, y, self.context.held_out)["cdnv"] if all_there else NAN
        return {f"{self.layer}/{name}": value for name, value in found.items()}
