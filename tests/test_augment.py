"""Augmentation: every pixel of a shifted and mirrored image, against a slow reference."""

import pytest
import torch
from data_files import random_images, seeded

from nclab.data.augment import PADDING, crop_flip


def slow_crop_flip(image: torch.Tensor, dy: int, dx: int, mirror: bool) -> torch.Tensor:
    """Pixel by pixel: out(y, x) = in(y + dy - 4, x' + dx - 4), zero outside, x' mirrored."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            row, column = y + dy - PADDING, (width - 1 - x if mirror else x) + dx - PADDING
            if 0 <= row < height and 0 <= column < width:
                out[:, y, x] = image[:, row, column]
    return out


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 8, 8)])
def test_crop_flip_equals_a_pixel_by_pixel_reference(shape):
    images = random_images(24, *shape)
    changed = crop_flip(images, seeded(3))
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    generator = seeded(3)
    corner = torch.randint(2 * PADDING + 1, (2, 24), generator=generator)
    mirror = torch.randint(2, (24, 1, 1, 1), generator=generator).flatten()
    for i in range(24):
        expected = slow_crop_flip(images[i], int(corner[0, i]), int(corner[1, i]), bool(mirror[i]))
        assert torch.equal(changed[i], expected), i


def test_crop_flip_makes_every_shift_and_mirrors_half():
    ramp = torch.arange(1, 26, dtype=torch.uint8).reshape(1, 1, 5, 5).expand(4000, 1, 5, 5)
    changed = crop_flip(ramp, seeded())
    centre = changed[:, 0, 2, 2]  # its value tells the shift, where the centre still shows the image
    mirrored = (changed[:, 0, :, 1:].int() - changed[:, 0, :, :-1].int()).flatten(1).eq(-1).any(1)
    plain = (changed[:, 0, :, 1:].int() - changed[:, 0, :, :-1].int()).flatten(1).eq(1).any(1)
    assert not (mirrored & plain).any()
    assert abs(mirrored.sum() / (mirrored | plain).sum() - 0.5) < 0.03
    assert set(centre.tolist()) == set(range(26))
    assert len(changed.flatten(1).unique(dim=0)) > 81  # 9 x 9 shifts, both ways
