"""loss=label_smoothing: cross-entropy on labels that leave a share to all classes."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from nclab.interfaces.batch import Batch, Output
from nclab.interfaces.valid import OutOfRange
from nclab.training.objective import LOSSES, CrossEntropy, LossSettings


@dataclass
class LabelSmoothingSettings(LossSettings):
    name: str = "label_smoothing"
    smoothing: float = 0.1  # s, share of a label that all classes get alike, its own among them; in [0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.smoothing < 1:
            raise OutOfRange(f"loss.smoothing must be in [0, 1), got {self.smoothing:g}", "loss.smoothing")


@LOSSES.add("label_smoothing", LabelSmoothingSettings)
class LabelSmoothing(CrossEntropy):
    """-sum_c ((1 - s) [c = y] + s / C) log softmax(logits)_c, torch's label_smoothing (Szegedy et al. 2016).

    With unconstrained features its global optima collapse like those of cross-entropy (Zhou et al. 2022)."""

    several_heads = False  # a share of the label would go to logits of -inf

    def each(self, out: Output, batch: Batch) -> Tensor:
        share = self.settings.smoothing
        return functional.cross_entropy(out.prediction, batch.targets, reduction="none", label_smoothing=share)
