"""model=linear: the last layer alone, on samples that stand for features (Soudry et al. 2018)."""

from dataclasses import dataclass

from torch import Tensor, nn

from nclab.interfaces.batch import Output
from nclab.interfaces.shapes import Shape, flat_size
from nclab.models.base import MODELS, Classifier, ModelSettings, Probe


@dataclass
class LinearSettings(ModelSettings):
    name: str = "linear"
    bias: bool = False  # without one the max-margin solution goes through the origin, as the theorem has it


class Linear(Classifier):
    """x (B, ...) -> flattened, the features (B, d) -> head = logits (B, C). Nothing before the head is learnt."""

    def __init__(self, d_in: int, num_classes: int, bias: bool):
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(d_in, num_classes, bias=bias)

    def forward(self, x: Tensor) -> Output:
        features = x.flatten(1)  # (B, d)
        return Output(self.head(features), {"features": features})

    def etf_roles(self) -> dict[str, str]:
        return {"head": "classifier"}

    def probes(self, kind: str) -> list[Probe]:
        return [Probe("features", "features", "classifier_input"),
                Probe("head", "logits", "classifier", "head", ("head",))]  # fmt: skip

    def inputs(self) -> dict[str, str]:
        return {"head": "features"}


@MODELS.add("linear", LinearSettings)
def build_linear(settings: LinearSettings, shape: Shape, num_classes: int) -> Linear:
    """The classifier alone: its features are the samples, held fixed by being data."""
    return Linear(flat_size(shape, "linear"), num_classes, settings.bias)
