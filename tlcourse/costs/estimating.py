"""Add up what training costs when some stages are frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

_MB = 1e6
_FLOAT = 4
"""Bytes of a float32, in which weights, gradients, optimizer and cache are kept."""


@dataclass(frozen=True)
class Estimate:
    """What training costs when some stages are frozen (see `estimate`).

    Attributes:
        trainable: Parameters that train.
        weights_mb: All weights, frozen ones included, in MB (a million bytes).
        gradients_mb: Gradients of the trainable ones.
        optimizer_mb: What the optimizer keeps for the trainable ones.
        activations_mb: What one batch leaves behind for the backward pass.
        epoch_seconds: An epoch when the frozen part runs anew for every batch.
        cached_epoch_seconds: An epoch when the frozen part's outputs are read from a cache.
        caching_seconds: The frozen part once over all images, which fills the cache.
        cache_mb: Size of the cache; it may lie in a file.
    """

    trainable: int
    weights_mb: float
    gradients_mb: float
    optimizer_mb: float
    activations_mb: float
    epoch_seconds: float
    cached_epoch_seconds: float
    caching_seconds: float
    cache_mb: float

    @property
    def memory_mb(self) -> float:
        """Weights, gradients, optimizer and activations together, in MB, without the cache."""
        return self.weights_mb + self.gradients_mb + self.optimizer_mb + self.activations_mb


def estimate(
    costs: pd.DataFrame,
    *,
    through: str | None = None,
    images: int,
    batch_size: int,
    optimizer_state: int = 2,
) -> Estimate:
    """Add up what training costs when the stages through `through` are frozen.

    Left out: the optimizer's own step, reading and augmenting images, validation, and the fixed
    cost of every batch, which is most of what training a head alone takes; that the lowest
    trainable stage needs no gradient of its input; what operations need for a moment (the peak
    is higher), buffers, and the program itself (about 0.5 GB of torch). Seconds per image are
    those at the batch size that was measured. The cache is counted as whole outputs in float32,
    once per image: several augmented views need as many times the room, and where a mean over
    positions does as well (at the last boundary, as `fit` finds out) it is smaller.

    Args:
        costs: What `stage_costs` returned.
        through: The last frozen stage, `"all"` for all but the head, None for none.
        images: Training images, at least 1.
        batch_size: Images in a batch, at least 1.
        optimizer_state: Numbers that the optimizer keeps per trainable parameter: 2 for Adam and
            AdamW, 1 for SGD with momentum, 0 for SGD without.

    Raises:
        ValueError: If `through` names no stage or leaves nothing to train, or a number is out of
            range.

    >>> costs = pd.DataFrame({"parameters": [1_000_000, 10], "activation_mb": [2.0, 0.5],
    ...     "output_mb": [0.1, 0.0], "forward_seconds": [0.02, 0.0],
    ...     "backward_seconds": [0.04, 0.0], "frozen_seconds": [0.01, 0.0]}, ["stem", "head"])
    >>> whole = estimate(costs, images=100, batch_size=8)
    >>> frozen = estimate(costs, through="all", images=100, batch_size=8)
    >>> round(whole.epoch_seconds, 1), round(frozen.epoch_seconds, 1), frozen.trainable
    (6.0, 1.0, 10)
    """
    if images < 1 or batch_size < 1 or optimizer_state < 0:
        raise ValueError(
            "expected images and batch_size of at least 1 and optimizer_state of at least 0, got "
            f"{images}, {batch_size} and {optimizer_state}"
        )
    end = _frozen_count([str(name) for name in costs.index], through)
    frozen, free = costs.iloc[:end].sum(), costs.iloc[end:].sum()
    trainable_mb = free["parameters"] * _FLOAT / _MB
    training = images * float(free["forward_seconds"] + free["backward_seconds"])
    running = images * float(frozen["frozen_seconds"])
    return Estimate(
        trainable=int(free["parameters"]),
        weights_mb=float(costs["parameters"].sum() * _FLOAT / _MB),
        gradients_mb=float(trainable_mb),
        optimizer_mb=float(optimizer_state * trainable_mb),
        activations_mb=float(batch_size * free["activation_mb"]),
        epoch_seconds=running + training,
        cached_epoch_seconds=training,
        caching_seconds=running,
        cache_mb=images * float(costs["output_mb"].iloc[end - 1]) if end else 0.0,
    )


def _frozen_count(names: Sequence[str], through: str | None) -> int:
    choices = list(names[:-1])
    if through is None:
        return 0
    if through == "all":
        return len(choices)
    if through not in choices:
        raise ValueError(
            f"expected through as None, 'all' or a stage below the head, one of {choices}, "
            f"got {through!r}"
        )
    return 1 + choices.index(through)
