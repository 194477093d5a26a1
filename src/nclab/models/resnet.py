"""model=resnet: residual networks (He et al. 2016) of torchvision's blocks, for small and large images."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from nclab.interfaces.shapes import ImageShape, Shape
from nclab.interfaces.valid import no_choice
from nclab.models.base import MODELS, MOST_UNITS, between
from nclab.models.convolution import Convolutional, ConvolutionSettings, drawn_for_relu, require_side

# depth -> torchvision's name of the block, and how many of them each stage has
DEPTHS = {
    8: ("BasicBlock", (1, 1, 1)),
    18: ("BasicBlock", (2, 2, 2, 2)),
    34: ("BasicBlock", (3, 4, 6, 3)),
    50: ("Bottleneck", (3, 4, 6, 3)),
}
STEMS = {"imagenet": 4, "cifar": 1}  # -> the factor by which it makes the sides smaller


@dataclass
class ResNetSettings(ConvolutionSettings):
    name: str = "resnet"
    depth: int = 18  # layers with weights on the longest path: 8 | 18 | 34 | 50
    width: int = 64  # channels of the first stage; every later stage has twice those of the one before
    stem: str = "imagenet"  # imagenet (7 x 7, stride 2, max pooling) | cifar (3 x 3, stride 1, no pooling)

    @property
    def label(self) -> str:
        narrow = "" if self.width == 64 else f"x{self.width}"
        return self.labelled(f"resnet{self.depth}{narrow}" + ("" if self.stem == "imagenet" else f"_{self.stem}"))


class ResNet(Convolutional):
    """x (B, ch, h, w) -> stem -> layer1 -> ... -> layer4 -> global average pooling (B, d) -> fc = logits (B, C).

    Features: stem, layer1, ..., each the mean over the pixels (B, channels). Depth 8 has three stages, the others four.
    With the stem imagenet, width 64 and features full the network is torchvision's resnet18, resnet34 or resnet50 (d =
    512, 512, 2048), with the same initialisation.

    With features=classes the last convolution of the last block has K channels, and a 1 x 1 convolution with batch norm
    maps the block's input to be added: so Zhu et al. 2021 (arXiv 2105.02375), of whose ResNet18 with K = 10 it makes
    8,867,542 parameters of 11,181,642.
    """

    def __init__(self, settings: ResNetSettings, seen: ImageShape, num_classes: int):
        s = settings
        if s.depth not in DEPTHS:
            raise no_choice("model.depth", s.depth, DEPTHS)
        if s.stem not in STEMS:
            raise no_choice("model.stem", s.stem, STEMS)
        between("width", s.width, 1, MOST_UNITS)
        from torchvision.models import resnet  # here: the import takes a second, which other models need not wait

        name, blocks = DEPTHS[s.depth]
        block = getattr(resnet, name)
        # One pixel is left before the last stage otherwise.
        require_side("resnet", seen, STEMS[s.stem] * 2 ** (len(blocks) - 2) + 1)
        widths = [s.width * 2**i for i in range(len(blocks))]
        channels = [s.width, *(width * block.expansion for width in widths)]
        stages = {"stem": _stem(seen.channels, s.width, s.stem)}
        for i, (before, after) in enumerate(pairwise(channels)):
            stages[f"layer{i + 1}"] = _stage(block, before, widths[i], after, blocks[i], 1 if i == 0 else 2)
        dim = channels[-1]
        if s.features == "classes":
            last = len(blocks)
            before = channels[-2] if blocks[-1] == 1 else dim
            _narrow(stages[f"layer{last}"][-1], before, dim := num_classes)
        for stage in stages.values():
            drawn_for_relu(stage)
        super().__init__(s, seen, stages, dim, num_classes)


def _stem(before: int, after: int, kind: str) -> nn.Sequential:
    if kind == "cifar":
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
    first = nn.Conv2d(before, after, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))


def _stage(
    block: Callable[..., nn.Module], before: int, width: int, after: int, count: int, stride: int
) -> nn.Sequential:
    projection = None if stride == 1 and before == after else _projection(before, after, stride)
    return nn.Sequential(block(before, width, stride, projection), *(block(after, width) for _ in range(count - 1)))


def _projection(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))


def _narrow(block: nn.Module, before: int, after: int) -> None:
    """Let the block, which reads `before` channels, end in `after`."""
    last = 3 if hasattr(block, "conv3") else 2
    conv = getattr(block, f"conv{last}")
    own = nn.Conv2d(conv.in_channels, after, conv.kernel_size, padding=conv.padding, bias=False)
    setattr(block, f"conv{last}", own)
    setattr(block, f"bn{last}", nn.BatchNorm2d(after))
    block.downsample = _projection(before, after, block.stride)


@MODELS.add("resnet", ResNetSettings)
def build_resnet(settings: ResNetSettings, shape: Shape, num_classes: int) -> ResNet:
    return ResNet(settings, settings.seen(shape), num_classes)
