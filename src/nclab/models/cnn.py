"""model=cnn: a small convolutional network for a CPU."""

from dataclasses import dataclass, field
from itertools import pairwise

from nclab.interfaces.shapes import ImageShape, Shape
from nclab.interfaces.valid import OutOfRange
from nclab.models.base import MODELS, MOST_LAYERS, MOST_UNITS
from nclab.models.convolution import Convolutional, ConvolutionSettings, pooled_stage, require_side


@dataclass
class CNNSettings(ConvolutionSettings):
    name: str = "cnn"
    channels: list[int] = field(default_factory=lambda: [16, 32, 64])  # of every stage; each halves the sides

    @property
    def label(self) -> str:
        same = "x".join(map(str, self.channels))
        return self.labelled(f"cnn{same}")


class CNN(Convolutional):
    """x (B, ch, h, w) -> conv1 -> ... -> convL -> global average pooling (B, d) -> fc = logits (B, C).

    A stage is 3 x 3 convolution without bias, batch norm, ReLU, and 2 x 2 max pooling, which halves the sides.

    Features: conv1, ..., convL, each the mean over the pixels (B, channels).
    """

    def __init__(self, settings: CNNSettings, seen: ImageShape, num_classes: int):
        channels = list(settings.channels)
        if not 1 <= len(channels) <= MOST_LAYERS or not all(1 <= c <= MOST_UNITS for c in channels):
            raise OutOfRange(f"model.channels must be numbers of at least 1, got {channels}", "model.channels")
        require_side("cnn", seen, 2 ** len(channels))
        if settings.features == "classes":
            channels[-1] = num_classes
        pairs = pairwise([seen.channels, *channels])
        stages = {f"conv{i}": pooled_stage([before, after]) for i, (before, after) in enumerate(pairs, 1)}
        super().__init__(settings, seen, stages, channels[-1], num_classes)


@MODELS.add("cnn", CNNSettings)
def build_cnn(settings: CNNSettings, shape: Shape, num_classes: int) -> CNN:
    return CNN(settings, settings.seen(shape), num_classes)
