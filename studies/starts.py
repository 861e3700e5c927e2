"""Where the gain of a pretrained network comes from: four starts, trained alike.

`"imagenet"`: pretrained weights. `"shuffled"`: the same numbers, but each layer's in random order,
so that their scale stays and what they say is gone. `"scratch"`: random weights. `"small"`: a plain
convolutional network of about the same cost, from random weights (Raghu et al. 2019, *Transfusion*,
ask the same of medical images).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torchvision import models

from studies.images import image_set, row_of_run
from studies.strategies import train_for_steps
from tlcourse.backbones.architectures import head
from tlcourse.backbones.factory import load_backbone
from tlcourse.runtime import seeded
from tlcourse.training.strategies import Strategy

STARTS = ("imagenet", "shuffled", "scratch", "small")

WIDTHS = (16, 32, 64, 128, 256)
"""Channels of the small network's convolutions; each is followed by a pool that halves the side."""

WARMUP = 0.1
"""Share of the steps in which the rate rises, as random weights are given it in `named`."""


def small_network(num_classes: int = 2, *, seed: int = 0) -> models.VGG:
    """Build a plain convolutional network that costs about as much as MobileNetV2 does.

    Five convolutions of 3x3 with batch norm, a pool after each, the mean over positions, a head:
    85 million multiplications for an image of 128 px, MobileNetV2 takes 98. It is of torchvision's
    class VGG, so that all calls that take a classifier take it.

    >>> network = small_network()
    >>> network.eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2])
    """
    plan: list[str | int] = [item for width in WIDTHS for item in (width, "M")]
    with seeded(seed):
        features = models.vgg.make_layers(plan, batch_norm=True)
        with torch.device("meta"):  # VGG's own classifier has 120 million weights; it is replaced
            network = models.VGG(features, num_classes=num_classes)
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Linear(WIDTHS[-1], num_classes)
    return network


@torch.no_grad()
def shuffle_weights(model: nn.Module, *, seed: int = 0) -> nn.Module:
    """Put the numbers of every layer but the head in random order, in place; return the model.

    Each weight tensor keeps its numbers, so mean and spread per layer stay. A normalisation's
    four vectors are reordered alike: a channel's numbers stay together.

    Args:
        model: A classifier of torchvision.
        seed: What the order is drawn from.

    >>> model = models.resnet18()
    >>> before = model.conv1.weight.clone()
    >>> after = shuffle_weights(model).conv1.weight
    >>> torch.equal(before, after), torch.equal(before.unique(), after.unique())
    (False, True)
    """
    generator, kept = torch.Generator().manual_seed(seed), head(model)
    for module in model.modules():
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if module is kept or not tensors:
            continue
        if tensors[0].dim() == 1:
            order = torch.randperm(len(tensors[0]), generator=generator)
            for vector in (t for t in tensors if t.shape == tensors[0].shape):
                vector.copy_(vector[order])
            continue
        for tensor in tensors:
            order = torch.randperm(tensor.numel(), generator=generator)
            tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))
    return model


def starting_network(start: str, num_classes: int = 2, *, seed: int = 0) -> nn.Module:
    """Return a MobileNetV2, or the small network, as a start of `STARTS` leaves it.

    Raises:
        ValueError: If there is no such start.

    >>> type(starting_network("small")).__name__
    'VGG'
    """
    if start not in STARTS:
        raise ValueError(f"expected a start of {', '.join(STARTS)}; got {start!r}")
    model: nn.Module
    if start == "small":
        model = small_network(num_classes, seed=seed)
        return model
    weights = None if start == "scratch" else "imagenet"
    model = load_backbone("mobilenet_v2", weights=weights, num_classes=num_classes, seed=seed)
    return shuffle_weights(model, seed=seed) if start == "shuffled" else model


def run_start(
    start: str,
    images: int | None,
    seed: int,
    lr: float,
    *,
    source: str = "breast",
    steps: int = 54,
    size: int = 128,
    test: bool = True,
) -> dict[str, Any]:
    """Train all layers from one start and return the scores: one run of a grid.

    Steps, batches, views and schedule are those of `strategies.run_strategy`.

    Args:
        start: One of `STARTS`.
        images: Training images, drawn stratified by `seed`; None takes all.
        seed: Seed of the start, the drawing, order and augmentation.
        lr: Rate of all layers.
        source: As `load_images` takes it.
        steps: Optimizer steps, about.
        size: Side in pixels at which the network sees the images.
        test: Whether to score the test images; a run that chooses rates leaves them shut.
    """
    data = image_set(source)
    part = data if images is None else data.with_train(data.train.subset(images, seed=seed))
    model = starting_network(start, data.num_classes, seed=seed)
    strategy = Strategy(start, warmup=WARMUP)
    began = time.perf_counter()
    train_for_steps(strategy, model, part, lr=lr, steps=steps, size=size, seed=seed)
    seconds = time.perf_counter() - began
    return row_of_run(model, part, size, {"train_seconds": seconds}, test=test)
