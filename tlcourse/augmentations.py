"""Change prepared batches at random, so that a network meets each image in many positions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tlcourse.batches import flip

DEGREES, ZOOM, SHIFT = 10.0, 0.1, 0.06
"""How far `flip_and_move` turns, zooms (share) and shifts (share of the side) at most: as far as a
hand moves a probe, so that no lesion leaves the image."""


def flip_and_move(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror, turn, zoom and shift each image a little, all at random; pass it to `fit(augment=)`.

    What comes in at the border repeats the last pixels.

    Args:
        images: `(N, 3, H, W)`.
        generator: On the CPU, whatever the device of the images.

    >>> images = torch.rand(2, 3, 32, 32)
    >>> moved = flip_and_move(images, torch.Generator().manual_seed(0))
    >>> moved.shape, torch.equal(moved, images)
    (torch.Size([2, 3, 32, 32]), False)
    """

    def drawn(limit: float) -> Tensor:
        return (2 * torch.rand(len(images), generator=generator) - 1) * limit

    mirrored = flip(images, generator)
    angle, scale = torch.deg2rad(drawn(DEGREES)), 1 / (1 + drawn(ZOOM))
    cos, sin = angle.cos() * scale, angle.sin() * scale
    # In the grid's own units the side is 2 long.
    right, down = drawn(2 * SHIFT), drawn(2 * SHIFT)
    rows = [cos, -sin, right, sin, cos, down]
    maps = torch.stack(rows, dim=1).reshape(-1, 2, 3).to(images)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    moved = F.grid_sample(mirrored, grid, padding_mode="border", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)
