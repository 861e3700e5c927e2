"""Repeat a published linear probe that learned nothing, and repair it step by step.

Doerrich et al. (*Rethinking model prototyping through the MedMNIST+ dataset collection*) report an
accuracy of 73.08 +- 0.00 for a linear probe on BreastMNIST: 114 of 156, the majority class. Their
code has one rate (1e-4) for probing and fine-tuning alike, stops five epochs after the best
validation loss, leaves the network in train mode, where frozen batch norms still normalise by the
batch and move their statistics, and pads small images with zeros. Here MobileNetV2 stands in for
their ResNet-18.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tlcourse import metrics
from tlcourse.backbones.architectures import head
from tlcourse.backbones.factory import load_backbone
from tlcourse.backbones.preprocessing import preprocess
from tlcourse.datasets.base import ImageSet
from tlcourse.datasets.loading import load_images
from tlcourse.features.extract import extract_features
from tlcourse.features.probe import probe
from tlcourse.loaders.batches import shuffled_batches
from tlcourse.runtime import seeded
from tlcourse.training.malloc import large_buffers_kept

STOPPED, PUBLISHED = "stopped at 10 epochs", "as published"

STEPS = (
    STOPPED,
    PUBLISHED,
    "statistics held",
    "enlarged, not padded",
    "higher rate, more patience",
    "logistic regression",
    "64 px",
)
"""Each step mends one thing more than the one before; the first two are one recipe, and differ in
when it ends: the paper does not say at which epoch its runs stopped."""


BATCH_SIZE = 64
PATIENCE = {PUBLISHED: 5, "higher rate, more patience": 20}
RATE = {PUBLISHED: 1e-4, "higher rate, more patience": 1e-2}
MOST_EPOCHS = 100

MOST_MOVING = {STOPPED: 10, PUBLISHED: 30}
"""Epochs at most where statistics move: each must show all images to the network again."""

PADDED, ENLARGED = 224, 128
"""Sides in pixels at which the network sees the images, padded as published, or enlarged."""


def run_probe_step(
    step: str, seed: int, *, source: str = "breast", most: int = MOST_EPOCHS
) -> dict[str, Any]:
    """Train and test the probe as a step of `STEPS` has it: one run of a grid.

    Args:
        step: How far the recipe is mended.
        seed: Seed of the new head and of the order of the images.
        source: As `load_images` takes it; real images in their official parts.
        most: Epochs at most; where statistics move, no more than `MOST_MOVING`.

    Returns:
        Test `accuracy` and `auc`; `majority`, the share of the most frequent class;
        `majority_said`, the share of images that got it as an answer; `epochs`.

    Raises:
        ValueError: If there is no such step.
    """
    if step not in STEPS:
        raise ValueError(f"expected a step of {', '.join(STEPS)}; got {step!r}")
    data = _images(source, 64 if step == "64 px" else 28)
    if step in MOST_MOVING:
        probs, epochs = _with_moving_statistics(data, seed, min(most, MOST_MOVING[step]))
    elif STEPS.index(step) < STEPS.index("logistic regression"):
        probs, epochs = _on_features(step, data, seed, most)
    else:
        train, _, test = _features(data, padded=False)
        block = probe(train, data.train.labels, kind="tuned", groups=data.train.groups)
        probs, epochs = block.predict_proba(test), 0
    labels = data.test.labels
    counts = np.bincount(labels)
    return {
        "accuracy": metrics.accuracy(labels, probs),
        "auc": metrics.auc(labels, probs),
        "majority": float(counts.max() / len(labels)),
        "majority_said": float((probs.argmax(axis=1) == counts.argmax()).mean()),
        "epochs": epochs,
    }


def train_until_worse(
    module: nn.Module,
    inputs: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    *,
    lr: float,
    patience: int,
    most: int,
    seed: int = 0,
) -> int:
    """Train what requires gradients by AdamW; stop `patience` epochs after the best, and keep that.

    In each epoch the whole module is put in train mode: whoever holds frozen batch norms in it
    sees their statistics move.

    Args:
        module: Answers with logits `(N, C)`.
        inputs: Of the training and of the validation images.
        labels: Likewise, int64.
        lr: The rate.
        patience: Epochs without a lower validation loss after which training ends.
        most: Epochs at most.
        seed: Seed of the order.

    Returns:
        The number of epochs that ran.

    >>> layer, x, y = nn.Linear(2, 2), torch.eye(2).repeat(8, 1), torch.arange(2).repeat(8)
    >>> train_until_worse(layer, (x, x), (y, y), lr=0.1, patience=3, most=20)
    20
    """
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr)
    best_loss, best_epoch, best_state = float("inf"), 0, deepcopy(module.state_dict())
    epoch = 0
    while epoch < most and epoch - best_epoch < patience:
        epoch += 1
        module.train()
        for rows in shuffled_batches(len(labels[0]), BATCH_SIZE, order):
            optimizer.zero_grad()
            F.cross_entropy(module(inputs[0][rows]), labels[0][rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        loss = float(F.cross_entropy(_logits(module, inputs[1]), labels[1]))
        if loss < best_loss:
            best_loss, best_epoch, best_state = loss, epoch, deepcopy(module.state_dict())
    module.load_state_dict(best_state)
    module.eval()
    return epoch


@torch.no_grad()
def _logits(module: nn.Module, inputs: Tensor) -> Tensor:
    module.eval()
    return torch.cat([module(batch) for batch in torch.split(inputs, BATCH_SIZE)])


def _with_moving_statistics(
    data: ImageSet, seed: int, most: int
) -> tuple[NDArray[np.float64], int]:
    model = _backbone(seed).requires_grad_(False)
    head(model).requires_grad_(True)
    train, val, test = (
        preprocess(model, _padded(part.images), PADDED) for part in data.parts.values()
    )
    recipe: dict[str, Any] = {
        "lr": RATE[PUBLISHED],
        "patience": PATIENCE[PUBLISHED],
        "most": most,
        "seed": seed,
    }
    with seeded(seed), large_buffers_kept():  # the seed is for the dropout before the head
        epochs = train_until_worse(model, (train, val), _labels(data), **recipe)
    return _probabilities(model, test), epochs


def _on_features(
    step: str, data: ImageSet, seed: int, most: int
) -> tuple[NDArray[np.float64], int]:
    features = _features(data, padded=step == "statistics held")
    train, val, test = (torch.from_numpy(part) for part in features)
    layer = head(_backbone(seed))
    setting = step if step in RATE else PUBLISHED
    recipe: dict[str, Any] = {
        "lr": RATE[setting],
        "patience": PATIENCE[setting],
        "most": most,
        "seed": seed,
    }
    epochs = train_until_worse(layer, (train, val), _labels(data), **recipe)
    return _probabilities(layer, test), epochs


def _probabilities(module: nn.Module, inputs: Tensor) -> NDArray[np.float64]:
    probs: NDArray[np.float64] = _logits(module, inputs).double().softmax(1).numpy()
    return probs


def _labels(data: ImageSet) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(data.train.labels), torch.from_numpy(data.val.labels)


def _backbone(seed: int) -> nn.Module:
    model: nn.Module = load_backbone("mobilenet_v2", weights="imagenet", num_classes=2, seed=seed)
    return model


@cache
def _images(source: str, size: int) -> ImageSet:
    if source == "phantom":
        return load_images("phantom", size=size, progress=False)
    return load_images(source, size=size, split="official", progress=False)


@cache  # what a frozen network says of an image does not depend on the seed of its head
def _features(data: ImageSet, *, padded: bool) -> list[NDArray[np.float32]]:
    size = PADDED if padded else ENLARGED
    parts = [part.images for part in data.parts.values()]
    given = [_padded(images) if padded else images for images in parts]
    return [extract_features(_backbone(0), im, size=size, progress=False) for im in given]


def _padded(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Put grey images into the middle of a black square of `PADDED` pixels."""
    before = (PADDED - images.shape[1]) // 2
    after = PADDED - images.shape[1] - before
    return np.pad(images, ((0, 0), (before, after), (before, after)))
