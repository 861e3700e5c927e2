"""See the filters of a network and what its layers answer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlcourse.backbones.hooks import Images, stage_named
from tlcourse.features.extract import cache_features


def stem_filters(model: nn.Module, *, stretched: bool = True) -> NDArray[np.float32]:
    """Return the filters of the first convolution, `(K, 3, h, w)`.

    Args:
        model: Any network.
        stretched: Whether each is stretched to 0..1 (a constant one becomes 0.5), or the weights
            are given as they are.

    Raises:
        ValueError: If the model has no convolution.

    >>> from torchvision.models import resnet18
    >>> stem_filters(resnet18()).shape
    (64, 3, 7, 7)
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"expected a network with a convolution, got {type(model).__name__}")
    weights = first.weight.detach().float().cpu().numpy()
    if not stretched:
        return np.asarray(weights)
    low = weights.min(axis=(1, 2, 3), keepdims=True)
    spread = np.ptp(weights, axis=(1, 2, 3), keepdims=True)
    scaled: NDArray[np.float32] = np.where(
        spread > 0, (weights - low) / np.where(spread > 0, spread, 1), np.float32(0.5)
    )
    return scaled


def responses(
    model: nn.Module,
    images: Images,
    stage: str,
    *,
    size: int = 128,
    batch_size: int = 64,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Return a stage's maps `(N, C, H, W)`, whatever order of axes the network uses.

    ViT's tokens become maps without the class token. As large as `cache_features` makes it, a
    memory map included.

    Args:
        model: A classifier of torchvision.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`.
        stage: Name of a stage before the head.
        size: Side to which images are resized, in pixels.
        batch_size: Images in a batch.
        progress: Whether to show a bar.

    Raises:
        ValueError: If `stage` names none before the head.

    >>> from torchvision.models import resnet18
    >>> images = np.zeros((2, 28, 28), np.uint8)
    >>> responses(resnet18(), images, "stage2", size=32, progress=False).shape
    (2, 128, 4, 4)
    """
    found = stage_named(model, stage)
    cached = cache_features(
        model, images, through=stage, size=size, batch_size=batch_size, progress=progress
    )
    maps: NDArray[np.float32] = found.maps(torch.from_numpy(cached)).numpy()
    return maps
