"""Networks of ours beside the same ones as others build them: width, depth, heads and patches are equal.

A training step of our ResNet makes the same matrix products as its peer's. That of our ViT makes fewer: its last block
computes only the class token, the only one that the head reads. Peers compute all tokens there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from nclab.models.attention import patches_of
from nclab.models.base import Classifier
from nclab.models.resnet import ResNetSettings, build_resnet
from nclab.models.vit import ViT

CLASSES, RATIO = 10, 4
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
TIMM, TORCH, TORCHVISION = "timm", "nn.TransformerEncoder", "torchvision"


class Encoder(nn.Module):
    """A vision transformer of torch's own encoder layers: x (B, ch, h, w) -> logits (B, C) of a class token."""

    def __init__(self, shape: tuple[int, int, int], patch: int, width: int, heads: int, blocks: int):
        super().__init__()
        channels, height, across = shape
        self.patch = patch
        self.embed = nn.Linear(channels * patch**2, width)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, height // patch * (across // patch), width) * 0.02)
        keys = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(width, heads, RATIO * width, **keys)
        self.encoder = nn.TransformerEncoder(layer, blocks, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(patches_of(x, self.patch)) + self.position
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
        return self.head(self.encoder(x)[:, 0])


def of_timm(shape: tuple[int, int, int], patch: int, width: int, heads: int, blocks: int) -> nn.Module:
    """Raises ModuleNotFoundError where timm is not installed."""
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": shape[1:], "in_chans": shape[0], "patch_size": patch, "num_classes": CLASSES}
    return VisionTransformer(**sizes, embed_dim=width, depth=blocks, num_heads=heads, mlp_ratio=RATIO)


def of_torchvision(shape: tuple[int, int, int]) -> nn.Module:
    """ResNet18 with a first convolution for these channels."""
    from torchvision.models import resnet18

    model = resnet18(num_classes=CLASSES)
    model.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
    return model


@dataclass(frozen=True)
class Setting:
    """A network of ours, and who else has the same one."""

    shape: tuple[int, int, int]
    ours: Callable[[], Classifier]
    peers: dict[str, Callable[[], nn.Module]]


def _vit(shape: tuple[int, int, int], patch: int, width: int, heads: int, blocks: int) -> Setting:
    sizes = shape, patch, width, heads, blocks
    ours = partial(ViT, shape, CLASSES, patch=patch, width=width, heads=heads, blocks=blocks, ratio=RATIO)
    return Setting(shape, ours, {TIMM: partial(of_timm, *sizes), TORCH: partial(Encoder, *sizes)})


SETTINGS = {
    "ViT-2x64, 28 x 28 pixels, patch 7": _vit(MNIST, 7, 64, 4, 2),
    "ViT-4x128, 28 x 28 pixels, patch 4": _vit(MNIST, 4, 128, 4, 4),
    "ResNet18, 32 x 32 pixels": Setting(
        CIFAR, partial(build_resnet, ResNetSettings(), CIFAR, CLASSES), {TORCHVISION: partial(of_torchvision, CIFAR)}
    ),
}
