"""loss=logit_adjusted: cross-entropy of logits to which the classes' shares of the train split are added."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from nclab.data import Dataset
from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.valid import OutOfRange
from nclab.models import Classifier
from nclab.training.objective import LOSSES, CrossEntropy, LossSettings


@dataclass
class LogitAdjustedSettings(LossSettings):
    name: str = "logit_adjusted"
    temperature: float = 1.0  # on the log share of a class; 1: Bayes-optimal for balanced accuracy; 0: cross-entropy

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.temperature < math.inf:
            said = f"loss.temperature must be at least 0 and finite, got {self.temperature:g}"
            raise OutOfRange(said, "loss.temperature")


@LOSSES.add("logit_adjusted", LogitAdjustedSettings)
class LogitAdjusted(CrossEntropy):
    """-log softmax(z + t log pi)_y, pi_c = n_c / N of the train split, t the temperature (Menon et al. 2021).

    Predictions are the logits z as they are: at t = 1 the largest is Bayes-optimal for balanced accuracy. The loss of
    another split has the shares of train too."""

    def setup(self, model: Classifier, dataset: Dataset) -> None:
        super().setup(model, dataset)
        counts = dataset.train.targets.bincount(minlength=dataset.targets.dim).to(dataset.floats)
        self.shift = self.settings.temperature * (counts / counts.sum()).log()  # (C,)

    def each(self, out: Output, batch: Batch) -> Tensor:
        return functional.cross_entropy(self.logits(out, batch) + self.shift, batch.targets, reduction="none")
