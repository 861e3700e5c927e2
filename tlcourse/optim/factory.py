"""Make optimizer, schedule and class weights from what a learner gives to `fit` or `find_lr`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from tlcourse.backbones.hooks import device_of, num_logits
from tlcourse.backbones.preprocessing import preprocess
from tlcourse.datasets.base import ImageSet
from tlcourse.optim.groups import check_optimizer, trainable_parameters
from tlcourse.runtime import device

MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]


def make_optimizer(
    model: nn.Module,
    optimizer: Optimizer | MakeOptimizer | None,
    *,
    unfreezing: str | None = None,
) -> Optimizer:
    """Return the optimizer that was given, or make one over all that may move.

    Args:
        model: The network to be trained.
        optimizer: An optimizer; a function that makes one from a list of param groups; or None
            for AdamW with rate 1e-3 and weight decay 0.01.
        unfreezing: The lowest stage to be unfrozen later; an optimizer that is made here holds
            what will move then, too. While it is frozen it has no gradient and gets no step.

    Raises:
        ValueError: If it is none of these, or nothing may move.

    >>> type(make_optimizer(nn.Linear(2, 2), None)).__name__
    'AdamW'
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    groups = [{"name": "all", "params": trainable_parameters(model, unfreezing)}]
    if optimizer is None:
        # Fused: one pass over all parameters, which is a little faster.
        return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01, fused=True)
    made = optimizer(groups) if callable(optimizer) else optimizer
    if not isinstance(made, Optimizer):
        raise ValueError(f"expected optimizer to be or to make a torch optimizer, got {made!r}")
    return made


def prepare_optimizer(
    model: nn.Module,
    optimizer: Optimizer | MakeOptimizer | None,
    data: object,
    size: int,
    *,
    unfreezing: str | None = None,
) -> Optimizer:
    """Bring a model to its device and give it its optimizer; refuse what cannot be trained.

    What `fit` and `find_lr` do before they train. A model on the CPU moves to `runtime.device()`,
    unless its optimizer has already made steps, whose momentum would stay behind.

    Args:
        model: The network to be trained.
        optimizer: See `make_optimizer`.
        data: What it is to be trained on; an `ImageSet` must have as many classes as the network
            has logits.
        size: Side in pixels at which the network sees the images.
        unfreezing: See `make_optimizer`.

    Raises:
        ValueError: If nothing may move, or the network has another number of logits.
    """
    trainable_parameters(model)  # for its error, before any work
    present, in_use = device_of(model), isinstance(optimizer, Optimizer) and bool(optimizer.state)
    place = present if in_use or present.type != "cpu" else device()
    model.to(place).to(memory_format=torch.channels_last)
    if isinstance(data, ImageSet):
        _check_num_logits(model, data, size)
    made = make_optimizer(model, optimizer, unfreezing=unfreezing)
    # A warning points at the call of `fit` or `find_lr`.
    check_optimizer(model, made, unfreezing=unfreezing, stacklevel=4)
    return made


def _check_num_logits(model: nn.Module, data: ImageSet, size: int) -> None:
    image = preprocess(model, data.train.images[:1], size).to(device_of(model))
    count = num_logits(model, image)
    if count != data.num_classes:
        raise ValueError(
            f"the network gives {count} logits, but {data.name!r} has {data.num_classes} "
            f"classes: call replace_head(model, {data.num_classes}) first"
        )


def make_loss_function(
    class_weights: Literal["balanced"] | ArrayLike | Tensor | None, data: object, model: nn.Module
) -> nn.CrossEntropyLoss:
    """Return cross-entropy with the weights of the classes, on the model's device.

    Args:
        class_weights: See `make_class_weights`.
        data: An `ImageSet`, or a loader, whose classes nobody can count ahead.
        model: The network.

    Raises:
        ValueError: If a loader's classes are to be balanced, or the weights do not fit.

    >>> make_loss_function([1.0, 3.0], "a loader", nn.Linear(2, 2)).weight
    tensor([1., 3.])
    """
    if isinstance(data, ImageSet):
        weights = make_class_weights(class_weights, data)
    elif isinstance(class_weights, str):
        raise ValueError(
            f"expected class_weights as numbers with a loader, got {class_weights!r}: its labels "
            "are not known ahead"
        )
    else:
        weights = None if class_weights is None else _numbers(class_weights)
    return nn.CrossEntropyLoss(weight=weights).to(device_of(model))


def make_class_weights(
    wanted: Literal["balanced"] | ArrayLike | Tensor | None, data: ImageSet
) -> Tensor | None:
    """Return the weight of each class in the loss, float32 `(C,)` on the CPU; None: all equal.

    Args:
        wanted: None; "balanced" for N / (C * images of the class), as scikit-learn weighs; or C
            numbers of 0 or more, a tensor of any type and on any device included.
        data: Its training labels are counted.

    Raises:
        ValueError: If it is none of these, or a class to be balanced has no image.
    """
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return _balanced(wanted, data)
    try:
        weights = _numbers(wanted)
    except (TypeError, ValueError):  # no numbers, or rows of different lengths
        weights = torch.empty(0)
    if weights.shape != (data.num_classes,) or not (weights.isfinite() & (weights >= 0)).all():
        raise ValueError(
            f"expected {data.num_classes} finite class_weights of 0 or more, got {wanted}"
        )
    return weights


def _numbers(wanted: ArrayLike | Tensor) -> Tensor:
    """Return numbers of any kind, type and device as a float32 tensor of its own on the CPU."""
    if isinstance(wanted, list | tuple):
        wanted = [w.item() if isinstance(w, Tensor) else w for w in wanted]
    if isinstance(wanted, Tensor):
        # What has a gradient or lies on a GPU cannot be read as an array.
        return wanted.detach().cpu().to(torch.float32, copy=True)
    return torch.from_numpy(np.array(wanted, dtype=np.float32, order="C"))


def _balanced(wanted: str, data: ImageSet) -> Tensor:
    if wanted != "balanced":
        raise ValueError(f"expected class_weights None, 'balanced' or numbers, got {wanted!r}")
    counts = np.bincount(data.train.labels, minlength=data.num_classes)
    if (counts == 0).any():
        absent = [data.classes[c] for c in np.flatnonzero(counts == 0)]
        raise ValueError(f"no training image of {absent}: a balanced weight cannot be formed")
    return torch.from_numpy(counts.sum() / (len(counts) * counts)).float()


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


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup_steps: int | None = None
) -> LambdaLR:
    """Raise each rate from zero to its own value in a straight line, then let it fall to zero.

    It multiplies each group's own rate, so that the proportions of the groups stay.

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
