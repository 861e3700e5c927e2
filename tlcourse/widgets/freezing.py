"""Explore what freezing costs and saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import nn

from tlcourse.freezing.costs import Estimate, estimate, stage_costs
from tlcourse.loaders.batches import shuffled_batches
from tlcourse.widgets.controls import (
    Explorer,
    choice_slider,
    schedule,
    share,
    short,
    step_sliders,
    table,
)

BATCH_SIZES = (4, 8, 16, 32, 64, 128)

NOTHING = "nothing"
"""Value of "Frozen through" when no stage is frozen."""


def explore_freezing(
    model: nn.Module,
    *,
    images: int,
    size: int = 128,
    lr: float = 1e-3,
    batch_size: int = 32,
    total_steps: int = 100,
    warmup_steps: int = 10,
    optimizer_state: int = 2,
    costs: pd.DataFrame | None = None,
) -> Explorer:
    """Explore what freezing costs and saves: parameters, memory, seconds, and the schedule.

    The stages are measured once, when the explorer is made; `costs.estimate` says what the
    figures leave out. What is frozen in `model` now does not matter, and stays as it is.

    Args:
        model: A classifier of torchvision; it is only read.
        images: Training images, at least 2.
        size: Side of the images in pixels.
        lr: The full rate, above 0.
        batch_size: Images in a batch at first, one of `BATCH_SIZES`.
        total_steps: Optimizer steps of the whole training at first, 10 to 1000.
        warmup_steps: Steps from zero to the full rate at first, 0 to `total_steps`.
        optimizer_state: Numbers that the optimizer keeps per trainable parameter: 2 for AdamW, 1
            for SGD with momentum.
        costs: What `stage_costs` returned for this model, so that it is not measured again.

    Returns:
        Controls "Frozen through", "Batch size", "Total steps" and "Warmup steps", and what they
        mean.

    Raises:
        ValueError: If an argument is out of its range.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> from torchvision.models import shufflenet_v2_x0_5
    >>> explorer = explore_freezing(shufflenet_v2_x0_5(), images=100, size=32)
    >>> explorer.controls["Frozen through"].value = "stage3"
    >>> "1,025,000 of 1,366,792" in explorer.shown.value
    True
    """
    if not 0 < lr < float("inf"):
        raise ValueError(f"expected lr above 0, got {lr}")
    measured = stage_costs(model, size=size) if costs is None else costs
    body = [str(name) for name in measured.index[:-1]]
    ends = [(name, name) for name in (NOTHING, *body[:-1])] + [("all but the head", body[-1])]
    through = choice_slider("Frozen through", ends, NOTHING)
    batch = choice_slider("Batch size", [(str(n), n) for n in BATCH_SIZES], batch_size)

    def draw(values: Mapping[str, Any]) -> str:
        end = None if values["Frozen through"] == NOTHING else values["Frozen through"]
        found = estimate(
            measured,
            through=end,
            images=images,
            batch_size=values["Batch size"],
            optimizer_state=optimizer_state,
        )
        total, steps = values["Total steps"], _steps_per_epoch(images, values["Batch size"])
        rows = _rows(found, int(measured["parameters"].sum()))
        rows["Epochs"] = f"{short(total / steps)} of {steps} steps each"
        curve = schedule({_moving(body, end): lr}, total, values["Warmup steps"])
        return table(rows) + curve

    return Explorer([through, batch, *step_sliders(total_steps, warmup_steps)], draw)


def _rows(found: Estimate, parameters: int) -> dict[str, str]:
    parts = {
        "weights": found.weights_mb,
        "gradients": found.gradients_mb,
        "optimizer": found.optimizer_mb,
        "activations": found.activations_mb,
    }
    shares = ", ".join(f"{name} {short(size)}" for name, size in parts.items())
    rows = {
        "Trainable parameters": share(found.trainable, parameters),
        "Memory": f"{short(found.memory_mb)} MB ({shares})",
        "Seconds per epoch": short(found.epoch_seconds),
    }
    if found.cache_mb:
        rows["Seconds per epoch, frozen part cached"] = (
            f"{short(found.cached_epoch_seconds)}, after {short(found.caching_seconds)} s once "
            f"and {short(found.cache_mb)} MB of cache"
        )
    return rows


def _steps_per_epoch(images: int, batch_size: int) -> int:
    return len(shuffled_batches(images, batch_size, torch.Generator()))


def _moving(body: list[str], through: str | None) -> str:
    above = body if through is None else body[1 + body.index(through) :]
    return f"{above[0]} to head" if above else "head"
