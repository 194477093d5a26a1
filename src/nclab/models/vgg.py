"""model=vgg: the convolutions of VGG (Simonyan and Zisserman 2015) with batch norm, and one linear classifier."""

from dataclasses import dataclass
from itertools import pairwise

from nclab.interfaces.shapes import ImageShape, Shape
from nclab.interfaces.valid import no_choice
from nclab.models.base import MODELS, MOST_UNITS, between
from nclab.models.convolution import Convolutional, ConvolutionSettings, drawn_for_relu, pooled_stage, require_side

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2)}  # -> how many convolutions each block has
FACTORS = (1, 2, 4, 8, 8)  # of the width: channels of each block


@dataclass
class VGGSettings(ConvolutionSettings):
    name: str = "vgg"
    depth: int = 13  # names the blocks: 11 | 13, of which 8 | 10 layers are convolutions
    width: int = 64  # channels of the first block; the last has eight times as many

    @property
    def label(self) -> str:
        return self.labelled(f"vgg{self.depth}" + ("" if self.width == 64 else f"x{self.width}"))


class VGG(Convolutional):
    """x (B, ch, h, w) -> block1 -> ... -> block5 -> global average pooling (B, d) -> fc = logits (B, C).

    A block is one or two times 3 x 3 convolution, batch norm and ReLU, then 2 x 2 max pooling. The blocks are those of
    torchvision's vgg11_bn and vgg13_bn, without the biases before a batch norm, which do nothing. Of VGG's three linear
    layers one is left, as usual for images of 32 x 32, without dropout.

    Features: block1, ..., block5, each the mean over the pixels (B, channels). With features=classes the last
    convolution has K channels.
    """

    def __init__(self, settings: VGGSettings, seen: ImageShape, num_classes: int):
        s = settings
        if s.depth not in DEPTHS:
            raise no_choice("model.depth", s.depth, DEPTHS)
        between("width", s.width, 1, MOST_UNITS)
        require_side("vgg", seen, 2 ** len(FACTORS))
        channels = [seen.channels, *(factor * s.width for factor in FACTORS)]
        stages = {}
        for i, (before, after) in enumerate(pairwise(channels), 1):
            within = [after] * DEPTHS[s.depth][i - 1]
            if i == len(FACTORS) and s.features == "classes":
                within[-1] = num_classes
            stages[f"block{i}"] = drawn_for_relu(pooled_stage([before, *within]))
        super().__init__(s, seen, stages, within[-1], num_classes)


@MODELS.add("vgg", VGGSettings)
def build_vgg(settings: VGGSettings, shape: Shape, num_classes: int) -> VGG:
    return VGG(settings, settings.seen(shape), num_classes)
