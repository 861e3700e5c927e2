"""Say how far other images of the same kind could move a score: the bootstrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlcourse.metrics.intervals import Interval
from tlcourse.metrics.scores import Metric, check_predictions


def bootstrap(
    metric: Metric,
    labels: ArrayLike,
    probs: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the metric with a percentile bootstrap interval over images.

    Images are drawn with replacement within each class, so that no draw lacks one.

    Args:
        metric: A function of labels and probs, such as `auc`.
        labels: `(N,)`.
        probs: `(N, C)`.
        resamples: Number of draws.
        level: Share of draws that the interval holds.
        seed: Seed of the draws.

    >>> from tlcourse.metrics import accuracy
    >>> probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> bootstrap(accuracy, [0, 0, 1, 1], probs, resamples=50)
    Interval(estimate=1.0, low=1.0, high=1.0)
    """
    labels, probs = check_predictions(labels, probs)
    draws = [metric(labels[i], probs[i]) for i in _resamples(labels, resamples, seed)]
    return _percentiles(metric(labels, probs), draws, level)


def paired_difference(
    metric: Metric,
    labels: ArrayLike,
    probs_a: ArrayLike,
    probs_b: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return metric(a) - metric(b) on the same images, with a paired bootstrap interval.

    An interval that holds 0 is a difference that these images do not support.

    >>> from tlcourse.metrics import accuracy
    >>> probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    >>> paired_difference(accuracy, [0, 0, 1, 1], probs, probs, resamples=20).estimate
    0.0
    """
    labels, probs_a = check_predictions(labels, probs_a)
    labels, probs_b = check_predictions(labels, probs_b)

    def gain(chosen: NDArray[np.int64]) -> float:
        return metric(labels[chosen], probs_a[chosen]) - metric(labels[chosen], probs_b[chosen])

    draws = [gain(chosen) for chosen in _resamples(labels, resamples, seed)]
    return _percentiles(gain(np.arange(len(labels))), draws, level)


def _resamples(labels: NDArray[np.int64], count: int, seed: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    return [np.concatenate([rng.choice(m, len(m)) for m in members]) for _ in range(count)]


def _percentiles(estimate: float, draws: list[float], level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
