"""Train by one rate or by several, and choose among them on the validation images alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn

from tlcourse.backbones.factory import load_backbone
from tlcourse.backbones.stages import stages
from tlcourse.detectors.config import TrainingConfig
from tlcourse.freezing.freeze import freeze, frozen_stages
from tlcourse.loaders.batches import shuffled_batches
from tlcourse.optim.factory import warmup_cosine
from tlcourse.training.checkpoint import Keep
from tlcourse.training.fit import fit
from tlcourse.training.history import History
from tlcourse.training.strategies import BATCH_SIZE, Strategy, fitted_to

KEEP: Keep = "best_loss"
WEIGHT_DECAY = 0.01
AUGMENT: Literal["flip"] = "flip"

AUGMENTED_VIEWS = 2
"""Views of each image: what is frozen can be cached, and is."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One training.

    Attributes:
        lr: Rate of the head.
        model: With the weights of the epoch that was kept.
        history: Of all its epochs.
        plan: Rates of the groups, epochs of unfreezing, steps: plain values.
    """

    lr: float
    model: nn.Module
    history: History
    plan: dict[str, Any]

    @property
    def scores(self) -> dict[str, float]:
        """Rate, epoch and validation scores of what was kept."""
        (row,) = self.history.table.query(f"epoch == {self.history.kept_epoch}").to_dict("records")
        names = ("epoch", "val_loss", "val_auc", "val_accuracy")
        return {"lr": self.lr, **{name: row[name] for name in names}}


def best_trial(
    config: TrainingConfig, checkpoints: Path
) -> tuple[Trial, list[dict[str, float]], pd.DataFrame]:
    """Train with each rate; return the trial with the lowest validation loss, and what was tried.

    Args:
        config: What to train.
        checkpoints: Folder for the state of each training; those that are there are gone on with.

    Returns:
        The best trial; the scores of all; a table of all their epochs, with a column `head_lr`.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
    """
    best, tried, tables = None, [], []
    for i, lr in enumerate(config.rates, start=1):
        config.say(
            f"training {i} of {len(config.rates)}: {config.strategy.name}, rate {lr:g} of the head"
        )
        checkpoint = checkpoints / f"lr-{lr!r}.pt"
        if checkpoint.exists():
            config.say(f"  going on with {checkpoint.name}, from its last finished epoch")
        trial = _train(config, lr, checkpoint)
        scores = trial.scores
        config.say(f"  epoch {scores['epoch']} is kept: validation loss {scores['val_loss']:.3f}")
        tried.append(scores)
        tables.append(trial.history.table.assign(head_lr=lr))
        if best is None or scores["val_loss"] < best.scores["val_loss"]:
            best = trial
    assert best is not None  # `head_rates` gives one rate or more
    return best, tried, pd.concat(tables, ignore_index=True)


def _train(config: TrainingConfig, lr: float, checkpoint: Path) -> Trial:
    model = _start(config)
    strategy = fitted_to(config.strategy, model)
    groups = strategy.groups(model, lr, config.epochs)
    plan = _plan(config, strategy, model, groups)
    history = fit(
        model,
        config.data,
        epochs=config.epochs,
        optimizer=torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True),
        schedule=partial(warmup_cosine, warmup_steps=plan["warmup_steps"]),
        batch_size=BATCH_SIZE,
        size=config.size,
        augment=AUGMENT,
        views=AUGMENTED_VIEWS,
        class_weights=config.class_weights,
        keep=KEEP,
        unfreeze_at=plan["unfreeze_at"],
        checkpoint=checkpoint,
        seed=config.seed,
        progress=config.progress,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return Trial(lr, model, history, plan)


def _plan(
    config: TrainingConfig, strategy: Strategy, model: nn.Module, groups: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what a training does, as plain values, before it begins."""
    batches = shuffled_batches(len(config.data.train), BATCH_SIZE, torch.Generator())
    steps = config.epochs * len(batches)
    return {
        "stages": list(stages(model)),
        "frozen": list(frozen_stages(model)),
        "unfreeze_at": strategy.unfreeze_at(config.epochs),
        "rates": [{"name": group["name"], "lr": group["lr"]} for group in groups],
        "steps": steps,
        "warmup_steps": round(strategy.warmup * steps),
        "batch_size": BATCH_SIZE,
        "augment": AUGMENT,
        "keep": KEEP,
        "class_weights": config.class_weights,
        "optimizer": f"AdamW, weight decay {WEIGHT_DECAY}",
    }


def _start(config: TrainingConfig) -> nn.Module:
    weights = "imagenet" if config.strategy.pretrained else None
    classes = config.data.num_classes
    model = load_backbone(config.backbone, weights=weights, num_classes=classes, seed=config.seed)
    return freeze(model) if config.strategy.freeze else model
