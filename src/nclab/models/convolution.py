"""What convolutional classifiers share: stages of convolutions, global average pooling, one linear classifier."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from nclab.interfaces.batch import Output
from nclab.interfaces.shapes import ImageShape, Shape, images_only
from nclab.interfaces.valid import OutOfRange, no_choice
from nclab.models.base import MOST_UNITS, Classifier, ModelSettings, Probe, between, norm_of_head

FEATURES = ("full", "classes")


@dataclass
class ConvolutionSettings(ModelSettings):
    """Keys common to convolutional models."""

    # channels of the last stage, the dimension d of the classifier's input: full (the model's own) | classes (d = K)
    features: str = "full"
    image_side: int | None = None  # images are padded to this side, their border repeated; null: as they are
    image_channels: int | None = None  # a grey image is repeated in so many channels; null: as it is
    tau: float | None = None  # the classifier reads tau h / |h| instead of h; null: h
    head_norm: str = "none"  # of the classifier's input, before tau: none | batch

    def labelled(self, stem: str) -> str:
        """The label of a model called `stem`."""
        image = "".join(
            f"_{sign}{value}" for sign, value in (("side", self.image_side), ("ch", self.image_channels)) if value
        )
        features = "_dK" if self.features == "classes" else ""
        head = "" if self.head_norm == "none" else f"_{self.head_norm}_head"
        return f"{stem}{features}{image}{head}" + ("" if self.tau is None else f"_tau{self.tau:g}")

    def seen(self, shape: Shape) -> ImageShape:
        """The images of a dataset as the model's first convolution sees them. Raises ValueError."""
        channels, *sides = images_only(shape, self.name)
        if self.features not in FEATURES:
            raise no_choice("model.features", self.features, FEATURES)
        if self.tau is not None and not 0 < self.tau < math.inf:
            raise OutOfRange(f"model.tau must be above 0 and finite, or null; got {self.tau:g}", "model.tau")
        if self.image_side is not None:
            between("image_side", self.image_side, max(sides), MOST_UNITS)
            sides = [self.image_side, self.image_side]
        if self.image_channels is not None:
            between("image_channels", self.image_channels, 1, MOST_UNITS)
            if channels not in (1, self.image_channels):
                raise ValueError(
                    f"model.image_channels={self.image_channels} repeats grey images: expected 1 channel, or null for "
                    f"images of {channels}"
                )
            channels = self.image_channels
        return ImageShape(channels, *sides)


def require_side(model: str, seen: ImageShape, least: int) -> None:
    """Raise ValueError for an image of which the stages would leave no pixel."""
    if min(seen.height, seen.width) < least:
        raise ValueError(
            f"model={model} expects images of at least {least} x {least} with these keys, got {seen.height} x "
            f"{seen.width}; pad them with model.image_side={least}"
        )


def pooled_stage(channels: list[int]) -> nn.Sequential:
    """3 x 3 convolution without bias, batch norm and ReLU from each number of channels to the next, then 2 x 2 max
    pooling."""
    made: list[nn.Module] = []
    for before, after in pairwise(channels):
        made += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*made, nn.MaxPool2d(2))


def drawn_for_relu(stage: nn.Sequential) -> nn.Sequential:
    """The stage with the weights of its convolutions drawn anew as torchvision draws them (He et al. 2015)."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return stage


class Convolutional(Classifier):
    """x (B, ch, h, w) -> stage -> ... -> stage -> global average pooling (B, d) -> fc = logits (B, C).

    Features: of every stage the mean of its output over the pixels, (B, channels), named like the stage; the last is
    the classifier's input. With head_norm `normed`, its batch norm, comes behind it, and is, and with tau `scaled` =
    tau h / |h| of that.

    A stage is a step of the depth without a layer that a policy may fix: fc alone may be fixed.
    """

    def __init__(
        self, settings: ConvolutionSettings, seen: ImageShape, stages: Mapping[str, nn.Module], dim: int, classes: int
    ):
        """seen: `settings.seen` of the dataset's images. stages: by their names, from input to output; the last has
        `dim` channels. classes: C."""
        super().__init__()
        self.seen, self.tau, self.num_classes = seen, settings.tau, classes
        self.names = list(stages)
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.fc = nn.Linear(dim, classes)
        self.head_norm = norm_of_head(settings.head_norm, dim)

    def stages(self) -> dict[str, nn.Module]:
        """The stages by their names, from input to output."""
        return {name: self.get_submodule(name) for name in self.names}

    def prepared(self, x: Tensor) -> Tensor:
        """Images (B, ch, h, w) padded and repeated as the settings say, laid out channels last.

        So laid out, all that follows is: on one CPU core a step takes a third less time, and bf16 on a GPU asks for it.
        The copy is needed: of one channel torch takes either layout for both. Batched by vmap, images stay as they are.
        """
        channels, height, width = self.seen
        rows, columns = height - x.shape[2], width - x.shape[3]
        if rows or columns:
            border = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
            x = functional.pad(x, border, mode="replicate")
        if x.shape[1] != channels:
            x = x.expand(-1, channels, -1, -1)
        if torch._C._functorch.is_batchedtensor(x):
            return x
        return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)

    def forward(self, x: Tensor) -> Output:
        x, features = self.prepared(x), {}
        for name, stage in self.stages().items():
            x = stage(x)  # (B, channels, h, w)
            features[name] = h = x.mean((2, 3))  # (B, channels)
        if self.head_norm is not None:
            features["normed"] = h = self.head_norm(h)
        if self.tau is not None:
            features["scaled"] = h = self.tau * functional.normalize(h, dim=1)
        return Output(self.fc(h), features)

    def etf_roles(self) -> dict[str, str]:
        return {"fc": "classifier"}

    def probes(self, kind: str) -> list[Probe]:
        """The same for both kinds: a stage ends behind its activation."""
        last = self.inputs()["fc"]
        points = [Probe(name, name, "classifier_input" if name == last else "block", stage=()) for name in self.names]
        if last not in self.names:
            points.append(Probe(last, last, "classifier_input"))
        return [*points, Probe("fc", "logits", "classifier", "fc", ("fc",))]

    def inputs(self) -> dict[str, str]:
        behind = self.names[-1] if self.head_norm is None else "normed"
        return {"fc": behind if self.tau is None else "scaled"}
