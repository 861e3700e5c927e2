"""Change prepared images at random: mirrored, moved, or by a function of one's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Augment = Callable[[Tensor, torch.Generator], Tensor]


def augmentation(augment: str | Augment | None) -> Augment:
    """Return the function that changes prepared batches at random.

    Args:
        augment: None for no change, "flip" to mirror every other image left to right, or a
            function of a batch `(N, 3, H, W)` and a CPU generator that returns such a batch.

    Raises:
        ValueError: If `augment` is none of these.

    >>> augmentation(None)(torch.ones(2, 3, 4, 4), torch.Generator()).shape
    torch.Size([2, 3, 4, 4])
    """
    if augment is None:
        return lambda images, generator: images
    if augment == "flip":
        return flip
    if not callable(augment):
        raise ValueError(f"expected augment None, 'flip' or a function, got {augment!r}")
    return _checked(augment)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Args:
        images: `(N, 3, H, W)`.
        generator: On the CPU, whatever the device of the images.

    >>> image = torch.arange(4.0).reshape(1, 1, 1, 4)
    >>> flip(image, torch.Generator().manual_seed(0)).flatten().tolist()
    [3.0, 2.0, 1.0, 0.0]
    """
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)


def _checked(augment: Augment) -> Augment:
    def call(images: Tensor, generator: torch.Generator) -> Tensor:
        changed = augment(images, generator)
        if not isinstance(changed, Tensor) or changed.shape[:2] != images.shape[:2]:
            came = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
            raise ValueError(f"augment must return a batch {tuple(images.shape)}, got {came}")
        return changed

    return call


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
