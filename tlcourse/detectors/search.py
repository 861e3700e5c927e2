"""Train by one rate or by several, and choose among them on the validation images alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from tlcourse.backbones.stages import stages
from tlcourse.detectors.config import TrainingConfig
from tlcourse.freezing.freeze import frozen_stages
from tlcourse.training.checkpoint import Keep
from tlcourse.training.history import History
from tlcourse.training.strategies import (
    AUGMENT,
    BATCH_SIZE,
    WEIGHT_DECAY,
    fitted_to,
    starting_model,
    steps_per_epoch,
    train_by,
)

KEEP: Keep = "best_loss"


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
    classes = config.data.num_classes
    model = starting_model(config.strategy, config.backbone, num_classes=classes, seed=config.seed)
    plan = _plan(config, model, lr)
    history = train_by(
        config.strategy,
        model,
        config.data,
        lr=lr,
        epochs=config.epochs,
        size=config.size,
        seed=config.seed,
        class_weights=config.class_weights,
        keep=KEEP,
        checkpoint=checkpoint,
        progress=config.progress,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return Trial(lr, model, history, plan)


def _plan(config: TrainingConfig, model: nn.Module, lr: float) -> dict[str, Any]:
    """Return what a training does, as plain values, before it begins."""
    strategy = fitted_to(config.strategy, model)
    groups = strategy.groups(model, lr, config.epochs)
    steps = config.epochs * steps_per_epoch(config.data)
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
