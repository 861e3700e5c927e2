"""Set the rate of every optimizer step: warmup, cosine, slanted triangle, constant.

Every schedule is a `LambdaLR`: it multiplies each group's own rate, so that the proportions of
the groups stay. It makes one step after every optimizer step, not after every epoch.
"""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup_steps: int | None = None
) -> LambdaLR:
    """Raise each rate from zero to its own value in a straight line, then let it fall to zero.

    The rate of the first step is exactly zero (the full one with `warmup_steps=0`); step
    `warmup_steps` has the full rate; half a cosine wave leads back to zero after the last step.
    Call `step()` after every optimizer step.

    Args:
        optimizer: Its groups keep the proportions of their rates.
        total_steps: Optimizer steps of the whole training, at least 1.
        warmup_steps: Steps before the full rate is reached, 0 to `total_steps`; None takes a
            tenth of `total_steps`, rounded up.

    Raises:
        ValueError: If the numbers of steps are out of range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> schedule = warmup_cosine(optimizer, total_steps=10, warmup_steps=2)
    >>> [round(schedule.lr_lambdas[0](step), 2) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = math.ceil(total_steps / 10) if warmup_steps is None else warmup_steps
    _check_steps(total_steps, warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        return (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def slanted_triangular(
    optimizer: Optimizer, total_steps: int, *, cut_frac: float = 0.1, ratio: float = 32.0
) -> LambdaLR:
    """Raise each rate steeply to its own value, then lower it slowly (Howard & Ruder 2018).

    As in the paper, the first rate is 1 / `ratio` of the full one, and the rate returns there
    after the last step; `ratio=math.inf` starts from exactly zero. Call `step()` after every
    optimizer step.

    Args:
        optimizer: Its groups keep the proportions of their rates.
        total_steps: Optimizer steps of the whole training, at least 1.
        cut_frac: Share of the steps in which the rate rises, above 0 and below 1.
        ratio: How many times the lowest rate goes into the highest, at least 1.

    Raises:
        ValueError: If an argument is out of range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3.2)
    >>> schedule = slanted_triangular(optimizer, total_steps=100)
    >>> [round(3.2 * schedule.lr_lambdas[0](step), 2) for step in (0, 10, 55, 100)]
    [0.1, 3.2, 1.65, 0.1]
    """
    _check_steps(total_steps, 0)
    if not (0 < cut_frac < 1 and ratio >= 1):
        raise ValueError(f"expected 0 < cut_frac < 1 and ratio >= 1, got {cut_frac} and {ratio}")
    cut = max(1, math.floor(total_steps * cut_frac))
    lowest = 1 / ratio

    def factor(step: int) -> float:
        # The paper divides by cut * (1 / cut_frac - 1), which is this length without rounding;
        # with it, a short training would end at rates below zero.
        fall = min((step - cut) / max(total_steps - cut, 1), 1.0)
        height = step / cut if step < cut else 1 - fall
        return lowest + height * (1 - lowest)

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0) -> LambdaLR:
    """Keep each rate at its own value, after `warmup_steps` in which it rises from zero.

    Args:
        optimizer: Its groups keep the proportions of their rates.
        total_steps: Optimizer steps of the whole training, at least 1.
        warmup_steps: Steps before the full rate is reached, 0 to `total_steps`.

    Raises:
        ValueError: If the numbers of steps are out of range.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> constant(optimizer, total_steps=10).get_last_lr()
    [0.1]
    """
    _check_steps(total_steps, warmup_steps)
    return LambdaLR(optimizer, lambda step: min(step / warmup_steps, 1.0) if warmup_steps else 1.0)


def _check_steps(total_steps: int, warmup_steps: int) -> None:
    if total_steps < 1:
        raise ValueError(f"expected total_steps of at least 1, got {total_steps}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"expected warmup_steps from 0 to total_steps={total_steps}, got {warmup_steps}"
        )
