"""Turn what a learner gives to `fit` into what the training loop needs, or say what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from tlcourse.datasets import ImageSet
from tlcourse.optim import MakeOptimizer, make_class_weights, make_optimizer

__all__ = [
    "Keep",
    "MakeOptimizer",
    "MakeSchedule",
    "check_choices",
    "make_class_weights",
    "make_optimizer",
    "make_scheduler",
]

Keep = Literal["last", "best", "best_loss"]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]


def check_choices(epochs: int, keep: str, data: ImageSet) -> None:
    """Refuse what cannot be trained.

    Args:
        epochs: At least 1.
        keep: One of `Keep`.
        data: Its validation images must hold two classes if `keep` compares AUC.

    Raises:
        ValueError: If one of these does not hold.
    """
    if epochs < 1:
        raise ValueError(f"expected at least 1 epoch, got {epochs}")
    if keep not in get_args(Keep):
        raise ValueError(f"expected keep as one of {get_args(Keep)}, got {keep!r}")
    if keep == "best" and len(np.unique(data.val.labels)) < 2:
        raise ValueError(
            "keep='best' compares AUC, which needs two classes among the validation images: "
            "use keep='best_loss'"
        )


def make_scheduler(
    schedule: LRScheduler | MakeSchedule | None, optimizer: Optimizer, total_steps: int
) -> LRScheduler | None:
    """Return the scheduler that was given, or let the given function make one.

    Args:
        schedule: A scheduler; a function of the optimizer and `total_steps`; or None.
        optimizer: What the scheduler must belong to.
        total_steps: Optimizer steps of the whole training.

    Raises:
        ValueError: If it is none of these, belongs to another optimizer, or steps by a score.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    >>> make_scheduler(halving, optimizer, 10) is halving
    True
    """
    if schedule is None:
        return None
    made = schedule(optimizer, total_steps) if callable(schedule) else schedule
    if not isinstance(made, LRScheduler) or isinstance(made, ReduceLROnPlateau):
        raise ValueError(
            "expected schedule to be or to make a scheduler that steps without a score, "
            f"such as optim.warmup_cosine; got {made!r}"
        )
    if made.optimizer is not optimizer:
        raise ValueError("the schedule belongs to another optimizer: give fit that one as well")
    return made
