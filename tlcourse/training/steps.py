"""Watch the first steps of a training one by one: what is sent back, and what moves."""

from __future__ import annotations

from itertools import chain, islice, repeat

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tlcourse.datasets.base import Split
from tlcourse.freezing.report import snapshot
from tlcourse.loaders.batches import PreparedImages, TrainingBatches
from tlcourse.runtime import seeded
from tlcourse.similarity import drift_by_stage
from tlcourse.training.fit import train_epoch
from tlcourse.training.history import Recorder


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
        for batch in islice(chain.from_iterable(repeat(batches)), steps):
            train_epoch(model, [batch], nn.CrossEntropyLoss(), optimizer, scheduler, recorder)
            drifts.append(drift_by_stage(before, model).add_prefix("drift/"))
    table = recorder.history().steps.drop(columns="epoch")
    table["step"] += 1
    table["grad/backbone"] = (table.filter(regex="^grad/(?!head)") ** 2).sum(axis=1) ** 0.5
    return pd.concat([table, pd.DataFrame(drifts).reset_index(drop=True)], axis=1)


def one_step(
    model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor
) -> pd.DataFrame:
    """Make one step of cross-entropy; tell the length of each group's gradient and way.

    The first step of SGD has no past, whatever its momentum: each group goes its rate times its
    gradient. AdamW divides the gradient by its size, so its way hangs on the rate alone.

    Args:
        model: A classifier; it is trained by the step, in the modes it is in.
        optimizer: What is to make the step.
        images: Prepared images `(N, 3, H, W)`, on the model's device.
        labels: int64 `(N,)`.

    Returns:
        One row per group (index `group`): `lr`, `gradient` (its L2 norm), `moved` (the L2 norm of
        the change of the weights), `moved_per_gradient`, NaN for a group without a gradient.

    >>> layer = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    >>> groups = [{"params": layer.parameters(), "lr": 0.5, "name": "head"}]
    >>> images, labels = torch.ones(4, 3, 1, 1), torch.tensor([0, 1, 1, 1])
    >>> table = one_step(layer, torch.optim.SGD(groups), images, labels)
    >>> table["moved_per_gradient"].round(3).to_dict()
    {'head': 0.5}
    """
    optimizer.zero_grad()
    loss: Tensor = nn.functional.cross_entropy(model(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [_norm([p.grad for p in g["params"]]) for g in optimizer.param_groups]
    before = [[p.detach().clone() for p in g["params"]] for g in optimizer.param_groups]
    optimizer.step()
    rows = {}
    for i, (group, old) in enumerate(zip(optimizer.param_groups, before, strict=True)):
        moves = [p.detach() - q for p, q in zip(group["params"], old, strict=True)]
        rows[group.get("name", f"group{i}")] = float(group["lr"]), gradients[i], _norm(moves)
    columns = ["lr", "gradient", "moved"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("group")
    length = table["gradient"].where(table["gradient"] > 0)
    return table.assign(moved_per_gradient=table["moved"] / length)


def _norm(tensors: list[Tensor | None]) -> float:
    # In double precision: a small rate changes weights by little more than their rounding.
    present = [t.double() for t in tensors if t is not None]
    return float(torch.nn.utils.get_total_norm(present))
