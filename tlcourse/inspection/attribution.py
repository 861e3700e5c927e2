"""Ask which part of an image decides an answer: occlusion maps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from tlcourse.backbones.hooks import Images, device_of, evaluating
from tlcourse.backbones.preprocessing import preprocess

Corners = list[tuple[int, int]]


def occlusion_map(
    model: nn.Module,
    image: Images,
    label: int,
    *,
    patch: int | None = None,
    stride: int | None = None,
    size: int = 128,
    batch_size: int = 64,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Return, per pixel, how much hiding it lowers the probability of `label`, `(H, W)`.

    A square in the image's mean colour is moved over the image (Zeiler and Fergus 2014); each
    pixel gets the mean over the squares that hid it. Positive: the pixel speaks for `label`.

    Args:
        model: A classifier of torchvision.
        image: uint8 `(H, W)` or `(H, W, 3)`.
        label: Index of the answer, from 0.
        patch: Side of the square in pixels; by default a quarter of the shorter side.
        stride: Step in pixels; by default a quarter of `patch`.
        size: Side to which images are resized, in pixels.
        batch_size: Images in a batch.
        progress: Whether to show a bar.

    Raises:
        ValueError: If image, label, `patch` or `stride` does not fit.

    >>> from torchvision.models import resnet18
    >>> image = np.zeros((32, 32), np.uint8)
    >>> occlusion_map(resnet18(), image, 0, size=32, stride=8, progress=False).shape
    (32, 32)
    """
    pixels = _single(image)
    height, width = pixels.shape[:2]
    patch = max(1, min(height, width) // 4) if patch is None else patch
    stride = max(1, patch // 4) if stride is None else stride
    if not 1 <= patch <= min(height, width) or not 1 <= stride <= patch:
        raise ValueError(
            f"expected 1 <= stride <= patch <= {min(height, width)}, got {stride} and {patch}"
        )
    corners = [(y, x) for y in _steps(height, patch, stride) for x in _steps(width, patch, stride)]
    with evaluating(model), torch.inference_mode():
        plain = _probability(model, pixels[None], label, size)[0]
        drops = np.empty(len(corners), np.float32)
        with tqdm(total=len(corners), leave=False, disable=not progress) as bar:
            for start in range(0, len(corners), batch_size):
                chosen = corners[start : start + batch_size]
                hidden = _hidden(pixels, chosen, patch)
                drops[start : start + batch_size] = plain - _probability(model, hidden, label, size)
                bar.update(len(chosen))
    return _spread(drops, corners, patch, (height, width))


def _single(image: Images) -> NDArray[np.uint8]:
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"expected one image (H, W) or (H, W, 3), got {pixels.shape}")
    return pixels


def _probability(
    model: nn.Module, images: NDArray[np.uint8], label: int, size: int
) -> NDArray[np.float32]:
    """Return the probability of `label` for each image, `(N,)`."""
    batch = preprocess(model, images, size)
    logits = model(batch.to(device_of(model), memory_format=torch.channels_last))
    if not 0 <= label < logits.shape[1]:
        raise ValueError(f"expected a label from 0 to {logits.shape[1] - 1}, got {label}")
    probabilities: NDArray[np.float32] = logits.float().softmax(1)[:, label].cpu().numpy()
    return probabilities


def _steps(side: int, patch: int, stride: int) -> list[int]:
    """Return the squares' first pixels along one side, the last one flush with its end."""
    return sorted({*range(0, side - patch + 1, stride), side - patch})


def _hidden(pixels: NDArray[np.uint8], corners: Corners, patch: int) -> NDArray[np.uint8]:
    """Return copies of an image, each with a square in the image's mean colour."""
    mean = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    copies = np.repeat(pixels[None], len(corners), axis=0)
    for copy, (top, left) in zip(copies, corners, strict=True):
        copy[top : top + patch, left : left + patch] = mean
    return copies


def _spread(
    drops: NDArray[np.float32], corners: Corners, patch: int, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return for each pixel the mean over the squares that hid it."""
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for drop, (top, left) in zip(drops, corners, strict=True):
        total[top : top + patch, left : left + patch] += drop
        count[top : top + patch, left : left + patch] += 1
    return total / count
