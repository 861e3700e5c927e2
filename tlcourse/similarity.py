"""Compare two states of a network, or two networks, stage by stage: activations and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from tlcourse.backbones.stages import Stage, stages

Matrix = NDArray[np.float64]
_MINIMUM_ROWS = 4


def linear_cka(x: ArrayLike, y: ArrayLike, *, unbiased: bool = True) -> float:
    """Return the linear centred kernel alignment of two feature tables of the same images.

    1: equal up to rotation and scale; near 0: unrelated. Defined by Kornblith et al. 2019
    (Similarity of neural network representations revisited). Their plain estimate approaches 1
    for unrelated features when there are more features than images; the unbiased one of Song et
    al. 2012 (Feature selection via dependence maximization) does not, and may fall a little
    below 0.

    Args:
        x: `(N, F1)`, N of 4 or more.
        y: `(N, F2)`, the same images in the same order.
        unbiased: Whether to use the unbiased estimate.

    Raises:
        ValueError: If the tables do not fit together, are not finite, are too short, or hold
            features that do not vary.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(linear_cka(x, 2 * x[:, ::-1]), 6)
    1.0
    """
    tables = {"x": _centred(x, "x"), "y": _centred(y, "y")}
    first, second = tables.values()
    if len(first) != len(second):
        raise ValueError(f"expected the same images, got {len(first)} and {len(second)} rows")
    own = {name: _hsic(table, table, unbiased) for name, table in tables.items()}
    for name, table in tables.items():
        if not table.any():
            raise ValueError(f"{name} does not vary between images: alignment is not defined")
        # Pairs all equally alike, such as one lone image that differs, leave only rounding.
        if own[name] <= 1e-12 * np.square(table).sum() ** 2:
            raise ValueError(
                f"all pairs of images are equally alike in {name}: alignment is not defined, "
                "take more images or unbiased=False"
            )
    return _hsic(first, second, unbiased) / math.sqrt(own["x"] * own["y"])


def cka_by_stage(
    features_a: Mapping[str, ArrayLike], features_b: Mapping[str, ArrayLike]
) -> pd.Series[float]:
    """Return the unbiased linear CKA of each stage, as `stage_features` names them.

    Args:
        features_a: Stage name to `(N, C)`.
        features_b: The same stages and images of another network, or of another state.

    Raises:
        ValueError: If the stages differ, or `linear_cka` refuses one of them.

    >>> rng = np.random.default_rng(0)
    >>> table = {"stem": rng.normal(size=(9, 2)), "stage1": rng.normal(size=(9, 20))}
    >>> cka_by_stage(table, table).round(3).to_dict()
    {'stem': 1.0, 'stage1': 1.0}
    """
    if list(features_a) != list(features_b):
        raise ValueError(
            f"expected the same stages, got {list(features_a)} and {list(features_b)}: "
            "compare networks of one architecture, or linear_cka of chosen stages"
        )
    scores = {name: linear_cka(features_a[name], features_b[name]) for name in features_a}
    return pd.Series(scores, name="cka", dtype=float).rename_axis("stage")


def _centred(features: ArrayLike, name: str) -> Matrix:
    """Return a table without its means, all zeros if it does not vary but for rounding."""
    table = np.asarray(features, dtype=np.float64)
    if table.ndim != 2 or len(table) < _MINIMUM_ROWS:
        raise ValueError(
            f"expected {name} of shape (N, F) with N of {_MINIMUM_ROWS} or more, got {table.shape}"
        )
    if not np.isfinite(table).all():
        raise ValueError(f"{name} holds NaN or infinity")
    # Means cancel in either estimate; taken off first, they do not cost digits.
    centred: Matrix = table - table.mean(axis=0)
    varies = np.abs(centred).max(initial=0) > 1e-12 * np.abs(table).max(initial=0)
    return centred if varies else np.zeros_like(centred)


def _hsic(x: Matrix, y: Matrix, unbiased: bool) -> float:
    """Return HSIC of two centred tables, but for a factor that cancels in the alignment.

    By Gram matrices `(N, N)` or by feature products, whichever is cheaper. The unbiased one is
    HSIC_1 of Song et al. 2012, from sums over Gram matrices without their diagonals.
    """
    by_features = max(x.shape[1], y.shape[1]) < len(x)
    products = np.square(x.T @ y) if by_features else (x @ x.T) * (y @ y.T)
    if not unbiased:
        return float(products.sum())
    n = len(x)
    diagonal_x, diagonal_y = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    rows_x, rows_y = x @ x.sum(axis=0) - diagonal_x, y @ y.sum(axis=0) - diagonal_y
    product = products.sum() - diagonal_x @ diagonal_y
    means = rows_x.sum() * rows_y.sum() / ((n - 1) * (n - 2))
    return float(product + means - 2 / (n - 2) * rows_x @ rows_y)


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
    moved = {
        name: _drift(earlier, stage)
        for name, stage in stages(after).items()
        if list(stage.parameters())
    }
    return pd.Series(moved, name="drift", dtype=float).rename_axis("stage")


def _drift(earlier: Mapping[str, Tensor], stage: Stage) -> float:
    """Return the relative change, NaN from weights of zero."""
    change = size = 0.0
    for name, parameter in stage.named_parameters():
        old = _earlier(earlier, name, parameter).detach().cpu().double()
        change += float((parameter.detach().cpu().double() - old).square().sum())
        size += float(old.square().sum())
    return math.sqrt(change / size) if size else math.nan


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
