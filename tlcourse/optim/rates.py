"""Work out the rate of each stage from the ways in which rates can be given, or say what is wrong.

Behind `param_groups`; lessons do not call it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import nn


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


def stage_rates(
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

    >>> stage_rates(["stem", "stage1", "head"], 0.4, None, None, 0.5)
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
            "name in `releasing` the lowest stage to be released later"
        )


def listed(names: Iterable[str]) -> str:
    """Return names in quotes, with commas.

    >>> listed(["stem", "head"])
    "'stem', 'head'"
    """
    return ", ".join(repr(name) for name in names)
