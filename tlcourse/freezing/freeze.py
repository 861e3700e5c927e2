"""Freeze and release stages: parameters and batch-norm statistics."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from torch import nn
from torch.optim import Optimizer

from tlcourse.backbones.stages import Stage, stages

_RECORD = "requires_grad_before_freezing"


class HoldEval:
    """Stands in for a module's `train`: keeps it in eval mode and notes the mode asked for.

    Put into the module's own `__dict__`, it is found before the method of the class, so that
    `model.train()`, which calls `train` of each child, passes a frozen stage by. Of the ways to
    do so it is the one that is visible at once (`module.training` is False), leaves the class
    and the forward alone, and travels with `copy.deepcopy` and `torch.save`, which both carry a
    module's `__dict__`. A forward hook would act only once images flow; a subclass of the model
    would change its type.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.wanted = module.training

    def __call__(self, mode: bool = True) -> nn.Module:
        """Note `mode` for the time after unfreezing; change nothing now."""
        self.wanted = mode
        for child in self.module.children():
            child.train(mode)
        return self.module


def freeze(model: nn.Module, *, through: str = "all") -> nn.Module:
    """Hold the stages from the stem up to and including `through`; return `model`.

    Held are weights (`requires_grad=False`), normalisation statistics, dropout and stochastic
    depth (the stage stays in eval mode whatever `model.train()` says). Gradients left from an
    earlier `backward` are dropped, because momentum and weight decay act on a parameter as long
    as its `.grad` stands. What is frozen already stays so and keeps its record.

    Args:
        model: A classifier of torchvision; changed in place.
        through: The last stage to hold, or `"all"`: every stage but the head.

    Raises:
        ValueError: If the model has no stage `through`; the message lists those it has.

    >>> from torchvision import models
    >>> frozen_stages(freeze(models.resnet18(), through="stage1"))
    ('stem', 'stage1')
    """
    divided = stages(model)
    end = len(divided) - 1 if through == "all" else 1 + _position(model, through, "through")
    for stage in list(divided.values())[:end]:
        _hold(model, stage)
    return model


def unfreeze(model: nn.Module, *, down_to: str = "stem") -> nn.Module:
    """Release the stages from the head down to and including `down_to`; return `model`.

    Each parameter gets back the `requires_grad` it had before it was frozen (a parameter that
    was held by hand stays held), each module the mode that `model.train()` or `model.eval()`
    last asked for: as if it had never been frozen.

    Args:
        model: A classifier of torchvision; changed in place.
        down_to: The first stage to release, counted from the stem; `"stem"` releases all.

    Raises:
        ValueError: If the model has no stage `down_to`; the message lists those it has.

    >>> from torchvision import models
    >>> frozen_stages(unfreeze(freeze(models.resnet18()), down_to="stage2"))
    ('stem', 'stage1')
    """
    for stage in list(stages(model).values())[_position(model, down_to, "down_to") :]:
        _unhold(model, stage)
    if not _record(model):
        del model.__dict__[_RECORD]
    return model


def parameters_to_unfreeze(model: nn.Module, down_to: str) -> list[nn.Parameter]:
    """List the parameters that `unfreeze` with this `down_to` would release, without doing it.

    These are the ones that `freeze` holds and that trained before. A parameter held by hand,
    ahead of `freeze` or without it, is not among them, and one that trains now is not either.

    Args:
        model: A classifier of torchvision; not changed.
        down_to: The lowest stage to be released, counted from the stem.

    Raises:
        ValueError: If the model has no such stage; the message lists those it has.

    >>> from torchvision import models
    >>> model = freeze(models.resnet18())
    >>> len(parameters_to_unfreeze(model, "head")), len(parameters_to_unfreeze(model, "stage4"))
    (0, 15)
    """
    start = _position(model, down_to, "the lowest stage to release")
    # Reading must not leave an empty record behind, as _record would.
    record: dict[str, bool] = model.__dict__.get(_RECORD, {})
    return [
        parameter
        for stage in list(stages(model).values())[start:]
        for name, parameter in stage.named_parameters()
        if record.get(name, False) and not parameter.requires_grad
    ]


def frozen_stages(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the stages that are held whole: weights and modes.

    A stage whose parameters merely have `requires_grad=False` is not among them: its
    statistics move.

    >>> from torchvision import models
    >>> frozen_stages(models.resnet18())
    ()
    """
    return tuple(name for name, stage in stages(model).items() if _is_held(stage))


def _position(model: nn.Module, name: str, argument: str) -> int:
    names = list(stages(model))
    if name not in names:
        raise ValueError(
            f"expected {argument} as a stage of {type(model).__name__}, got {name!r}; "
            f"its stages: {', '.join(names)}"
        )
    return names.index(name)


def _hold(model: nn.Module, stage: Stage) -> None:
    record = _record(model)
    for name, parameter in stage.named_parameters():
        if parameter.requires_grad or name not in record:
            record[name] = parameter.requires_grad
        parameter.requires_grad_(False)
        parameter.grad = None
    for module in stage.modules():
        if not _is_holding(module):
            module.__dict__["train"] = HoldEval(module)
        module.training = False


def _unhold(model: nn.Module, stage: Stage) -> None:
    record = _record(model)
    for name, parameter in stage.named_parameters():
        parameter.requires_grad_(record.pop(name, parameter.requires_grad))
    for module in stage.modules():
        if _is_holding(module):
            module.training = module.__dict__.pop("train").wanted


def _record(model: nn.Module) -> dict[str, bool]:
    """Return the model's note of `requires_grad` before freezing; it lives and dies with it."""
    record: dict[str, bool] = model.__dict__.setdefault(_RECORD, {})
    return record


def _is_holding(module: nn.Module) -> bool:
    return isinstance(module.__dict__.get("train"), HoldEval)


def _is_held(stage: Stage) -> bool:
    still = not any(parameter.requires_grad for parameter in stage.parameters())
    return still and all(_is_holding(m) and not m.training for m in stage.modules())


def plan_unfreezing(
    model: nn.Module, unfreeze_at: Mapping[str, int] | None, epochs: int
) -> dict[int, str]:
    """Return the lowest stage to release before each epoch of `unfreeze_at`, in that order.

    Args:
        model: The network as it starts: what is to be released is frozen now.
        unfreeze_at: Epoch (from 2) before which a stage is released, with all above it, by name.
        epochs: Epochs of the whole training.

    Raises:
        ValueError: If a stage does not exist, is not frozen, comes later than one below it, or an
            epoch lies outside 2 to `epochs`.

    >>> from torchvision.models import resnet18
    >>> from tlcourse.freezing import freeze
    >>> plan_unfreezing(freeze(resnet18()), {"stage4": 2, "stage3": 4, "stem": 4}, epochs=5)
    {2: 'stage4', 4: 'stem'}
    """
    wanted = dict(unfreeze_at or {})
    places = {name: _position(model, name, "each stage in unfreeze_at") for name in wanted}
    for name, epoch in wanted.items():
        _check(model, name, epoch, epochs)
    downward = sorted(wanted, key=places.__getitem__, reverse=True)
    for upper, lower in pairwise(downward):
        if wanted[upper] > wanted[lower]:
            raise ValueError(
                f"{lower!r} cannot be released in epoch {wanted[lower]}, before {upper!r} in epoch "
                f"{wanted[upper]}: stages are released from the head down"
            )
    return {wanted[name]: name for name in downward}


def lowest_unfrozen(unfreezing: Mapping[int, str]) -> str | None:
    """Name the lowest stage of a plan (`plan_unfreezing`), None if it is empty.

    >>> lowest_unfrozen({2: "stage4", 4: "stem"})
    'stem'
    """
    return unfreezing[max(unfreezing)] if unfreezing else None


def unfreeze_in_training(model: nn.Module, down_to: str, optimizer: Optimizer) -> None:
    """Unfreeze from the head down to `down_to`; what is released starts without a past.

    A gradient or momentum from before a stage was frozen would push it in a stale direction, so
    both are dropped.

    Args:
        model: A network with frozen stages.
        down_to: The lowest stage to release.
        optimizer: What holds the parameters.

    >>> import torch
    >>> from torchvision.models import resnet18
    >>> from tlcourse.freezing import freeze
    >>> model = freeze(resnet18())
    >>> unfreeze_in_training(model, "stage4", torch.optim.SGD(model.parameters(), lr=0.1))
    >>> frozen_stages(model)
    ('stem', 'stage1', 'stage2', 'stage3')
    """
    released = parameters_to_unfreeze(model, down_to)
    unfreeze(model, down_to=down_to)
    for parameter in released:
        parameter.grad = None
        optimizer.state.pop(parameter, None)


def _check(model: nn.Module, name: str, epoch: int, epochs: int) -> None:
    if name not in frozen_stages(model):
        raise ValueError(
            f"unfreeze_at releases {name!r}, which is not frozen: call freeze(model) before fit"
        )
    if not 2 <= epoch <= epochs:
        raise ValueError(
            f"expected unfreeze_at[{name!r}] from 2 to epochs={epochs}, got {epoch}: what is to "
            "train from the first epoch on is unfrozen before fit"
        )
