"""See the filters of a network, what its layers answer, and what excites a channel most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcourse.backbones.hooks import (
    Images,
    Reduce,
    capture_activations,
    device_of,
    prepared_batches,
    stage_named,
    with_gradients,
)
from tlcourse.backbones.preprocessing import preprocess
from tlcourse.backbones.stages import Stage
from tlcourse.features.extract import cache_features

FIELD_SHARE = 0.9
"""Share of a unit's sensitivity that its patch holds."""

SMALLEST_PATCH = 8
"""Side in pixels below which a patch shows nothing to the eye."""


def stem_filters(model: nn.Module) -> NDArray[np.float32]:
    """Return the weights of the first convolution, `(K, 3, h, w)`.

    Args:
        model: Any network.

    Raises:
        ValueError: If the model has no convolution.

    >>> from torchvision.models import resnet18
    >>> stem_filters(resnet18()).shape
    (64, 3, 7, 7)
    """
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise ValueError(f"expected a network with a convolution, got {type(model).__name__}")
    weights: NDArray[np.float32] = first.weight.detach().float().cpu().numpy()
    return weights


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


@dataclass(frozen=True)
class Patches:
    """Parts of images that excite one channel most, strongest first.

    Attributes:
        crops: uint8 `(k, h, w)` or `(k, h, w, 3)`, all of one size.
        images: Row of each crop's image, `(k,)`, no image twice.
        corners: Top and left pixel of each crop, `(k, 2)`.
        strengths: The channel's answers, `(k,)`.
    """

    crops: NDArray[np.uint8]
    images: NDArray[np.int64]
    corners: NDArray[np.int64]
    strengths: NDArray[np.float32]


def top_patches(
    model: nn.Module,
    images: Images,
    stage: str,
    channel: int,
    k: int = 9,
    *,
    size: int = 128,
    batch_size: int = 64,
    progress: bool = True,
) -> Patches:
    """Find the parts of images that excite one channel of a stage most, one part an image.

    A part is what the strongest unit sees: the smallest square around it that holds
    `FIELD_SHARE` of the gradient of the unit's answer by the pixels, averaged over the k images
    (the effective receptive field, Luo et al. 2016). It is smaller than the receptive field that
    kernels and strides add up to, which covers the whole image in late stages. Squares are moved
    inside the image and are `SMALLEST_PATCH` pixels or more.

    Args:
        model: A classifier of torchvision.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`.
        stage: Name of a stage before the head.
        channel: Index of the channel, from 0.
        k: Number of parts, at most N.
        size: Side to which images are resized, in pixels.
        batch_size: Images in a batch.
        progress: Whether to show a bar.

    Raises:
        ValueError: If `stage`, `channel` or `k` is out of range, or the channel answers to none of
            the images.

    >>> from torchvision.models import resnet18
    >>> images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    >>> top_patches(resnet18(), images, "stem", 0, k=3, size=32, progress=False).crops.shape[0]
    3
    """
    if not 1 <= k <= len(images):
        raise ValueError(f"expected k from 1 to the number of images, {len(images)}, got {k}")
    found = stage_named(model, stage)
    strengths = np.empty(len(images), np.float32)
    with capture_activations(model, {stage: found.output}, _strongest(found, channel)) as capture:
        for where, batch in prepared_batches(
            model, images, size=size, batch_size=batch_size, progress=progress, title=stage
        ):
            strengths[where] = capture(batch)[stage].cpu().numpy()
    order = np.argsort(-strengths, kind="stable")[:k]
    best = np.stack([np.asarray(images[int(i)]) for i in order])
    centres, share = _field(model, best, found, channel, size)
    crops, corners = _cut(best, centres, share)
    return Patches(crops, order.astype(np.int64), corners, strengths[order])


def _strongest(stage: Stage, channel: int) -> Reduce:
    def keep(_name: str, activation: Tensor) -> Tensor:
        return _channel(stage, activation, channel).amax(1)

    return keep


def _channel(stage: Stage, activation: Tensor, channel: int) -> Tensor:
    """Return one channel's answers `(N, positions)`."""
    maps = stage.maps(activation)
    if not 0 <= channel < maps.shape[1]:
        raise ValueError(
            f"expected a channel from 0 to {maps.shape[1] - 1} of {stage.name}, got {channel}"
        )
    return maps[:, channel].flatten(1)


def _field(
    model: nn.Module, images: NDArray[np.uint8], stage: Stage, channel: int, size: int
) -> tuple[NDArray[np.float64], float]:
    """Return the strongest units' centres `(k, 2)` and their field's side, in shares of a side."""
    with with_gradients(model, stage.output) as outputs:
        pixels = preprocess(model, images, size).to(device_of(model)).requires_grad_()
        model(pixels)
        maps = stage.maps(outputs[0])
        values, places = maps[:, channel].flatten(1).max(1)
        (slopes,) = torch.autograd.grad(values.sum(), pixels)
    height, width = maps.shape[2:]
    rows, columns = (places // width + 0.5) / height, (places % width + 0.5) / width
    centres = torch.stack([rows, columns], 1).cpu().double().numpy()
    return centres, _side(slopes.abs().sum(1).cpu().double().numpy(), centres, channel, stage)


def _side(
    slopes: NDArray[np.float64], centres: NDArray[np.float64], channel: int, stage: Stage
) -> float:
    """Return the side of the square that holds `FIELD_SHARE` of the slopes around the centres."""
    totals = slopes.sum(axis=(1, 2))
    if not totals.any():
        raise ValueError(
            f"channel {channel} of {stage.name} answers to none of the images: choose another"
        )
    size = slopes.shape[1]
    ticks = (np.arange(size) + 0.5) / size
    rows = np.abs(ticks[None, :, None] - centres[:, 0, None, None])
    columns = np.abs(ticks[None, None, :] - centres[:, 1, None, None])
    reach = np.maximum(rows, columns)
    alive = totals > 0
    shares = slopes[alive] / totals[alive, None, None]
    order = np.argsort(reach[alive], axis=None)
    held = np.cumsum(shares.ravel()[order]) / alive.sum()
    last = order[min(int(np.searchsorted(held, FIELD_SHARE)), held.size - 1)]
    return float(min(1.0, 2 * reach[alive].ravel()[last] + 1 / size))


def _cut(
    images: NDArray[np.uint8], centres: NDArray[np.float64], share: float
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a crop around the centre of each image, moved inside it, and its top left corner."""
    sides = np.asarray(images.shape[1:3])
    extent = np.clip(np.ceil(share * sides).astype(int), np.minimum(SMALLEST_PATCH, sides), sides)
    corners = np.round(centres * sides - extent / 2).astype(np.int64)
    corners = np.clip(corners, 0, sides - extent)
    height, width = extent
    crops = [
        image[top : top + height, left : left + width]
        for image, (top, left) in zip(images, corners, strict=True)
    ]
    return np.stack(crops), corners
