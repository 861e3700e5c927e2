"""Turn images into frozen features: at the head, at every stage, or cached at one boundary.

The model is only read: every submodule's mode and every buffer stay as they were, also when the
model was training; features are those of eval mode.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcourse.backbones.architectures import head
from tlcourse.backbones.hooks import (
    Capture,
    Images,
    capture_activations,
    feature_stages,
    prepared_batches,
    stage_named,
)
from tlcourse.files import ArrayStore, cache_limit

Features = NDArray[np.float32]


def extract_features(
    model: nn.Module,
    images: Images,
    *,
    size: int = 128,
    batch_size: int = 16,
    progress: bool = True,
) -> Features:
    """Return the input of the head, `(N, F)`: what a linear probe learns from.

    A head that is a convolution (SqueezeNet) gets maps; their spatial means are returned.

    Args:
        model: A classifier of torchvision; its mode and state stay as they are.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`; prepared batch by batch.
        size: Side to which images are resized, in pixels.
        batch_size: Images in a batch.
        progress: Whether to show a bar.

    Raises:
        ValueError: If there is no image or `batch_size` is below 1.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> from torchvision.models import resnet18
    >>> images = np.zeros((2, 28, 28), np.uint8)
    >>> extract_features(resnet18(), images, size=32, progress=False).shape
    (2, 512)
    """
    batches = prepared_batches(model, images, size=size, batch_size=batch_size, progress=progress)
    with capture_activations(model, {"head": head(model)}, _flat, inputs=True) as capture:
        return _gather(capture, batches, len(images))["head"]


def stage_features(
    model: nn.Module,
    images: Images,
    *,
    size: int = 128,
    batch_size: int = 16,
    progress: bool = True,
) -> dict[str, Features]:
    """Return the spatial means `(N, C)` after each stage, head excluded, from one pass.

    Maps are averaged over positions, tokens over all patches (ViT's class token is left out).

    Args:
        model: A classifier of torchvision; its mode and state stay as they are.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`; prepared batch by batch.
        size: Side to which images are resized, in pixels.
        batch_size: Images in a batch.
        progress: Whether to show a bar.

    Raises:
        ValueError: If there is no image or `batch_size` is below 1.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> from torchvision.models import resnet18
    >>> images = np.zeros((2, 28, 28), np.uint8)
    >>> means = stage_features(resnet18(), images, size=32, progress=False)
    >>> {name: values.shape[1] for name, values in means.items()}
    {'stem': 64, 'stage1': 64, 'stage2': 128, 'stage3': 256, 'stage4': 512}
    """
    body = feature_stages(model)
    ends = {name: stage.output for name, stage in body.items()}

    def reduce(name: str, activation: Tensor) -> Tensor:
        return body[name].maps(activation).float().mean((2, 3))

    batches = prepared_batches(model, images, size=size, batch_size=batch_size, progress=progress)
    with capture_activations(model, ends, reduce) as capture:
        return _gather(capture, batches, len(images))


def cache_features(
    model: nn.Module,
    images: Images,
    *,
    through: str,
    size: int = 128,
    batch_size: int = 16,
    memory_limit: int | None = None,
    path: Path | None = None,
    progress: bool = True,
) -> Features:
    """Return a stage's output as it is, float32 `(N, ...)`, in memory or as a memory map.

    A memory map is written to `path`, or to a temporary folder that is removed with the array.
    The file gets its final name when it is complete, never before, and is opened copy-on-write:
    changing the array leaves the file alone.

    Args:
        model: A classifier of torchvision; its mode and state stay as they are.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`; prepared batch by batch.
        through: The last stage that runs, such as `"stage3"`.
        size: Side to which images are resized, in pixels.
        batch_size: Images in a batch.
        memory_limit: Bytes above which the result goes to a file; by default a quarter of the
            memory that is free.
        path: An `.npy` file for the result, whatever its size; one already there is replaced.
        progress: Whether to show a bar.

    Raises:
        ValueError: If `through` names no stage before the head, `path` does not end in `.npy`,
            there is no image, or `batch_size` is below 1.
        OSError: If the disk lacks room for the result; nothing is written then.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> from torchvision.models import resnet18
    >>> images = np.zeros((2, 28, 28), np.uint8)
    >>> cache_features(resnet18(), images, through="stage3", size=32, progress=False).shape
    (2, 256, 2, 2)
    """
    stage = stage_named(model, through)
    store = ArrayStore(len(images), cache_limit(memory_limit), path)
    batches = prepared_batches(
        model, images, size=size, batch_size=batch_size, progress=progress, title=through
    )
    with store, capture_activations(model, {through: stage.output}, _copy) as capture:
        for where, batch in batches:
            store.put(where, capture(batch)[through].cpu().numpy())
        return store.result()


def flat_maps(model: nn.Module, images: Images, *, size: int = 128) -> dict[str, Features]:
    """Return each stage's whole output as one row an image, `(N, C * h * w)`, head excluded.

    For `similarity.cka_by_stage`: two networks may answer alike on average (brighter image,
    larger answers) and still see different things in different places. A stem's maps take much
    memory: 100 images will do.

    Args:
        model: A classifier of torchvision; it is only read.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`.
        size: Side to which images are resized, in pixels.

    >>> from torchvision.models import resnet18
    >>> rows = flat_maps(resnet18(), np.zeros((2, 28, 28), np.uint8), size=32)
    >>> rows["stage2"].shape
    (2, 2048)
    """
    maps = {
        stage: cache_features(model, images, through=stage, size=size, progress=False)
        for stage in feature_stages(model)
    }
    return {stage: values.reshape(len(values), -1) for stage, values in maps.items()}


def _flat(_name: str, activation: Tensor) -> Tensor:
    means = activation.mean((2, 3)) if activation.dim() == 4 else activation.flatten(1)
    return means.float().clone()


def _copy(_name: str, activation: Tensor) -> Tensor:
    return activation.float().clone()


def _gather(
    capture: Capture, batches: Iterable[tuple[slice, Tensor]], total: int
) -> dict[str, Features]:
    # Filled in place: a list of batches, then joined, would need the memory twice.
    rows: dict[str, Features] = {}
    for where, batch in batches:
        for name, values in capture(batch).items():
            if name not in rows:
                rows[name] = np.empty((total, *values.shape[1:]), np.float32)
            rows[name][where] = values.cpu().numpy()
    return rows
