"""Change what is frozen between epochs, without leftovers of the time before."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from torch import nn
from torch.optim import Optimizer

from tlcourse.freezing import frozen_stages, unfreeze
from tlcourse.stages import stages


def plan_releases(
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
    >>> plan_releases(freeze(resnet18()), {"stage4": 2, "stage3": 4, "stem": 4}, epochs=5)
    {2: 'stage4', 4: 'stem'}
    """
    names = list(stages(model))
    wanted = dict(unfreeze_at or {})
    for name, epoch in wanted.items():
        _check(model, names, name, epoch, epochs)
    downward = sorted(wanted, key=names.index, reverse=True)
    for upper, lower in pairwise(downward):
        if wanted[upper] > wanted[lower]:
            raise ValueError(
                f"{lower!r} cannot be released in epoch {wanted[lower]}, before {upper!r} in epoch "
                f"{wanted[upper]}: stages are released from the head down"
            )
    return {wanted[name]: name for name in downward}


def release(model: nn.Module, down_to: str, optimizer: Optimizer) -> None:
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
    >>> release(model, "stage4", torch.optim.SGD(model.parameters(), lr=0.1))
    >>> frozen_stages(model)
    ('stem', 'stage1', 'stage2', 'stage3')
    """
    before = {id(p) for p in model.parameters() if p.requires_grad}
    unfreeze(model, down_to=down_to)
    for parameter in model.parameters():
        if parameter.requires_grad and id(parameter) not in before:
            parameter.grad = None
            optimizer.state.pop(parameter, None)


def _check(model: nn.Module, names: list[str], name: str, epoch: int, epochs: int) -> None:
    if name not in names:
        raise ValueError(
            f"expected unfreeze_at to name stages of {type(model).__name__}, got {name!r}; "
            f"its stages: {', '.join(names)}"
        )
    if name not in frozen_stages(model):
        raise ValueError(
            f"unfreeze_at releases {name!r}, which is not frozen: call freeze(model) before fit"
        )
    if not 2 <= epoch <= epochs:
        raise ValueError(
            f"expected unfreeze_at[{name!r}] from 2 to epochs={epochs}, got {epoch}: what is to "
            "train from the first epoch on is unfrozen before fit"
        )
