"""One run of a strategy: train, and score under every condition asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from torch import nn

from studies.images import image_set, other_scores, row_of_run
from tlcourse.datasets import ImageSet
from tlcourse.features import flat_maps
from tlcourse.freezing.report import snapshot
from tlcourse.similarity import cka_by_stage, drift_by_stage
from tlcourse.training.history import History
from tlcourse.training.strategies import Strategy, starting_model, steps_per_epoch, train_by

COMPARED = 64
"""Validation images, at most, on which a network is compared with its start by CKA."""

WATCHED = 8
"""Validation images that `fit` looks at after each epoch."""

FIRST_STEPS = 5
"""Steps over which the first gradients are averaged."""


def run_strategy(
    strategy: Mapping[str, Any],
    images: int | None,
    seed: int,
    lr: float | None = None,
    *,
    source: str = "breast",
    partition: str = "grouped",
    shifts: Sequence[str] = (),
    corruptions: Sequence[str] = (),
    backbone: str = "mobilenet_v2",
    steps: int = 54,
    size: int = 128,
    test: bool = True,
) -> dict[str, Any]:
    """Train once by a strategy and return its scores: one run of a grid.

    Every strategy gets about `steps` optimizer steps: whole epochs, so within half an epoch.

    Args:
        strategy: See `Strategy`.
        images: Training images, drawn stratified by `seed`; None takes all.
        seed: Seed of the drawing, the new head, order and augmentation.
        lr: Rate of the head; None takes the strategy's own.
        source: As `load_images` takes it.
        partition: `"grouped"` or `"official"`, of real images.
        shifts: Other scanners (`phantom.SHIFTS`) by which the simulated test patients are imaged
            and scored as well, as `SCORE/SHIFT`; for simulated images only.
        corruptions: Ways to spoil the test images, as `NAME@SEVERITY` (`corruptions.corrupt`),
            scored as well, as `SCORE/NAME@SEVERITY`.
        backbone: A classifier of torchvision.
        steps: Optimizer steps that every strategy gets.
        size: Side in pixels at which the network sees the images.
        test: Whether to score the test images, shifted and spoiled ones included; a run that
            chooses rates leaves them shut.

    Returns:
        Scores by name; `cka/STAGE` and `drift/STAGE` compare with the start of the same run,
        `grad/head` and `grad/backbone` are mean norms over the first steps.

    Raises:
        ValueError: If there is no rate, or shifts are asked of images that are not simulated.
    """
    chosen, data = Strategy.from_data(strategy), image_set(source, partition)
    rate = _rate(chosen, lr)
    if shifts and not data.simulated:
        raise ValueError(f"only simulated patients can be imaged anew: {data.name} is not")
    part = data if images is None else data.with_train(data.train.subset(images, seed=seed))
    model = starting_model(chosen, backbone, num_classes=data.num_classes, seed=seed)
    start, seen = snapshot(model), data.val.subset(min(COMPARED, len(data.val)), seed=0).images
    maps = flat_maps(model, seen, size=size)
    started = time.perf_counter()
    history = train_for_steps(chosen, model, part, lr=rate, steps=steps, size=size, seed=seed)
    trained = time.perf_counter() - started
    cka = cka_by_stage(maps, flat_maps(model, seen, size=size))
    measured = {"train_seconds": trained, "steps": len(history.steps)}
    return {
        **row_of_run(model, part, size, measured, test=test),
        **(other_scores(model, data.test, shifts, corruptions, size) if test else {}),
        **_first_gradients(history),
        **{f"cka/{stage}": float(value) for stage, value in cka.items()},
        **{f"drift/{s}": float(v) for s, v in drift_by_stage(start, model).items()},
    }


def train_for_steps(
    strategy: Strategy,
    model: nn.Module,
    data: ImageSet,
    *,
    lr: float,
    steps: int,
    size: int,
    seed: int,
) -> History:
    """Train by a strategy for about `steps` optimizer steps, whole epochs, and keep the last."""
    # The last epoch's weights count, so the validation images are scored once, at the end: in every
    # one of 27 epochs they would take as long as the 50 training images of the smallest runs.
    watched = replace(data, val=data.val.subset(min(WATCHED, len(data.val)), seed=0))
    return train_by(
        strategy,
        model,
        watched,
        lr=lr,
        epochs=max(2, round(steps / steps_per_epoch(data))),
        size=size,
        seed=seed,
        gradients=True,
        progress=False,
    )


def _rate(strategy: Strategy, lr: float | None) -> float:
    rate = strategy.lr if lr is None else lr
    if rate is None:
        raise ValueError(f"{strategy.name} has no rate: give lr, or write it into the strategy")
    return rate


def _first_gradients(history: History) -> dict[str, float]:
    norms = history.steps.filter(like="grad/").head(FIRST_STEPS)
    backbone = norms.drop(columns="grad/head")
    return {
        "grad/head": float(norms["grad/head"].mean()),
        "grad/backbone": float(_joint(backbone).mean()) if len(backbone.columns) else 0.0,
    }


def _joint(norms: pd.DataFrame) -> pd.Series[float]:
    """Return the norm of all groups together, step by step."""
    return (norms**2).sum(axis=1) ** 0.5
