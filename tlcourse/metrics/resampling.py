"""Say how far other images of the same kind could move a score: the bootstrap."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tlcourse.metrics.intervals import Interval
from tlcourse.metrics.scores import Metric, check_predictions


def bootstrap(
    metric: Metric,
    labels: ArrayLike,
    probs: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the metric with a percentile bootstrap interval over images, or over groups.

    Images are drawn with replacement within each class, so that no draw lacks one. Images of one
    patient, or near copies, are no independent evidence: with `groups` whole groups are drawn
    (Field and Welsh 2007, *Bootstrapping clustered data*), among those that hold the same
    classes. So no draw lacks a class, while its number of images varies with the groups' sizes.

    Args:
        metric: A function of labels and probs, such as `auc`.
        labels: `(N,)`.
        probs: `(N, C)`.
        groups: `(N,)`, numbers or names; images that share one are drawn together, such as
            `Split.groups`. None takes each image for itself.
        resamples: Number of draws.
        level: Share of draws that the interval holds.
        seed: Seed of the draws.

    Raises:
        ValueError: If predictions are malformed or `groups` do not name one group per image.

    >>> from tlcourse.metrics import accuracy
    >>> probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> bootstrap(accuracy, [0, 0, 1, 1], probs, resamples=50)
    Interval(estimate=1.0, low=1.0, high=1.0)
    """
    labels, probs = check_predictions(labels, probs)
    drawn = _resamples(labels, groups, resamples, seed)
    draws = [metric(labels[i], probs[i]) for i in drawn]
    return _percentiles(metric(labels, probs), draws, level)


def paired_difference(
    metric: Metric,
    labels: ArrayLike,
    probs_a: ArrayLike,
    probs_b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return metric(a) - metric(b) on the same images, with a paired bootstrap interval.

    An interval that holds 0 is a difference that these images do not support. Arguments and
    errors are those of `bootstrap`.

    >>> from tlcourse.metrics import accuracy
    >>> probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> paired_difference(accuracy, [0, 0, 1, 1], probs, probs, resamples=20).estimate
    0.0
    """
    labels, probs_a = check_predictions(labels, probs_a)
    labels, probs_b = check_predictions(labels, probs_b)

    def gain(chosen: NDArray[np.int64]) -> float:
        return metric(labels[chosen], probs_a[chosen]) - metric(labels[chosen], probs_b[chosen])

    draws = [gain(chosen) for chosen in _resamples(labels, groups, resamples, seed)]
    return _percentiles(gain(np.arange(len(labels))), draws, level)


def _resamples(
    labels: NDArray[np.int64], groups: ArrayLike | None, count: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    # Groups are numbered as they first come, so that groups of one image are the images.
    group = np.arange(len(labels)) if groups is None else _numbered(groups, len(labels))
    images, sizes = np.argsort(group, kind="stable"), np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    members = _alike(labels, group)
    for _ in range(count):
        drawn = np.concatenate([rng.choice(m, len(m)) for m in members])
        ends = np.cumsum(sizes[drawn])
        shift = np.repeat(starts[drawn] - ends + sizes[drawn], sizes[drawn])
        yield images[shift + np.arange(ends[-1])]


def _numbered(groups: ArrayLike, count: int) -> NDArray[np.int64]:
    names = np.asarray(groups)
    if names.shape != (count,):
        raise ValueError(f"groups must name one group per image, ({count},), got {names.shape}")
    numbers = pd.factorize(names)[0]
    if (numbers < 0).any():
        raise ValueError("groups must hold no missing value: give a lone image a group of its own")
    return np.asarray(numbers, dtype=np.int64)


def _alike(labels: NDArray[np.int64], group: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    # Groups that lack the same classes are exchanged for each other, never for others.
    lacking = np.ones((group.max() + 1, labels.max() + 1), bool)
    lacking[group, labels] = False
    _, kind = np.unique(lacking, axis=0, return_inverse=True)
    return [np.flatnonzero(kind.ravel() == k) for k in range(kind.max() + 1)]


def _percentiles(estimate: float, draws: list[float], level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
