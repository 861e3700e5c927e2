"""Checks of lesson 04, Freeze or warm up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tlcourse.checks.core import call, check, close, number, require
from tlcourse.freezing.report import snapshot


@check("two lines: model.train() for all, then .eval() for each module that is held")
def check_start_epoch(function: Callable[[nn.Module, list[nn.Module]], object]) -> str:
    """Check a function that begins an epoch with some modules held in eval mode."""
    norm, other = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    held = nn.Sequential(norm, nn.Dropout())
    model = nn.Sequential(held, other, nn.Linear(3, 2)).eval()
    answer = function(model, [held]) if callable(function) else call(function)
    if answer is ...:
        call(lambda: ...)
    _check_modes(model, held, other)
    before = snapshot(norm).buffers
    model(torch.arange(12.0).reshape(4, 3))
    still = all(torch.equal(before[name], now) for name, now in norm.named_buffers())
    require(still, "the held statistics still moved")
    return "the rest trains, the held statistics stay; it must be called anew in every epoch"


def _check_modes(model: nn.Module, held: nn.Sequential, other: nn.Module) -> None:
    require(
        not (held.training and model.training),
        "the held modules are in train mode: model.train() switches everything inside, so it must "
        "come first and the .eval() of the held modules after it",
    )
    require(
        model.training or not other.training,
        "the model itself is not in train mode: call model.train(), not each part's",
    )
    require(other.training, "everything is in eval mode: model.train() is missing, or undone")
    require(
        not any(module.training for module in held.modules()),
        "only the outer flag was changed: .eval() reaches what lies inside, too",
    )


@check("0 at step 0, then step / warmup_steps, never above 1; what if warmup_steps is 0?")
def check_rising(function: Callable[[int, int], float]) -> str:
    """Check a warmup factor: 0 at step 0, a straight line, 1 from `warmup_steps` on."""
    found = [number(call(function, step, 4), f"step {step}") for step in (0, 2, 4, 9)]
    require(
        not close(found[0], 0.25),
        "the first step already has 1 / warmup_steps: that is (step + 1) / warmup_steps, as many "
        "libraries do it, but here step 0 shall move nothing",
    )
    require(close(found[0], 0), f"at step 0 the factor must be 0, got {found[0]}")
    require(
        not found[3] > 1.001,
        f"at step 9 of a warmup of 4 the factor is {found[3]}: it must stop rising at 1",
    )
    require(
        not (found[2] < 0.999 and found[3] < 0.999),
        f"the full rate is never reached: at step 9 of a warmup of 4 the factor is {found[3]}",
    )
    require(close(found[2], 1), f"at step 4 of a warmup of 4: expected 1, got {found[2]}")
    require(close(found[1], 0.5), f"at step 2 of a warmup of 4: expected 0.5, got {found[1]}")
    require(close(found[3], 1), f"after the warmup the factor must stay 1, got {found[3]}")
    _check_without_warmup(function)
    return "LambdaLR multiplies each group's own rate by such a factor in every step"


def _check_without_warmup(function: Callable[[int, int], float]) -> None:
    try:
        value = function(0, 0)
    except ZeroDivisionError:
        value = None
    require(value is not None, "a warmup of 0 steps divides by zero: without warmup return 1")
    require(close(number(value, "no warmup"), 1), f"without warmup expected 1, got {value}")


@check("uncached: epochs * (below + above); cached: below once, then above in every epoch")
def check_speedup(function: Callable[[int, float, float], float]) -> str:
    """Check the factor by which caching the frozen part shortens a training."""
    value = number(call(function, 10, 9.0, 1.0), "the speedup")
    require(
        not close(value, 10),
        "that leaves out the one pass through the frozen part that fills the cache: it gives the "
        "same at every number of epochs",
    )
    require(not close(value, 0.19), "turned round: divide the uncached seconds by the cached ones")
    require(not close(value, 81), "those are seconds saved: how many TIMES faster is it?")
    require(not close(value, 100 / 9), "the part above still trains in every epoch, cached or not")
    require(close(value, 100 / 19), f"10 epochs of 9 s below, 1 s above: 100 / 19, got {value}")
    once = number(call(function, 1, 9.0, 1.0), "the speedup of one epoch")
    require(close(once, 1), f"with a single epoch nothing is gained: expected 1, got {once}")
    return "with ever more epochs it nears (below + above) / above, and never passes it"
