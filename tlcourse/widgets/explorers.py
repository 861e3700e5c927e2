"""Explore what freezing costs and saves, and the rate that each stage gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tlcourse.freezing.costs import Estimate, estimate, stage_costs
from tlcourse.freezing.report import count_parameters
from tlcourse.loaders.batches import shuffled_batches
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
    short,
    short_rate,
    step_sliders,
    table,
)

BATCH_SIZES = (4, 8, 16, 32, 64, 128)

LR = 1e-3
"""The full rate, of which the schedule is drawn."""
NOTHING = "nothing"
"""Value of "Frozen through" when no stage is frozen."""
DIVISORS = (1, 1.25, 1.5, 2, 2.6, 3, 4, 5, 10)
"""Rate of a stage over that of the next lower one; Howard & Ruder 2018 divide by 2.6."""
UNIFORM, TWO, DECAY = "one rate for all", "backbone and head", "decay from the head down"
Rates = dict[str, float | None]


def explore_freezing(model: nn.Module, *, images: int, size: int = 128) -> Explorer:
    """Explore what freezing costs and saves: parameters, memory, seconds, and the schedule.

    The stages are measured once, when the explorer is made; `costs.estimate` says what the
    figures leave out. What is frozen in `model` now does not matter, and stays as it is.

    Args:
        model: A classifier of torchvision; it is only read.
        images: Training images, at least 2.
        size: Side of the images in pixels.

    Returns:
        Controls "Frozen through", "Batch size", "Total steps" and "Warmup steps", and what they
        mean.

    Raises:
        ValueError: If an argument is out of its range.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> from torchvision.models import shufflenet_v2_x0_5
    >>> explorer = explore_freezing(shufflenet_v2_x0_5(), images=100, size=32)
    >>> explorer.controls["Frozen through"].value = "stage3"
    >>> "1,025,000 of 1,366,792" in explorer.shown.value
    True
    """
    costs = stage_costs(model, size=size)
    body = [str(name) for name in costs.index[:-1]]
    ends = [(name, name) for name in (NOTHING, *body[:-1])] + [("all but the head", body[-1])]
    through = choice_slider("Frozen through", ends, NOTHING)
    batch = choice_slider("Batch size", [(str(n), n) for n in BATCH_SIZES], 32)

    def draw(values: Mapping[str, Any]) -> str:
        end = None if values["Frozen through"] == NOTHING else values["Frozen through"]
        found = estimate(costs, through=end, images=images, batch_size=values["Batch size"])
        total, steps = values["Total steps"], _steps_per_epoch(images, values["Batch size"])
        rows = _rows(found, int(costs["parameters"].sum()))
        rows["Epochs"] = f"{short(total / steps)} of {steps} steps each"
        curve = schedule({_moving(body, end): LR}, total, values["Warmup steps"])
        return table(rows) + curve

    return Explorer([through, batch, *step_sliders()], draw)


def _rows(found: Estimate, parameters: int) -> dict[str, str]:
    parts = {
        "weights": found.weights_mb,
        "gradients": found.gradients_mb,
        "optimizer": found.optimizer_mb,
        "activations": found.activations_mb,
    }
    shares = ", ".join(f"{name} {short(size)}" for name, size in parts.items())
    rows = {
        "Trainable parameters": share(found.trainable, parameters),
        "Memory": f"{short(found.memory_mb)} MB ({shares})",
        "Seconds per epoch": short(found.epoch_seconds),
    }
    if found.cache_mb:
        rows["Seconds per epoch, frozen part cached"] = (
            f"{short(found.cached_epoch_seconds)}, after {short(found.caching_seconds)} s once "
            f"and {short(found.cache_mb)} MB of cache"
        )
    return rows


def _steps_per_epoch(images: int, batch_size: int) -> int:
    return len(shuffled_batches(images, batch_size, torch.Generator()))


def _moving(body: list[str], through: str | None) -> str:
    above = body if through is None else body[1 + body.index(through) :]
    return f"{above[0]} to head" if above else "head"


def explore_rates(model: nn.Module) -> Explorer:
    """Explore the rate that each stage gets by three ways to give rates, and its schedule.

    Frozen stages of `model` get no rate and are shown as frozen.

    Args:
        model: A classifier of torchvision with a trainable head; it is only read.

    Returns:
        Controls "Rates given as", "Head rate", "Backbone rate", "Decay factor", "Total steps" and
        "Warmup steps", and what they mean.

    Raises:
        ValueError: If the head is frozen.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> from torchvision.models import shufflenet_v2_x0_5
    >>> explorer = explore_rates(shufflenet_v2_x0_5())
    >>> explorer.controls["Rates given as"].value = DECAY
    >>> "stem 2.2e-05, stage1 5.7e-05, stage2 0.00015" in explorer.shown.value
    True
    """
    method = buttons("Rates given as", (UNIFORM, TWO, DECAY))
    head, backbone = rate_slider("Head rate", 1e-3), rate_slider("Backbone rate", 1e-4)
    decay = choice_slider("Decay factor", [(_fraction(1 / d), 1 / d) for d in DIVISORS], 1 / 2.6)

    def draw(values: Mapping[str, Any]) -> str:
        backbone.disabled, decay.disabled = method.value != TWO, method.value != DECAY
        return _page(model, values)

    return Explorer([method, head, backbone, decay, *step_sliders()], draw)


def _page(model: nn.Module, values: Mapping[str, Any]) -> str:
    counts = count_parameters(model)
    rates = _rates_by_stage(model, counts["trainable"].to_dict(), values)
    moving = {name: rate for name, rate in rates.items() if rate is not None}
    given = ", ".join(f"{n} {'frozen' if r is None else short_rate(r)}" for n, r in rates.items())
    dots = as_html(
        stage_rates(rates, title=_title(values, moving)),
        alt=f"Dots on a log axis, the learning rate of each stage: {given}.",
    )
    # A log axis keeps several rates apart; a single one is better seen to start from zero.
    log = len(set(moving.values())) > 1
    curves = schedule(moving, values["Total steps"], values["Warmup steps"], log=log)
    trainable = share(int(counts["trainable"].sum()), int(counts["parameters"].sum()))
    return table({"Trainable parameters": trainable}) + dots + curves


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
