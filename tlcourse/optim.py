"""Give each stage its own learning rate, and let the rates follow a schedule.

`param_groups` sorts the parameters that may move into groups named after their stage; every torch
optimizer takes the groups as they are. The schedules set the rate of every optimizer step.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tlcourse.backbones import stages

ULMFIT_DECAY = 1 / 2.6
"""Factor from one layer's rate to the next lower one's (Howard & Ruder 2018)."""

NO_DECAY = "/no_decay"
"""What the name of a group without weight decay ends in."""


class OptimizerWarning(UserWarning):
    """What the optimizer holds and what may move are not the same."""


def param_groups(
    model: nn.Module,
    *,
    head_lr: float | None = None,
    backbone_lr: float | None = None,
    lrs: Mapping[str, float] | None = None,
    decay: float | None = None,
    weight_decay: float | None = None,
    no_decay: bool = False,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into one named group per stage, each with its rate.

    There are three ways to give the rates, and only one may be used at a time: `lrs`, a rate for
    each stage that is to move; `head_lr` with `backbone_lr` (which is left out when the whole
    backbone is frozen); `head_lr` with `decay`, where each stage's rate is `decay` times that of
    the next higher stage, frozen stages counted (Howard & Ruder 2018 use 1 / 2.6).

    Every trainable parameter lands in exactly one group and frozen ones in none. Stages that are
    wholly frozen get no group.

    Args:
        model: A network whose stages are known (see `tlcourse.backbones.stages`).
        head_lr: Rate of the head, above 0.
        backbone_lr: Rate of all stages below the head, above 0.
        lrs: Rates by stage name.
        decay: Factor from one stage to the next lower one, above 0 and at most 1.
        weight_decay: Weight decay of the groups, 0 or more; None leaves it to the optimizer.
        no_decay: Whether one-dimensional parameters (biases and the scales of normalisation
            layers) go without weight decay, in groups of their own, such as `stage1/no_decay`.

    Returns:
        Groups in the order of the stages, with keys `name`, `params`, `lr` and, where it is set,
        `weight_decay`.

    Raises:
        ValueError: If the rates are given in no way or in two, name a stage that does not exist
            or one that is frozen, leave out a trainable stage, or lie outside their range.

    >>> import torch
    >>> from torchvision.models import mobilenet_v2
    >>> groups = param_groups(mobilenet_v2(num_classes=2), head_lr=1e-3, backbone_lr=1e-4)
    >>> groups[-1]["name"], groups[-1]["lr"], groups[0]["name"], groups[0]["lr"]
    ('head', 0.001, 'stem', 0.0001)
    >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
    """
    _check_numbers({"head_lr": head_lr, "backbone_lr": backbone_lr, **(lrs or {})})
    if weight_decay is not None and not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"expected a weight_decay of 0 or more, got {weight_decay}")
    trainable = _trainable_by_stage(model)
    rates = _stage_rates(list(trainable), head_lr, backbone_lr, lrs, decay)
    _check_rates(rates, trainable, by_name=lrs is not None)
    groups = []
    for name, parameters in trainable.items():
        for suffix, members in _by_decay(parameters, no_decay).items():
            group = {"name": name + suffix, "params": members, "lr": rates.get(name)}
            if suffix or weight_decay is not None:
                group["weight_decay"] = 0.0 if suffix else weight_decay
            groups += [group] if members else []
    return groups


def warmup_cosine(
    optimizer: Optimizer, total_steps: int, warmup_steps: int | None = None
) -> LambdaLR:
    """Raise each rate from zero to its own value in a straight line, then let it fall to zero.

    The rate of the first step is exactly zero; step `warmup_steps` has the full rate; half a
    cosine wave leads back to zero after the last step. Call `step()` after every optimizer step.

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
    after the last step; `ratio=math.inf` starts from zero. Call `step()` after every step.

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


def check_optimizer(model: nn.Module, optimizer: Optimizer, *, stacklevel: int = 2) -> None:
    """Compare what the optimizer holds with what may move in the model.

    Warns with an `OptimizerWarning` that names the stages when trainable parameters are missing
    from the optimizer, when it holds frozen ones, or when it holds some of another model.

    Args:
        model: The network to be trained.
        optimizer: The optimizer that is to train it.
        stacklevel: How many calls up the warning points (see `warnings.warn`).

    Raises:
        ValueError: If no parameter may move, or the optimizer holds none that may.

    >>> import torch
    >>> from torchvision.models import mobilenet_v2
    >>> model = mobilenet_v2(num_classes=2)
    >>> check_optimizer(model, torch.optim.SGD(model.parameters(), lr=0.1))
    """
    # Membership by identity: two fresh normalisation layers hold equal values.
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trainable = {id(p) for p in trainable_parameters(model)}
    frozen = {id(p) for p in model.parameters()} - trainable
    if not held & trainable:
        raise ValueError(
            "the optimizer holds no trainable parameter of this model: build it from "
            "param_groups(model, ...) after replace_head and freeze"
        )
    findings = {
        f"trainable parameters are not in the optimizer ({_where(model, trainable - held)}): "
        "they get no step; build the optimizer from param_groups": trainable - held,
        f"the optimizer holds frozen parameters ({_where(model, frozen & held)}): "
        "they get no step; build the optimizer after freeze": frozen & held,
        f"the optimizer holds {len(held - trainable - frozen)} parameters of another model or of "
        "a replaced head: build the optimizer last": held - trainable - frozen,
    }
    for message, found in findings.items():
        if found:
            warnings.warn(message, OptimizerWarning, stacklevel=stacklevel)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """List the parameters that may move, each once.

    Raises:
        ValueError: If there is none.

    >>> len(trainable_parameters(nn.Linear(3, 2)))
    2
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("no parameter may move: unfreeze(model, down_to='head') frees the head")
    return parameters


def _trainable_by_stage(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    trainable_parameters(model)  # for its error
    return {
        name: [p for p in stage.parameters() if p.requires_grad]
        for name, stage in stages(model).items()
    }


def _stage_rates(
    names: list[str],
    head_lr: float | None,
    backbone_lr: float | None,
    lrs: Mapping[str, float] | None,
    decay: float | None,
) -> dict[str, float]:
    single = (head_lr, backbone_lr, decay)
    if lrs is not None and single == (None, None, None):
        return dict(lrs)
    if lrs is not None or head_lr is None or (backbone_lr is not None and decay is not None):
        raise ValueError(
            "give the rates in one way: lrs={'stage': rate, ...}, or head_lr with backbone_lr, "
            f"or head_lr with decay; got lrs={lrs}, head_lr={head_lr}, "
            f"backbone_lr={backbone_lr}, decay={decay}"
        )
    if decay is None:
        below = {} if backbone_lr is None else dict.fromkeys(names[:-1], backbone_lr)
        return below | {names[-1]: head_lr}
    if not 0 < decay <= 1:
        raise ValueError(f"expected a decay above 0 and at most 1, got {decay}")
    return {name: head_lr * decay**depth for depth, name in enumerate(reversed(names))}


def _check_rates(
    rates: Mapping[str, float], trainable: Mapping[str, list[nn.Parameter]], *, by_name: bool
) -> None:
    """Compare the stages that have a rate with those that exist and those that may move."""
    unknown = [name for name in rates if name not in trainable]
    if unknown:
        raise ValueError(f"no stage is called {_listed(unknown)}: this model has {list(trainable)}")
    moving = [name for name, parameters in trainable.items() if parameters]
    missing = [name for name in moving if name not in rates]
    if missing:
        raise ValueError(
            f"{_listed(missing)} may move but has no rate: give it one (lrs or backbone_lr), "
            "or freeze it"
        )
    # One rate for the whole backbone is meant for whatever of it may move.
    *below, head = trainable
    parts = [[name] for name in rates] if by_name else [below, [head]]
    idle = [n for part in parts if not set(part) & set(moving) for n in part if n in rates]
    if idle:
        raise ValueError(
            f"{_listed(idle)} has a rate but is frozen: leave the rate out, or unfreeze first"
        )


def _by_decay(parameters: Iterable[nn.Parameter], split: bool) -> dict[str, list[nn.Parameter]]:
    groups: dict[str, list[nn.Parameter]] = {"": [], NO_DECAY: []}
    for parameter in parameters:
        groups[NO_DECAY if split and parameter.ndim <= 1 else ""].append(parameter)
    return groups


def _check_numbers(lrs: Mapping[str, float | None]) -> None:
    for name, lr in lrs.items():
        if lr is not None and not (math.isfinite(lr) and lr > 0):
            raise ValueError(
                f"expected a rate above 0 for {name}, got {lr}: to keep a stage still, freeze it"
            )


def _check_steps(total_steps: int, warmup_steps: int) -> None:
    if total_steps < 1:
        raise ValueError(f"expected total_steps of at least 1, got {total_steps}")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(
            f"expected warmup_steps from 0 to total_steps={total_steps}, got {warmup_steps}"
        )


def _where(model: nn.Module, identities: set[int]) -> str:
    found = [
        name
        for name, stage in stages(model).items()
        if any(id(p) in identities for p in stage.parameters())
    ]
    return _listed(found)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
