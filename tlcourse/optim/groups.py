"""Give every stage a learning rate of its own: the param groups of an optimizer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from tlcourse.backbones.stages import stages
from tlcourse.freezing.freeze import parameters_to_unfreeze


def check_numbers(lrs: Mapping[str, float | None], weight_decay: float | None) -> None:
    """Refuse rates that are not above 0 and a weight decay that is not 0 or more.

    Args:
        lrs: Rates by the name that the message shall have; None was not given.
        weight_decay: 0 or more, or None.

    Raises:
        ValueError: If a number is out of range.

    >>> check_numbers({"head_lr": 1e-3, "backbone_lr": None}, 0.01)
    """
    for name, lr in lrs.items():
        if lr is not None and not (math.isfinite(lr) and lr > 0):
            raise ValueError(
                f"expected a rate above 0 for {name}, got {lr}: to keep a stage still, freeze it"
            )
    if weight_decay is not None and not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"expected a weight_decay of 0 or more, got {weight_decay}")


def assign_rates(
    names: Sequence[str],
    head_lr: float | None,
    backbone_lr: float | None,
    lrs: Mapping[str, float] | None,
    decay: float | None,
) -> dict[str, float]:
    """Return the rate of each stage that has one.

    Args:
        names: The stages, the head last.
        head_lr: See `param_groups`, as for the others.
        backbone_lr: Rate below the head.
        lrs: Rates by stage.
        decay: Factor from one stage to the next lower one.

    Raises:
        ValueError: If the rates are given in no way or in two, or `decay` is out of range.

    >>> assign_rates(["stem", "stage1", "head"], 0.4, None, None, 0.5)
    {'head': 0.4, 'stage1': 0.2, 'stem': 0.1}
    """
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


def check_rates(
    rates: Mapping[str, float], trainable: Mapping[str, list[nn.Parameter]], *, by_name: bool
) -> None:
    """Compare the stages that have a rate with those that exist and those that may move.

    Args:
        rates: Rate by stage.
        trainable: What may move, by stage, the head last; every stage is in it.
        by_name: Whether each stage was given a rate of its own.

    Raises:
        ValueError: If a rate's stage does not exist or is frozen, or a stage lacks its rate.
    """
    unknown = [name for name in rates if name not in trainable]
    if unknown:
        raise ValueError(f"no stage is called {listed(unknown)}: this model has {list(trainable)}")
    moving = [name for name, parameters in trainable.items() if parameters]
    missing = [name for name in moving if name not in rates]
    if missing:
        raise ValueError(
            f"{listed(missing)} may move but has no rate: give it one (lrs or backbone_lr), "
            "or freeze it"
        )
    # One rate for the whole backbone is meant for whatever of it may move.
    *below, head = trainable
    parts = [[name] for name in rates] if by_name else [below, [head]]
    idle = [n for part in parts if not set(part) & set(moving) for n in part if n in rates]
    if idle:
        raise ValueError(
            f"{listed(idle)} has a rate but is frozen: leave the rate out, unfreeze first, or "
            "name in `unfreezing` the lowest stage to be released later"
        )


def listed(names: Iterable[str]) -> str:
    """Return names in quotes, with commas.

    >>> listed(["stem", "head"])
    "'stem', 'head'"
    """
    return ", ".join(repr(name) for name in names)


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
    unfreezing: str | None = None,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into one named group per stage, each with its rate.

    There are three ways to give the rates, and only one may be used at a time: `lrs`, a rate for
    each stage that is to move; `head_lr` with `backbone_lr` (which is left out when the whole
    backbone is frozen); `head_lr` with `decay`, where each stage's rate is `decay` times that of
    the next higher stage, frozen stages counted (Howard & Ruder 2018 use 1 / 2.6).

    Every trainable parameter lands in exactly one group and frozen ones in none. Stages that are
    wholly frozen get no group, unless they are to be released later (`unfreezing`).

    Args:
        model: A network whose stages are known (see `tlcourse.backbones.stages.stages`).
        head_lr: Rate of the head, above 0.
        backbone_lr: Rate of all stages below the head, above 0.
        lrs: Rates by stage name.
        decay: Factor from one stage to the next lower one, above 0 and at most 1.
        weight_decay: Weight decay of the groups, 0 or more; None leaves it to the optimizer.
        no_decay: Whether one-dimensional parameters (biases and the scales of normalisation
            layers) go without weight decay, in groups of their own, such as `stage1/no_decay`.
        unfreezing: The lowest stage that training will release later, as
            `fit(unfreeze_at={"stage4": 3})` does: what `freeze` holds of it and of the stages
            above counts as trainable, what was held by hand does not.

    Returns:
        Groups in the order of the stages, with keys `name`, `params`, `lr` and, where it is set,
        `weight_decay`.

    Raises:
        ValueError: If the rates are given in no way or in two, name a stage that does not exist
            or one that is frozen, leave out a trainable stage, or lie outside their range; or
            if no stage is called `unfreezing`.

    >>> import torch
    >>> from torchvision.models import mobilenet_v2
    >>> groups = param_groups(mobilenet_v2(num_classes=2), head_lr=1e-3, backbone_lr=1e-4)
    >>> groups[-1]["name"], groups[-1]["lr"], groups[0]["name"], groups[0]["lr"]
    ('head', 0.001, 'stem', 0.0001)
    >>> optimizer = torch.optim.SGD(groups, momentum=0.9)
    """
    check_numbers({"head_lr": head_lr, "backbone_lr": backbone_lr, **(lrs or {})}, weight_decay)
    trainable = _trainable_by_stage(model, unfreezing)
    rates = assign_rates(list(trainable), head_lr, backbone_lr, lrs, decay)
    check_rates(rates, trainable, by_name=lrs is not None)
    groups = []
    for name, parameters in trainable.items():
        for suffix, members in _by_decay(parameters, no_decay).items():
            group = {"name": name + suffix, "params": members, "lr": rates.get(name)}
            if suffix or weight_decay is not None:
                group["weight_decay"] = 0.0 if suffix else weight_decay
            groups += [group] if members else []
    return groups


def check_optimizer(
    model: nn.Module, optimizer: Optimizer, *, unfreezing: str | None = None, stacklevel: int = 2
) -> None:
    """Compare what the optimizer holds with what may move in the model.

    Warns with an `OptimizerWarning` that names the stages when trainable parameters are missing
    from the optimizer, when it holds frozen ones, or when it holds some of another model.

    Args:
        model: The network to be trained.
        optimizer: The optimizer that is to train it.
        unfreezing: The lowest stage that training will release later (see `param_groups`).
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
    trainable = {id(p) for p in trainable_parameters(model, unfreezing)}
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


def trainable_parameters(model: nn.Module, unfreezing: str | None = None) -> list[nn.Parameter]:
    """List the parameters that may move, each once.

    Args:
        model: The network.
        unfreezing: The lowest stage that training will release later; what moves then follows.

    Raises:
        ValueError: If none may move now: something must train from the first step on.

    >>> len(trainable_parameters(nn.Linear(3, 2)))
    2
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("no parameter may move: unfreeze(model, down_to='head') frees the head")
    later = [] if unfreezing is None else parameters_to_unfreeze(model, unfreezing)
    return [*parameters, *later]


def _trainable_by_stage(model: nn.Module, unfreezing: str | None) -> dict[str, list[nn.Parameter]]:
    trainable = {id(p) for p in trainable_parameters(model, unfreezing)}
    return {
        name: [p for p in stage.parameters() if id(p) in trainable]
        for name, stage in stages(model).items()
    }


def _by_decay(parameters: Iterable[nn.Parameter], split: bool) -> dict[str, list[nn.Parameter]]:
    groups: dict[str, list[nn.Parameter]] = {"": [], NO_DECAY: []}
    for parameter in parameters:
        groups[NO_DECAY if split and parameter.ndim <= 1 else ""].append(parameter)
    return groups


def _where(model: nn.Module, identities: set[int]) -> str:
    found = [
        name
        for name, stage in stages(model).items()
        if any(id(p) in identities for p in stage.parameters())
    ]
    return listed(found)
