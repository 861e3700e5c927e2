"""Right, blank and wrong answers to the exercises of lesson 05."""

import math

import torch

from tlcourse.checks import lesson05


def rates(formula):
    """A rate from head_lr, decay and the depth below the head (0 at the head)."""
    return lambda names, lr, decay: {
        name: formula(lr, decay, len(names) - 1 - i) for i, name in enumerate(names)
    }


def missing(keep):
    def function(model, optimizer):
        held = [p for group in optimizer.param_groups for p in group["params"]]
        return [name for name, p in model.named_parameters() if keep(p, held)]

    return function


def by_identity(p, held):
    return any(p is h for h in held)


def by_value(p, held):
    return any(torch.equal(p, h) for h in held)


def first_group_only(model, optimizer):
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    return [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in held]


def subtracted(lr, decay, depth):
    return lr - decay * depth


RATES, MISSING, STEPS = (
    lesson05.check_rates_by_decay,
    lesson05.check_missing,
    lesson05.check_total_steps,
)
RIGHT = [
    (RATES, rates(lambda lr, decay, depth: lr * decay**depth)),
    (MISSING, missing(lambda p, held: p.requires_grad and not by_identity(p, held))),
    (STEPS, lambda images, batch, epochs: math.ceil(images / batch) * epochs),
]
BLANK = [(check, lambda *values: ...) for check, _ in RIGHT]
WRONG = [
    (
        RATES,
        lambda names, lr, decay: {n: lr * decay**i for i, n in enumerate(names)},
        "upside down",
    ),
    (RATES, rates(lambda lr, decay, depth: lr * decay ** (depth + 1)), "head itself"),
    (RATES, rates(lambda lr, decay, depth: lr * decay ** min(depth, 1)), "same rate"),
    (RATES, rates(lambda lr, decay, depth: lr / decay**depth), "divided"),
    (RATES, rates(subtracted), "subtracted"),
    (RATES, rates(lambda lr, decay, depth: lr + decay * depth), "added"),
    (RATES, lambda names, lr, decay: [lr], "expected a dict"),
    (RATES, lambda names, lr, decay: {"head": "fast"}, "expected a number for the rate of head"),
    (RATES, lambda names, lr, decay: {"head": lr}, "expected {'stem'"),
    (
        RATES,
        lambda names, lr, decay: {"stem": 0.1, "stage1": 0.2, "stage2": 0.4, "head": 0.8},
        "not for five",
    ),
    (MISSING, missing(lambda p, held: p.requires_grad and not by_value(p, held)), "identities"),
    (MISSING, missing(by_identity), "turned round"),
    (MISSING, missing(lambda p, held: not by_identity(p, held)), "is frozen"),
    (MISSING, first_group_only, "all groups"),
    (MISSING, lambda model, optimizer: list(model.parameters()), "expected names"),
    (MISSING, lambda model, optimizer: "2.weight", "a list of names"),
    (MISSING, lambda model, optimizer: [], r"got \[\]"),
    (STEPS, lambda images, batch, epochs: epochs, "counts epochs"),
    (STEPS, lambda images, batch, epochs: math.ceil(images / batch), "one epoch"),
    (STEPS, lambda images, batch, epochs: images * epochs, "counts images"),
    (STEPS, lambda images, batch, epochs: images // batch * epochs, "round up"),
    (STEPS, lambda images, batch, epochs: math.ceil(images * epochs / batch), "before"),
    (STEPS, lambda images, batch, epochs: (images // batch + 1) * epochs, "3 full batches"),
    (STEPS, lambda images, batch, epochs: 7, "expected 4 x 5 = 20"),
]
