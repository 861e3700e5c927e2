"""Describe what a training does as plain values, to be compared with those of another process.

Names tell little: two lambdas have the same one, and an optimizer's class says nothing of its
options. So an optimizer is described by every option it has, a schedule by the rates it gives, an
augmentation by what it makes of a few images, and a frozen part by its very numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import copy, deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tlcourse.backbones.stages import stages
from tlcourse.freezing.freeze import frozen_stages
from tlcourse.loaders.augment import Augment, augmentation
from tlcourse.optim.factory import MakeSchedule, make_scheduler
from tlcourse.runtime import seeded
from tlcourse.training.checkpoint import fingerprint
from tlcourse.training.history import group_names


def describe_optimizer(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return the optimizer's class, its defaults, and the options and parameters of each group.

    Args:
        optimizer: As it is before the first step.
        model: Its network, which gives the parameters their names.

    >>> model = nn.Linear(2, 1)
    >>> described = describe_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model)
    >>> described["optimizer"], described["optimizer groups"]["group0"]["momentum"]
    ('SGD', 0)
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = zip(group_names(optimizer), optimizer.param_groups, strict=True)
    return {
        "optimizer": type(optimizer).__name__,
        "optimizer defaults": plain(optimizer.defaults),
        "optimizer groups": {
            name: {
                **{key: plain(value) for key, value in group.items() if key != "params"},
                "parameters": _parameters(group["params"], names),
            }
            for name, group in groups
        },
    }


def describe_schedule(
    schedule: LRScheduler | MakeSchedule | None, optimizer: Optimizer, total_steps: int, seed: int
) -> dict[str, Any]:
    """Return the scheduler's class, and by looking ahead what it makes of the rates at each step.

    Neither the schedule nor the optimizer moves: a copy of the one is stepped on a copy of the
    other's options. A scheduler that cannot be copied is described by its own numbers.

    Args:
        schedule: As `fit` takes it; a function is asked for a scheduler of its own.
        optimizer: As it is before the first step.
        total_steps: Optimizer steps of the whole training.
        seed: Seed for a schedule that draws.

    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    >>> describe_schedule(halving, optimizer, 4, seed=0)["schedule gives"]
    {'lr of group0': [1.0, 1.0, 0.5, 0.5]}
    """
    trial = _without_a_past(optimizer)
    with seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no step of the optimizer came before
        if isinstance(schedule, LRScheduler):
            try:
                made: LRScheduler | None = deepcopy(schedule, {id(optimizer): trial})
            except Exception:  # a log, a lock, whatever else hangs on it
                return _described(schedule, plain(schedule.state_dict()))
        else:
            made = make_scheduler(schedule, trial, total_steps)
        ahead, own = _looking_ahead(made, trial, total_steps), _options(optimizer)
    # What the schedule leaves alone is described with the optimizer.
    gives = {k: v for k, v in ahead.items() if k.startswith("lr of ") or v != own.get(k)}
    return _described(made, gives)


def describe_augment(augment: str | Augment | None, images: Tensor, seed: int) -> Any:
    """Return the name of an augmentation and what it makes of some images.

    Args:
        augment: As `fit` takes it. An object is copied before it is called.
        images: A prepared batch `(N, 3, H, W)`.
        seed: Seed of what is drawn.

    Returns:
        None or the name that was given; of a function `{"name": ..., "gives": ...}`, the second
        with one number per image, or None if the same seed does not give the same again.

    >>> describe_augment("flip", torch.zeros(1, 3, 4, 4), seed=0)
    'flip'
    >>> describe_augment(lambda images, _: images + 1, torch.zeros(1, 3, 4, 4), seed=0)["name"]
    '<lambda>'
    """
    if augment is None or isinstance(augment, str):
        return augment
    first, again = (_mean_by_position(_augmented(augment, images, seed)) for _ in range(2))
    return {"name": named(augment), "gives": first if first == again else None}


def describe_frozen(model: nn.Module) -> dict[str, Any]:
    """Return the frozen stages, and a mark of all weights and statistics that stand still.

    >>> from torchvision.models import resnet18
    >>> from tlcourse.freezing import freeze
    >>> list(describe_frozen(freeze(resnet18(), through="stage1"))["frozen weights"])
    ['stem', 'stage1']
    """
    frozen, marks = frozen_stages(model), {}
    for name, stage in stages(model).items():
        held: list[Tensor] = [p for p in stage.parameters() if not p.requires_grad]
        still = [*stage.parameters(), *stage.buffers()] if name in frozen else held
        if still:
            marks[name] = fingerprint(*(_bytes(tensor) for tensor in still))
    return {"frozen": list(frozen), "frozen weights": marks}


def plain(value: Any) -> Any:
    """Return a value as numbers, strings, lists and dicts; what is none of these by its name.

    >>> plain({"betas": (0.9, np.float64(0.5)), "lr": torch.tensor(0.5), "by": torch.relu})
    {'betas': [0.9, 0.5], 'lr': 0.5, 'by': 'relu'}
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if isinstance(value, bool | int | float | str | None) else named(value)


def named(choice: object) -> str:
    """Return a name that is the same in another process: a function's or class's, with arguments.

    >>> named(partial(round, ndigits=2)), named(nn.ReLU())
    ("round([], {'ndigits': 2})", 'ReLU')
    """
    if isinstance(choice, partial):
        return f"{named(choice.func)}({plain(choice.args)}, {plain(choice.keywords)})"
    return str(getattr(choice, "__name__", type(choice).__name__))


def _parameters(parameters: list[Tensor], names: Mapping[int, str]) -> str:
    listed = "\n".join(f"{names.get(id(p), 'unknown')} {tuple(p.shape)}" for p in parameters)
    return f"{len(parameters)} ({fingerprint(np.frombuffer(listed.encode(), np.uint8))})"


def _without_a_past(optimizer: Optimizer) -> Optimizer:
    """Return an optimizer of the same parameters whose options can be changed freely."""
    trial = copy(optimizer)
    trial.state = type(optimizer.state)(optimizer.state.default_factory)
    trial.param_groups = [
        {key: value if key == "params" else deepcopy(value) for key, value in group.items()}
        for group in optimizer.param_groups
    ]
    return trial


def _described(scheduler: LRScheduler | None, gives: Any) -> dict[str, Any]:
    kind = None if scheduler is None else type(scheduler).__name__
    return {"schedule": kind, "schedule gives": gives}


def _looking_ahead(
    scheduler: LRScheduler | None, optimizer: Optimizer, total_steps: int
) -> dict[str, Any]:
    """Return each option of each group: its value at every step, or the one that it keeps."""
    if scheduler is None:
        return {}
    steps: list[dict[str, Any]] = []
    for step in range(total_steps):
        if step:
            scheduler.step()
        steps.append(_options(optimizer))
    columns = {name: [options[name] for options in steps] for name in steps[0]}
    return {
        name: values if any(value != values[0] for value in values) else values[0]
        for name, values in columns.items()
    }


def _options(optimizer: Optimizer) -> dict[str, Any]:
    return {
        f"{option} of {name}": plain(value)
        for name, group in zip(group_names(optimizer), optimizer.param_groups, strict=True)
        for option, value in group.items()
        if option != "params"
    }


def _augmented(augment: Augment, images: Tensor, seed: int) -> Tensor:
    try:
        own = deepcopy(augment)  # it may count its calls
    except Exception:  # what cannot be copied is asked itself
        own = augment
    with seeded(seed), torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        return augmentation(own)(images.clone(), generator)


def _mean_by_position(images: Tensor) -> list[float]:
    """Return one number per image that tells where its values are, too: mirrored, it changes."""
    generator = torch.Generator().manual_seed(0)
    shares = torch.rand(images.shape[1:], generator=generator, dtype=torch.float64)
    weighed: list[float] = (images.double().cpu() * shares).flatten(1).mean(1).tolist()
    return weighed


def _bytes(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    # As bytes: numpy does not know every type of torch (bfloat16).
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
