"""Watch the first steps of a training one by one: what is sent back, and what moves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pandas as pd
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tlcourse.batches import PreparedImages, TrainingBatches
from tlcourse.datasets import Split
from tlcourse.freezing import snapshot
from tlcourse.history import Recorder
from tlcourse.loop import train_epoch
from tlcourse.runtime import seeded
from tlcourse.similarity import drift_by_stage


def first_steps(
    model: nn.Module,
    split: Split,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    *,
    steps: int = 12,
    batch_size: int = 16,
    size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """Train for a few steps and write down after each how far every stage has moved.

    `fit` looks at a network once an epoch; here every step counts. The model stays where it is
    and is left trained by these steps, in train mode.

    Args:
        model: A network with as many answers as there are classes.
        split: Training images and labels; dealt anew when all were seen.
        optimizer: Its groups are named after stages, as `param_groups` makes them.
        scheduler: Makes one step after each step of the optimizer.
        steps: Optimizer steps, at least 1.
        batch_size: Images in a batch, at least 2.
        size: Side of the images in pixels.
        seed: Seed of order and dropout.

    Returns:
        One row per step: `step` (from 1), `loss`, `lr/GROUP`, `grad/GROUP` (norm of the gradient
        that the step was taken with), `grad/backbone` (all groups but the head together) and
        `drift/STAGE` (how far the stage then is from the start, over its size at the start).

    Raises:
        ValueError: If `steps` is below 1.

    >>> import numpy as np
    >>> import torch
    >>> from torchvision.models import resnet18
    >>> from tlcourse.optim import param_groups
    >>> model = resnet18(num_classes=2)
    >>> few = Split(np.zeros((8, 28, 28), np.uint8), np.arange(8) % 2)
    >>> optimizer = torch.optim.SGD(param_groups(model, head_lr=1e-3, backbone_lr=1e-4))
    >>> table = first_steps(model, few, optimizer, steps=2, batch_size=4, size=32)
    >>> table["step"].tolist(), table["lr/head"].tolist()
    ([1, 2], [0.001, 0.001])
    """
    if steps < 1:
        raise ValueError(f"expected at least 1 step, got {steps}")
    before, recorder, drifts = snapshot(model), Recorder(optimizer, gradients=True), []
    source = PreparedImages(model, split.images, size=size)
    batches = TrainingBatches(source, split.labels, batch_size, seed=seed)
    with seeded(seed):
        for batch in islice(_endless(batches), steps):
            train_epoch(model, [batch], nn.CrossEntropyLoss(), optimizer, scheduler, recorder)
            drifts.append(drift_by_stage(before, model).add_prefix("drift/"))
    table = recorder.history().steps.drop(columns="epoch")
    table["step"] += 1
    table["grad/backbone"] = _joint(table)
    return pd.concat([table, pd.DataFrame(drifts).reset_index(drop=True)], axis=1)


def _endless(batches: TrainingBatches) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from batches


def _joint(table: pd.DataFrame) -> pd.Series[float]:
    squares: pd.Series[float] = (table.filter(regex="^grad/(?!head)") ** 2).sum(axis=1)
    return squares**0.5
