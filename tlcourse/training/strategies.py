"""Strategies of transfer as data: what starts frozen, what is released when, how fast."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from numbers import Real
from typing import Any, Literal

import torch
from torch import nn

from tlcourse.backbones.factory import load_backbone
from tlcourse.backbones.stages import stages
from tlcourse.datasets.base import ImageSet
from tlcourse.freezing.freeze import freeze, lowest_unfrozen, plan_unfreezing
from tlcourse.loaders.batches import shuffled_batches
from tlcourse.optim.factory import warmup_cosine
from tlcourse.optim.groups import param_groups
from tlcourse.training.fit import fit
from tlcourse.training.history import History

BATCH_SIZE = 32
WEIGHT_DECAY = 0.01
AUGMENT: Literal["flip"] = "flip"

AUGMENTED_VIEWS = 2
"""The same views of each image for every strategy: what is frozen can be cached, and is."""

_FROM_HEAD = re.compile(r"head-([1-9]\d*)")


@dataclass(frozen=True)
class Strategy:
    """How a network starts, what may move when, and how fast.

    Attributes:
        name: What tables and pictures call it.
        pretrained: Whether it starts from ImageNet weights, or from random ones.
        freeze: Whether everything but the head is frozen at the start.
        unfreeze: Stages to unfreeze (with all above), with the share of the epochs before it, above
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

    >>> Strategy.from_data({"name": "lp_ft", "freeze": True, "unfreeze": {"stem": 0.5}}).warmup
    0.0
    """

    name: str
    pretrained: bool = True
    freeze: bool = False
    unfreeze: Mapping[str, float] = field(default_factory=dict)
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
        if self.unfreeze and not self.freeze:
            raise ValueError(f"{self.name}: only what starts frozen is released: add freeze=True")
        if self.freeze and not self.unfreeze and (self.backbone, self.decay) != (1, 1):
            raise ValueError(
                f"{self.name}: a backbone that stays frozen has no rate: leave backbone and decay "
                "at 1, or release stages"
            )

    def _ranges(self) -> dict[str, tuple[str, bool]]:
        """Return for each option what is expected of it, and whether it is so."""
        shares = self.unfreeze.values() if isinstance(self.unfreeze, Mapping) else [math.nan]
        return {
            "pretrained": ("True or False", isinstance(self.pretrained, bool)),
            "freeze": ("True or False", isinstance(self.freeze, bool)),
            "unfreeze": (
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

    def unfreeze_at(self, epochs: int) -> dict[str, int]:
        """Return the epoch before which each stage is released, 2 at the earliest."""
        return {
            stage: min(max(2, 1 + round(share * epochs)), epochs)
            for stage, share in self.unfreeze.items()
        }

    def groups(self, model: nn.Module, lr: float, epochs: int) -> list[dict[str, Any]]:
        """Return the param groups, one per stage that ever moves, with `lr` for the head."""
        lowest = lowest_unfrozen(plan_unfreezing(model, self.unfreeze_at(epochs), epochs))
        if self.freeze and lowest is None:
            return param_groups(model, head_lr=lr)
        if self.decay != 1:
            return param_groups(model, head_lr=lr, decay=self.decay, unfreezing=lowest)
        return param_groups(model, head_lr=lr, backbone_lr=lr * self.backbone, unfreezing=lowest)


def fitted_to(strategy: Strategy, model: nn.Module) -> Strategy:
    """Return the strategy with all stages it releases named as `model` names them.

    Args:
        strategy: Any. `"head-1"`, `"head-2"`, ... count from the head down; where a network is too
            short, the stem stands for what it lacks. Other names are the network's own.
        model: A classifier of torchvision.

    Raises:
        ValueError: If the model has no stage of a name; the message lists those it has.

    >>> from torchvision.models import resnet18
    >>> strategy = Strategy("a", freeze=True, unfreeze={"head-1": 0.2, "head-9": 0.6})
    >>> list(fitted_to(strategy, resnet18()).unfreeze)
    ['stage4', 'stem']
    """
    below = list(stages(model))[:-1]
    unfreeze = dict[str, float]()
    for stage, share in strategy.unfreeze.items():
        place = _FROM_HEAD.fullmatch(stage)
        name = below[max(0, len(below) - int(place[1]))] if place else stage
        if name not in below:
            raise ValueError(
                f"{strategy.name} releases {stage!r}: expected stages of {type(model).__name__} "
                f"({', '.join(below)}), or head-1, head-2, ... counted from the head"
            )
        # Where several fall on one stage, it is released with the first.
        unfreeze[name] = min(share, unfreeze.get(name, share))
    return replace(strategy, unfreeze=unfreeze)


def starting_model(
    strategy: Strategy, backbone: str, *, num_classes: int, seed: int = 0
) -> nn.Module:
    """Return the network that a strategy starts from: its weights, and what is frozen.

    Args:
        strategy: Any.
        backbone: A classifier of torchvision.
        num_classes: Answers of the new head.
        seed: Seed of the new head, and of random weights.

    Raises:
        ValueError: If torchvision has no such classifier.
        WeightsUnavailable: If it is to be pretrained and the weights cannot be had.

    >>> model = starting_model(get_strategy("scratch"), "mobilenet_v2", num_classes=3)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3])
    """
    weights = "imagenet" if strategy.pretrained else None
    model = load_backbone(backbone, weights=weights, num_classes=num_classes, seed=seed)
    return freeze(model) if strategy.freeze else model


def train_by(
    strategy: Strategy, model: nn.Module, data: ImageSet, *, lr: float, epochs: int, **options: Any
) -> History:
    """Train by a strategy: the one place where its options become those of `fit`.

    Args:
        strategy: Any, `fitted_to` the model here.
        model: What `starting_model` returns; changed in place.
        data: Images and labels.
        lr: Rate of the head.
        epochs: Number of epochs.
        **options: The rest for `fit`, such as `size`, `seed`, `keep` or `checkpoint`.

    Raises:
        ValueError: If the model lacks a stage that is to be released, or `fit` refuses.
    """
    strategy = fitted_to(strategy, model)
    groups = strategy.groups(model, lr, epochs)
    warmup_steps = round(strategy.warmup * (epochs * steps_per_epoch(data)))
    return fit(
        model,
        data,
        epochs=epochs,
        optimizer=torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True),
        schedule=partial(warmup_cosine, warmup_steps=warmup_steps),
        batch_size=BATCH_SIZE,
        augment=AUGMENT,
        views=AUGMENTED_VIEWS,
        unfreeze_at=strategy.unfreeze_at(epochs),
        **options,
    )


def steps_per_epoch(data: ImageSet) -> int:
    """Count the batches of `BATCH_SIZE` that the training images make."""
    return len(shuffled_batches(len(data.train), BATCH_SIZE, torch.Generator()))


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("scratch", pretrained=False, warmup=0.1),
        Strategy("frozen", freeze=True),
        Strategy("cold"),
        Strategy("warmup", warmup=0.2),
        Strategy("lp_ft", freeze=True, unfreeze={"stem": 0.5}),
        Strategy("discriminative", backbone=0.1),
        Strategy("decay", decay=0.38461538),  # 1 / 2.6 (Howard & Ruder 2018)
        Strategy(
            "gradual",
            freeze=True,
            unfreeze={"head-1": 0.2, "head-2": 0.4, "head-3": 0.6, "stem": 0.8},
        ),
        Strategy("warmup_discriminative", warmup=0.2, backbone=0.1),
    )
}
"""By name; rates are left to whoever trains."""


def get_strategy(name: str) -> Strategy:
    """Return the strategy of that name.

    Raises:
        ValueError: If there is none; the message lists those there are.

    >>> get_strategy("lp_ft").unfreeze
    {'stem': 0.5}
    """
    if name not in STRATEGIES:
        raise ValueError(f"expected a strategy of {', '.join(STRATEGIES)}; got {name!r}")
    return STRATEGIES[name]
