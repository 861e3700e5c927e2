"""Copy a network's state, and say stage by stage what may move and what did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tlcourse.backbones.stages import Stage, stages


class FrozenError(AssertionError):
    """Something moved that was to be held still."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of a network's tensors on the CPU, by full dotted name.

    Attributes:
        parameters: The weights.
        buffers: What is no weight, such as the running statistics of batch normalisation.
    """

    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    def __repr__(self) -> str:
        return f"Snapshot({len(self.parameters)} parameters, {len(self.buffers)} buffers)"


def snapshot(model: nn.Module) -> Snapshot:
    """Copy all parameters and buffers of `model`, to compare with a later state.

    `before = model` copies nothing: both names mean the same, changing network.

    >>> snapshot(nn.BatchNorm2d(4))
    Snapshot(2 parameters, 3 buffers)
    """
    return Snapshot(_copies(model.named_parameters()), _copies(model.named_buffers()))


def freeze_report(
    before: Snapshot | nn.Module, after: nn.Module, optimizer: Optimizer | None = None
) -> pd.DataFrame:
    """Tell per stage what may move, what the optimizer holds, and what did move.

    Args:
        before: A `snapshot(model)` taken earlier, or a deep copy of the network.
        after: The network now.
        optimizer: The optimizer that trains it; without one the column `in_optimizer` is NA.

    Returns:
        One row per stage (index `stage`): `parameters`, `trainable` (of these, how many have
        `requires_grad`), `in_optimizer` (how many it holds, told by identity, because two
        fresh layers have equal values), `weights_moved`, `statistics_moved`. A head replaced
        since counts as moved.

    Raises:
        ValueError: If `before` is `after`, which shows no movement ever.

    >>> from torchvision import models
    >>> from tlcourse.freezing import freeze
    >>> model = freeze(models.resnet18())
    >>> before = snapshot(model)
    >>> _ = model.fc.weight.data.add_(1)
    >>> freeze_report(before, model)["weights_moved"].to_dict()["head"]
    True
    """
    if before is after:
        raise ValueError(
            "before and after are one and the same network, so nothing can have moved: take "
            "before = snapshot(model) ahead of the training"
        )
    earlier = before if isinstance(before, Snapshot) else snapshot(before)
    groups = [] if optimizer is None else optimizer.param_groups
    held = {id(p) for group in groups for p in group["params"]}
    rows = {
        name: {"in_optimizer": sum(p.numel() for p in stage.parameters() if id(p) in held)}
        | {f"{what}_moved": moved for what, moved in _moved(earlier, stage).items()}
        for name, stage in stages(after).items()
    }
    table = count_parameters(after).join(pd.DataFrame.from_dict(rows, orient="index"))
    if optimizer is None:
        table["in_optimizer"] = pd.NA
    return table.astype({"in_optimizer": "Int64"})


@contextmanager
def assert_frozen(model: nn.Module) -> Iterator[None]:
    """Assert that no stage meant to be still moves within the block.

    Meant to be still is a stage without a trainable parameter when the block begins, whether
    `freeze` made it so or `requires_grad=False` alone, which is where statistics give it away.

    Raises:
        FrozenError: If weights or statistics of such a stage moved, or there is none.

    >>> from torchvision import models
    >>> from tlcourse.freezing import freeze
    >>> with assert_frozen(freeze(models.resnet18())):
    ...     pass
    """
    counts = count_parameters(model)["trainable"]
    still = counts.index[counts == 0]
    if still.empty:
        raise FrozenError(
            f"expected a stage of {type(model).__name__} without trainable parameters, found "
            "none: call freeze(model, through=...) before"
        )
    before = snapshot(model)
    yield
    found = [
        f"{what} of {name}"
        for name, stage in stages(model).items()
        for what, moved in _moved(before, stage).items()
        if moved and name in still
    ]
    if found:
        raise FrozenError(
            f"moved although not trainable: {', '.join(found)}. requires_grad=False alone leaves "
            "statistics moving in train mode: use freeze(model, through=...)"
        )


def count_parameters(model: nn.Module) -> pd.DataFrame:
    """Count the parameters of each stage, and those of them that train.

    >>> from torchvision import models
    >>> from tlcourse.freezing import freeze
    >>> count_parameters(freeze(models.resnet18())).loc["head"].to_dict()
    {'parameters': 513000, 'trainable': 513000}
    """
    rows = {
        name: {
            "parameters": sum(p.numel() for p in stage.parameters()),
            "trainable": sum(p.numel() for p in stage.parameters() if p.requires_grad),
        }
        for name, stage in stages(model).items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("stage")


def count_trainable(model: nn.Module) -> int:
    """Count the parameters that train: those with `requires_grad`.

    >>> count_trainable(nn.Linear(512, 2))
    1026
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _moved(before: Snapshot, stage: Stage) -> dict[str, bool]:
    """Tell of a stage's weights and of its statistics whether they moved."""
    return {
        "weights": _differ(before.parameters, stage.named_parameters()),
        "statistics": _differ(before.buffers, stage.named_buffers()),
    }


def _copies(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors}


def _differ(before: Mapping[str, Tensor], now: Iterable[tuple[str, Tensor]]) -> bool:
    return any(
        name not in before or not torch.equal(before[name], tensor.detach().cpu())
        for name, tensor in now
    )
