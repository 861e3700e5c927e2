"""The full recipe of lesson 06: fine-tune all layers, on given parts or fold by fold.

What `strategies` compares gets few steps and two fixed views, so that hundreds of runs are
affordable. This one is meant to be good: more epochs, images augmented anew in each.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from studies.images import all_images, image_set, row_of_run, scores
from tlcourse.backbones.factory import load_backbone
from tlcourse.datasets.base import ImageSet, Split
from tlcourse.datasets.splits import grouped_folds, grouped_split
from tlcourse.loaders.augment import Augment, flip_and_move
from tlcourse.optim.factory import warmup_cosine
from tlcourse.training.fit import fit

BATCH_SIZE = 32

WARMUP = 0.2
"""Share of the steps in which the rates rise; then a cosine falls to zero."""

VALIDATION = 1 / 8
"""Share of a fold's training images that is held out for validation, as in the set's own parts."""
AUGMENTATIONS: dict[str, Literal["flip"] | Augment] = {"flip": "flip", "move": flip_and_move}


def run_full(
    seed: int,
    lr: float,
    augment: str,
    *,
    source: str = "breast",
    partition: str = "grouped",
    epochs: int = 10,
    size: int = 128,
    test: bool = True,
) -> dict[str, Any]:
    """Fine-tune on the training part, score validation and test: one run of a grid.

    Args:
        seed: Seed of head, order and augmentation.
        lr: Rate of all layers.
        augment: A key of `AUGMENTATIONS`.
        source: As `load_images` takes it.
        partition: `"grouped"` or `"official"`, of real images.
        epochs: Times that every training image is seen.
        size: Side in pixels at which the network sees the images.
        test: Whether to open the test images; a run that chooses leaves them shut.

    Returns:
        Scores by name; `probs` holds the test images' probabilities of class 0, in their order.
    """
    data = image_set(source, partition)
    model, seconds = _fine_tuned(data, lr=lr, augment=augment, epochs=epochs, size=size, seed=seed)
    return row_of_run(model, data, size, {"train_seconds": seconds}, test=test, with_probs=True)


def run_fold(
    by: str,
    seed: int,
    fold: int,
    lr: float,
    augment: str,
    *,
    source: str = "breast",
    views: int = 1,
    folds: int = 5,
    epochs: int = 10,
    size: int = 128,
) -> dict[str, Any]:
    """Fine-tune on all folds but one and judge on that one: one run of a grid.

    Args:
        by: What is dealt into the folds: `"group"` keeps a patient's images, or near copies,
            together; `"image"` does not care.
        seed: Seed of the dealing, of head, order and augmentation.
        fold: From 0.
        lr: Rate of all layers.
        augment: A key of `AUGMENTATIONS`.
        source: As `load_images` takes it; all its images are dealt.
        views: Images of a simulated patient; 1 for real ones.
        folds: Number of folds.
        epochs: Times that every training image is seen.
        size: Side in pixels at which the network sees the images.

    Returns:
        Scores on the fold; `shared`, the share of its images that have a relative among those
        trained on; `rows` and `probs`, its images' numbers and their probabilities of class 0.

    Raises:
        ValueError: If `by` is neither.
    """
    data, held_out, shared = fold_parts(all_images(source, views), by, seed, fold, folds=folds)
    model, seconds = _fine_tuned(data, lr=lr, augment=augment, epochs=epochs, size=size, seed=seed)
    return {
        "train_images": len(data.train),
        "train_seconds": seconds,
        "shared": shared,
        "rows": held_out.tolist(),
        **scores(model, data.test, size, with_probs=True),
    }


def fold_parts(
    part: Split, by: str, seed: int, fold: int, *, folds: int = 5
) -> tuple[ImageSet, np.ndarray[Any, np.dtype[np.int64]], float]:
    """Return one fold as a set, the rows that it judges, and the share that have relatives.

    Raises:
        ValueError: If `by` is neither `"group"` nor `"image"`.

    >>> part = Split(np.zeros((40, 4, 4), np.uint8), np.arange(40) % 2, np.arange(40) // 4 * 2
    ...              + np.arange(40) % 2)
    >>> [round(fold_parts(part, by, 0, 0)[2], 1) for by in ("group", "image")]
    [0.0, 0.6]
    """
    if by not in ("group", "image"):
        raise ValueError(f"expected folds by 'group' or 'image', got {by!r}")
    groups = part.groups if by == "group" else np.arange(len(part))
    rest, held_out = grouped_folds(replace(part, groups=groups), folds, seed=seed)[fold]
    shares = (1 - VALIDATION, VALIDATION)
    inner = grouped_split(part.labels[rest], groups[rest], fractions=shares, seed=seed)
    train, val, test = (part.select(rows) for rows in (rest[inner[0]], rest[inner[1]], held_out))
    shared = float(np.isin(test.groups, train.groups).mean())
    classes = tuple(str(label) for label in range(int(part.labels.max()) + 1))
    return ImageSet(f"fold {fold} by {by}", train, val, test, classes), held_out, shared


def _fine_tuned(
    data: ImageSet, *, lr: float, augment: str, epochs: int, size: int, seed: int
) -> tuple[nn.Module, float]:
    """Return a trained MobileNetV2 and the seconds of its training."""
    model = load_backbone(
        "mobilenet_v2", weights="imagenet", num_classes=data.num_classes, seed=seed
    )
    # Not `fit`'s count, which is lower where a single image joins the batch before it: by that the
    # warm-up of two published folds, of 545 images, would end two steps earlier.
    steps = epochs * -(-len(data.train) // BATCH_SIZE)
    began = time.perf_counter()
    fit(
        model,
        data,
        epochs=epochs,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=0.01, fused=True),
        schedule=partial(warmup_cosine, warmup_steps=round(WARMUP * steps)),
        batch_size=BATCH_SIZE,
        size=size,
        augment=AUGMENTATIONS[augment],
        seed=seed,
        progress=False,
    )
    return model, time.perf_counter() - began
