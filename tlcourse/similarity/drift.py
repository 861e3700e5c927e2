"""Say how far the weights of each stage moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pandas as pd
from torch import Tensor, nn

from tlcourse.backbones.stages import Stage, stages


class HasParameters(Protocol):
    """What `freezing.snapshot` returns: tensors by their dotted names."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """The weights."""


def drift_by_stage(
    before: Mapping[str, Tensor] | HasParameters, after: nn.Module
) -> pd.Series[float]:
    """Return how far each stage's weights moved: the L2 norm of the change over that before.

    Args:
        before: A snapshot from `freezing.snapshot`, or a mapping from parameter names to tensors
            such as a copied `state_dict()`.
        after: The same network later.

    Raises:
        ValueError: If a parameter is missing before or had another shape (a head replaced in
            between: take the snapshot after replacing it).

    >>> from copy import deepcopy
    >>> from torchvision.models import resnet18
    >>> model = resnet18()
    >>> before = deepcopy(model.state_dict())
    >>> _ = model.fc.weight.data.mul_(2)
    >>> drift_by_stage(before, model).round(2).to_dict()["stage4"]
    0.0
    """
    earlier = _tensors(before)
    drifts = {name: _drift(earlier, stage) for name, stage in stages(after).items()}
    moved = {name: drift for name, drift in drifts.items() if drift is not None}
    return pd.Series(moved, name="drift", dtype=float).rename_axis("stage")


def _drift(earlier: Mapping[str, Tensor], stage: Stage) -> float | None:
    """Return the relative change, NaN from weights of zero, None of a stage without any."""
    change = size = 0.0
    count = 0
    for name, parameter in stage.named_parameters():
        old = _earlier(earlier, name, parameter).detach().cpu().double()
        change += float((parameter.detach().cpu().double() - old).square().sum())
        size += float(old.square().sum())
        count += 1
    if not count:
        return None
    return float(np.sqrt(change / size)) if size else float("nan")


def _earlier(earlier: Mapping[str, Tensor], name: str, now: Tensor) -> Tensor:
    if name not in earlier:
        raise ValueError(f"{name} is not in the snapshot: take it from the same architecture")
    if earlier[name].shape != now.shape:
        raise ValueError(
            f"{name} was {tuple(earlier[name].shape)} and is {tuple(now.shape)}: "
            "take the snapshot after replacing the head"
        )
    return earlier[name]


def _tensors(before: Mapping[str, Tensor] | HasParameters) -> Mapping[str, Tensor]:
    """Return the tensors of a snapshot or mapping by their dotted names."""
    tensors = before if isinstance(before, Mapping) else getattr(before, "parameters", None)
    if isinstance(tensors, Mapping):
        return tensors
    raise TypeError(
        f"expected a snapshot or a state dict, got {type(before).__name__}: "
        "use freezing.snapshot(model) or copy.deepcopy(model.state_dict())"
    )
