"""Checks of lesson 05, Give each layer its own rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tlcourse.checks.core import CheckFailed, call, check, close, compare, number, require

STAGES = ["stem", "stage1", "stage2", "head"]


@check("start from head_lr at the last name and multiply by decay for each stage further down")
def check_rates_by_decay(
    function: Callable[[list[str], float, float], Mapping[str, float]],
) -> str:
    """Check a function that lets the rates shrink from the head down."""
    rates = _rates(call(function, list(STAGES), 0.8, 0.5))
    expected = dict(zip(STAGES, [0.1, 0.2, 0.4, 0.8], strict=True))
    told = f"head_lr 0.8, decay 0.5: expected {expected}, got {rates}"
    require(set(rates) == set(STAGES), told)
    depth = "each rate is decay TIMES the one above"
    compare(
        [rates[name] for name in STAGES],
        list(expected.values()),
        told,
        (
            [0.8, 0.4, 0.2, 0.1],
            "upside down: the stem got the rate of the head, the last name",
        ),
        ([0.05, 0.1, 0.2, 0.4], "the head itself was multiplied, too: it keeps head_lr"),
        ([0.4, 0.4, 0.4, 0.8], "the same rate below the head: multiply once more for each stage"),
        ([6.4, 3.2, 1.6, 0.8], "divided instead of multiplied: the rates grow towards the stem"),
        ([-0.7, -0.2, 0.3, 0.8], f"the same amount was subtracted each time: {depth}"),
        ([2.3, 1.8, 1.3, 0.8], f"added instead of multiplied: {depth}"),
    )
    longer = _rates(call(function, ["a", "b", "c", "d", "e"], 1.0, 0.1))
    require(
        set(longer) == set("abcde") and close(longer["a"] * 1e4, 1),
        f"right for four stages, not for five: {longer}. Take the names from the argument",
    )
    return "param_groups(model, head_lr=..., decay=...) gives the same rates to its groups"


def _rates(answer: object) -> dict[str, float]:
    if not isinstance(answer, Mapping):
        raise CheckFailed(f"expected a dict from name to rate, got {type(answer).__name__}")
    return {str(name): number(rate, f"the rate of {name}") for name, rate in answer.items()}


@check("collect id(p) of every p in every group['params'], then look which names are not there")
def check_missing(function: Callable[[nn.Module, Optimizer], Iterable[str]]) -> str:
    """Check a function that names the trainable parameters an optimizer does not hold."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    model[0].bias.requires_grad_(False)
    groups: list[dict[str, Any]] = [
        {"params": [model[0].weight]},
        {"params": model[1].parameters()},
    ]
    found = _names(call(function, model, torch.optim.SGD(groups, lr=0.1)))
    expected = {"2.weight", "2.bias", "3.weight", "3.bias"}
    held = {"0.weight", "1.weight", "1.bias"}
    require(
        found != {"3.weight", "3.bias"},
        "2.weight and 2.bias are missing. Two fresh normalisation layers hold equal numbers, so "
        "comparing values takes one for the other: compare identities, id(p)",
    )
    require(found != held, "turned round: those are the ones that the optimizer holds")
    require(
        found != expected | {"0.bias"},
        "0.bias is frozen, so it needs no group: look only at p.requires_grad",
    )
    require(
        not found or not found <= held | expected or not found & {"1.weight", "1.bias"},
        "1.weight and 1.bias are held, in the second group: go through all groups",
    )
    require(found == expected, f"expected {sorted(expected)}, got {sorted(found)}")
    return "check_optimizer(model, optimizer) looks the same way, and fit calls it"


def _names(answer: object) -> set[str]:
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise CheckFailed(f"expected a list of names, got {type(answer).__name__}")
    names = list(answer)
    require(
        all(isinstance(name, str) for name in names),
        "expected names, such as '2.weight': take them from model.named_parameters()",
    )
    return set(names)


@check("batches in an epoch: images / batch_size, rounded up; then times the epochs")
def check_total_steps(function: Callable[[int, int, int], int]) -> str:
    """Check a function that counts the steps a scheduler makes."""
    value = number(call(function, 100, 32, 5), "the number of steps")
    require(not close(value, 5), "that counts epochs: the scheduler steps after every batch")
    require(not close(value, 4), "that is one epoch: multiply by the epochs")
    require(not close(value, 500), "that counts images: a step is made once per batch")
    require(not close(value, 15), "the last, smaller batch makes a step, too: round up")
    require(
        not close(value, 16) and not close(value, 15.625),
        "every epoch ends with a batch of its own: round up before multiplying by the epochs",
    )
    require(
        close(value, 20), f"100 images, 32 a batch, 5 epochs: expected 4 x 5 = 20, got {value:g}"
    )
    even = number(call(function, 96, 32, 2), "the number of steps")
    require(
        close(even, 6), f"96 images make 3 full batches, so 2 epochs make 6 steps, not {even:g}"
    )
    return "the number to give a schedule as total_steps; fit counts it for you"
