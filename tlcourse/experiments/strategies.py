"""Ways to carry a pretrained network over to a new task, written down as data, and one run of one.

A strategy is a table of a grid file (`data/experiments/*.toml`), not code: what starts frozen,
what is released when, how the rates are spread over the stages, how long they warm up.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from numbers import Real
from typing import Any

import pandas as pd
import torch
from torch import nn

from tlcourse.backbones import load_backbone, stages
from tlcourse.batches import shuffled_batches
from tlcourse.datasets import ImageSet
from tlcourse.experiments.scoring import image_set, other_scores, scores
from tlcourse.freezing import freeze, snapshot
from tlcourse.history import History
from tlcourse.optim import param_groups, warmup_cosine
from tlcourse.probing import flat_maps
from tlcourse.releasing import plan_releases
from tlcourse.similarity import cka_by_stage, drift_by_stage
from tlcourse.training import fit

BATCH_SIZE = 32
COMPARED = 64
"""Validation images, at most, on which a network is compared with its start by CKA."""
WATCHED = 8
"""Validation images that `fit` looks at after each epoch."""
FIRST_STEPS = 5
"""Steps over which the first gradients are averaged."""

_FROM_HEAD = re.compile(r"head-([1-9]\d*)")


@dataclass(frozen=True)
class Strategy:
    """How a network starts, what may move when, and how fast.

    Attributes:
        name: What tables and pictures call it.
        pretrained: Whether it starts from ImageNet weights, or from random ones.
        freeze: Whether everything but the head is frozen at the start.
        release: Stages to unfreeze (with all above), with the share of the epochs before it, above
            0 and below 1; for what starts frozen. A stage's name is that stage of the network;
            `"head-1"` is the stage next to the head, `"head-2"` the one below, and so on, in
            whatever network (see `fitted_to`).
        warmup: Share of the steps in which the rates rise from zero; then a cosine falls to zero.
        backbone: Rate of the backbone over that of the head, above 0; with `decay`, leave it at 1.
        decay: Factor from one stage's rate to the next lower one's, above 0 and at most 1.
        lr: Rate of the head, above 0, if it was chosen for this strategy.

    Raises:
        ValueError: If an option is out of range, rates are given in two ways, or the frozen
            backbone gets a rate, or what is not frozen a release.

    >>> Strategy.from_data({"name": "lp_ft", "freeze": True, "release": {"stem": 0.5}}).warmup
    0.0
    """

    name: str
    pretrained: bool = True
    freeze: bool = False
    release: Mapping[str, float] = field(default_factory=dict)
    warmup: float = 0.0
    backbone: float = 1.0
    decay: float = 1.0
    lr: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"expected a name for the strategy, got {self.name!r}")
        for option, (expected, holds) in self._ranges().items():
            if not holds:
                raise ValueError(
                    f"{self.name}: expected {option} {expected}, got {getattr(self, option)!r}"
                )
        if self.backbone != 1 and self.decay != 1:
            raise ValueError(f"{self.name}: give backbone or decay, not both")
        if self.release and not self.freeze:
            raise ValueError(f"{self.name}: only what starts frozen is released: add freeze=True")
        if self.freeze and not self.release and (self.backbone, self.decay) != (1, 1):
            raise ValueError(
                f"{self.name}: a backbone that stays frozen has no rate: leave backbone and decay "
                "at 1, or release stages"
            )

    def _ranges(self) -> dict[str, tuple[str, bool]]:
        """Return for each option what is expected of it, and whether it is so."""
        shares = self.release.values() if isinstance(self.release, Mapping) else [math.nan]
        return {
            "pretrained": ("True or False", isinstance(self.pretrained, bool)),
            "freeze": ("True or False", isinstance(self.freeze, bool)),
            "release": (
                "as shares of the epochs above 0 and below 1, by stage",
                all(_number(share) and 0 < share < 1 for share in shares),
            ),
            "warmup": ("from 0 to 1", _number(self.warmup) and 0 <= self.warmup <= 1),
            "backbone": ("above 0", _number(self.backbone) and self.backbone > 0),
            "decay": ("above 0 and at most 1", _number(self.decay) and 0 < self.decay <= 1),
            "lr": ("above 0, or None", self.lr is None or (_number(self.lr) and self.lr > 0)),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Strategy:
        """Build a strategy from a table of a grid file.

        Raises:
            ValueError: If the name lacks, a key is unknown, or options are as `Strategy` refuses
                them.
        """
        known = {entry.name for entry in fields(cls)}
        if "name" not in data or set(data) - known:
            raise ValueError(f"expected a name and some of {sorted(known)}, got {sorted(data)}")
        return cls(**data)

    def releases(self, epochs: int) -> dict[str, int]:
        """Return the epoch before which each stage is released, 2 at the earliest."""
        return {
            stage: min(max(2, 1 + round(share * epochs)), epochs)
            for stage, share in self.release.items()
        }

    def groups(self, model: nn.Module, lr: float, epochs: int) -> list[dict[str, Any]]:
        """Return the param groups, one per stage that ever moves, with `lr` for the head."""
        planned = plan_releases(model, self.releases(epochs), epochs)
        lowest = planned[max(planned)] if planned else None
        if self.freeze and lowest is None:
            return param_groups(model, head_lr=lr)
        if self.decay != 1:
            return param_groups(model, head_lr=lr, decay=self.decay, releasing=lowest)
        return param_groups(model, head_lr=lr, backbone_lr=lr * self.backbone, releasing=lowest)


def fitted_to(strategy: Strategy, model: nn.Module) -> Strategy:
    """Return the strategy with all stages it releases named as `model` names them.

    Args:
        strategy: Any. `"head-1"`, `"head-2"`, ... count from the head down; where a network is too
            short, the stem stands for what it lacks. Other names are the network's own.
        model: A classifier of torchvision.

    Raises:
        ValueError: If the model has no stage of a name; the message lists those it has.

    >>> from torchvision.models import resnet18
    >>> strategy = Strategy("a", freeze=True, release={"head-1": 0.2, "stage3": 0.4, "head-9": 0.6})
    >>> list(fitted_to(strategy, resnet18()).release)
    ['stage4', 'stage3', 'stem']
    """
    below = list(stages(model))[:-1]
    release = dict[str, float]()
    for stage, share in strategy.release.items():
        place = _FROM_HEAD.fullmatch(stage)
        name = below[max(0, len(below) - int(place[1]))] if place else stage
        if name not in below:
            raise ValueError(
                f"{strategy.name} releases {stage!r}: expected stages of {type(model).__name__} "
                f"({', '.join(below)}), or head-1, head-2, ... counted from the head"
            )
        # Where several fall on one stage, it is released with the first.
        release[name] = min(share, release.get(name, share))
    return replace(strategy, release=release)


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
    model = _start(chosen, backbone, data.num_classes, seed)
    start, seen = snapshot(model), data.val.subset(min(COMPARED, len(data.val)), seed=0).images
    maps = flat_maps(model, seen, size=size)
    started = time.perf_counter()
    history = train_by(chosen, model, part, lr=rate, steps=steps, size=size, seed=seed)
    trained = time.perf_counter() - started
    cka = cka_by_stage(maps, flat_maps(model, seen, size=size))
    validated = scores(model, data.val, size)
    return {
        "train_images": len(part.train),
        "train_seconds": trained,
        "steps": len(history.steps),
        "val_auc": validated["auc"],
        "val_loss": validated["loss"],
        **(scores(model, data.test, size) if test else {}),
        **(other_scores(model, data.test, shifts, corruptions, size) if test else {}),
        **_first_gradients(history),
        **{f"cka/{stage}": float(value) for stage, value in cka.items()},
        **{f"drift/{s}": float(v) for s, v in drift_by_stage(start, model).items()},
    }


def _rate(strategy: Strategy, lr: float | None) -> float:
    rate = strategy.lr if lr is None else lr
    if rate is None:
        raise ValueError(f"{strategy.name} has no rate: give lr, or write it into the strategy")
    return rate


def _start(strategy: Strategy, backbone: str, num_classes: int, seed: int) -> nn.Module:
    weights = "imagenet" if strategy.pretrained else None
    model = load_backbone(backbone, weights=weights, num_classes=num_classes, seed=seed)
    return freeze(model) if strategy.freeze else model


def train_by(
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
    per_epoch = len(shuffled_batches(len(data.train), BATCH_SIZE, torch.Generator()))
    epochs = max(2, round(steps / per_epoch))
    strategy = fitted_to(strategy, model)
    groups = strategy.groups(model, lr, epochs)
    # The last epoch's weights count, so the validation images are scored once, at the end: in every
    # one of 27 epochs they would take as long as the 50 training images of the smallest runs.
    watched = replace(data, val=data.val.subset(min(WATCHED, len(data.val)), seed=0))
    return fit(
        model,
        watched,
        epochs=epochs,
        optimizer=torch.optim.AdamW(groups, weight_decay=0.01, fused=True),
        schedule=partial(warmup_cosine, warmup_steps=round(strategy.warmup * epochs * per_epoch)),
        batch_size=BATCH_SIZE,
        size=size,
        # The same two views for every strategy: what is frozen can be cached, and is.
        augment="flip",
        views=2,
        unfreeze_at=strategy.releases(epochs),
        gradients=True,
        seed=seed,
        progress=False,
    )


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


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
