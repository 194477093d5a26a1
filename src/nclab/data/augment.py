"""Random changes to a batch of training images, on the device that holds it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING = 4  # pixels a side, whatever the image size: the CIFAR recipe


def crop_flip(images: Tensor, generator: torch.Generator, rows: slice = slice(None), of: int | None = None) -> Tensor:
    """Shift every image by up to 4 pixels in each direction (zeros come in) and mirror it or not, at even odds.

    images (B, ch, h, w) of any dtype and device -> the same shape and dtype. The numbers are drawn on the
    generator's device: a CPU generator gives the same augmentation whatever device trains. Where `images` are the
    `rows` of a batch of `of`, they are drawn for the whole batch.
    """
    own, _, height, width = images.shape
    batch = own if of is None else of
    place = {"generator": generator, "device": generator.device}
    corner = torch.randint(2 * PADDING + 1, (2, batch), **place)[:, rows].to(images.device)
    mirror = torch.randint(2, (batch, 1, 1, 1), **place)[rows].to(images.device, torch.bool)
    padded = F.pad(images, (PADDING,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, ch, 9, 9, h, w), a view
    crops = windows[torch.arange(own, device=images.device), :, corner[0], corner[1]]  # (B, ch, h, w)
    return torch.where(mirror, crops.flip(3), crops)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator, slice, int | None], Tensor]] = {
    "none": lambda images, generator, rows, of: images,
    "crop_flip": crop_flip,
}
