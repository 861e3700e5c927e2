"""Explore the rate that each stage gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tlcourse.freezing.report import count_parameters
from tlcourse.optim.groups import param_groups
from tlcourse.plots.learning_rates import stage_rates
from tlcourse.plots.style import as_html
from tlcourse.widgets.controls import (
    Explorer,
    buttons,
    choice_slider,
    rate_slider,
    schedule,
    share,
    short_rate,
    step_sliders,
    table,
)

DIVISORS = (1, 1.25, 1.5, 2, 2.6, 3, 4, 5, 10)
"""Rate of a stage over that of the next lower one; Howard & Ruder 2018 divide by 2.6."""
UNIFORM, TWO, DECAY = "one rate for all", "backbone and head", "decay from the head down"
Rates = dict[str, float | None]


def explore_rates(
    model: nn.Module,
    *,
    head_lr: float = 1e-3,
    backbone_lr: float = 1e-4,
    total_steps: int = 100,
    warmup_steps: int = 10,
) -> Explorer:
    """Explore the rate that each stage gets by three ways to give rates, and its schedule.

    Frozen stages of `model` get no rate and are shown as frozen.

    Args:
        model: A classifier of torchvision with a trainable head; it is only read.
        head_lr: Rate of the head at first, above 0.
        backbone_lr: Rate of the backbone at first where it is given apart, above 0.
        total_steps: Optimizer steps of the whole training at first, 10 to 1000.
        warmup_steps: Steps from zero to the full rates at first, 0 to `total_steps`.

    Returns:
        Controls "Rates given as", "Head rate", "Backbone rate", "Decay factor", "Total steps" and
        "Warmup steps", and what they mean.

    Raises:
        ValueError: If an argument is out of its range, or the head is frozen.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> from torchvision.models import shufflenet_v2_x0_5
    >>> explorer = explore_rates(shufflenet_v2_x0_5())
    >>> explorer.controls["Rates given as"].value = DECAY
    >>> "stem 2.2e-05, stage1 5.7e-05, stage2 0.00015" in explorer.shown.value
    True
    """
    method = buttons("Rates given as", (UNIFORM, TWO, DECAY), UNIFORM)
    head, backbone = rate_slider("Head rate", head_lr), rate_slider("Backbone rate", backbone_lr)
    decay = choice_slider("Decay factor", [(_fraction(1 / d), 1 / d) for d in DIVISORS], 1 / 2.6)

    def draw(values: Mapping[str, Any]) -> str:
        backbone.disabled, decay.disabled = method.value != TWO, method.value != DECAY
        return _page(model, values)

    return Explorer([method, head, backbone, decay, *step_sliders(total_steps, warmup_steps)], draw)


def _page(model: nn.Module, values: Mapping[str, Any]) -> str:
    counts = count_parameters(model)
    rates = _rates_by_stage(model, counts["trainable"].to_dict(), values)
    moving = {name: rate for name, rate in rates.items() if rate is not None}
    given = ", ".join(f"{n} {'frozen' if r is None else short_rate(r)}" for n, r in rates.items())
    bars = as_html(
        stage_rates(rates, title=_title(values, moving)),
        alt=f"Bars on a log axis, the learning rate of each stage: {given}.",
    )
    # A log axis keeps several rates apart; a single one is better seen to start from zero.
    log = len(set(moving.values())) > 1
    curves = schedule(moving, values["Total steps"], values["Warmup steps"], log=log)
    trainable = share(int(counts["trainable"].sum()), int(counts["parameters"].sum()))
    return table({"Trainable parameters": trainable}) + bars + curves


def _rates_by_stage(
    model: nn.Module, trainable: Mapping[Any, int], values: Mapping[str, Any]
) -> Rates:
    """Return the rate that `param_groups` gives each stage, None to a frozen one."""
    moving, lr = [name for name, count in trainable.items() if count], values["Head rate"]
    if "head" not in moving:
        raise ValueError("the head is frozen, so no rate begins there: unfreeze the head first")
    methods: dict[str, dict[str, Any]] = {
        UNIFORM: {"lrs": dict.fromkeys(moving, lr)},
        TWO: {"head_lr": lr, "backbone_lr": values["Backbone rate"]},
        DECAY: {"head_lr": lr, "decay": values["Decay factor"]},
    }
    # A backbone that is frozen whole takes no rate.
    chosen = methods[values["Rates given as"]] if moving[1:] else {"head_lr": lr}
    groups = param_groups(model, **chosen)
    return dict.fromkeys(trainable) | {group["name"]: group["lr"] for group in groups}


def _title(values: Mapping[str, Any], rates: Mapping[str, float]) -> str:
    method, lowest, head = values["Rates given as"], next(iter(rates)), short_rate(rates["head"])
    if len(rates) == 1:
        return f"Only the head moves, with {head}"
    if method == UNIFORM:
        return f"One rate for all that may move: {head}"
    if method == TWO:
        return f"The backbone gets {short_rate(rates[lowest])}, the head {head}"
    return (
        f"Each stage gets {_fraction(values['Decay factor'])} of the rate above it: from {head} "
        f"down to {short_rate(rates[lowest])}"
    )


def _fraction(factor: float) -> str:
    return "1" if factor == 1 else f"1/{1 / factor:.3g}"
