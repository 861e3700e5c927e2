"""Score predictions, and say how sure the score is.

Everywhere: `labels` are integers `(N,)` from 0 to C - 1, `probs` are floats `(N, C)` whose rows
sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn import metrics as sk

Metric = Callable[[NDArray[np.int64], NDArray[np.float64]], float]


class Interval(NamedTuple):
    """A figure with the interval that goes with it.

    >>> print(Interval(0.9, 0.85, 0.94))
    0.900 [0.850, 0.940]
    """

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def excludes(self, value: float) -> bool:
        """Tell whether `value` lies outside the interval."""
        return not self.low <= value <= self.high


def auc(labels: ArrayLike, probs: ArrayLike) -> float:
    """Return the area under the ROC curve: 0.5 is chance, 1 ranks every pair rightly.

    With more than two classes, the mean over classes of one against the rest, as MedMNIST does.

    Raises:
        ValueError: If shapes disagree or `labels` hold one class only.

    >>> auc([0, 0, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    0.75
    """
    labels, probs = check_predictions(labels, probs)
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(f"AUC needs two classes or more in labels, found only {present.tolist()}")
    if probs.shape[1] == 2:
        return float(sk.roc_auc_score(labels, probs[:, 1]))
    return float(np.mean([sk.roc_auc_score(labels == c, probs[:, c]) for c in present]))


def accuracy(labels: ArrayLike, probs: ArrayLike) -> float:
    """Return the share of images whose most probable class is the true one.

    >>> accuracy([0, 1], [[0.9, 0.1], [0.8, 0.2]])
    0.5
    """
    labels, probs = check_predictions(labels, probs)
    return float(sk.accuracy_score(labels, probs.argmax(axis=1)))


def balanced_accuracy(labels: ArrayLike, probs: ArrayLike) -> float:
    """Return the mean over classes of the share answered rightly; guessing gives 1 / C.

    >>> balanced_accuracy([0, 1, 1, 1], [[0.1, 0.9]] * 4)
    0.5
    """
    labels, probs = check_predictions(labels, probs)
    return float(sk.recall_score(labels, probs.argmax(axis=1), average="macro", zero_division=0))


def log_loss(labels: ArrayLike, probs: ArrayLike) -> float:
    """Return the mean cross-entropy in nats; equal answers to C classes give ln C.

    >>> round(log_loss([0, 1], [[0.5, 0.5], [0.5, 0.5]]), 3)
    0.693
    """
    labels, probs = check_predictions(labels, probs)
    return float(sk.log_loss(labels, probs, labels=np.arange(probs.shape[1])))


def confusion(labels: ArrayLike, probs: ArrayLike) -> NDArray[np.int64]:
    """Count images by true class (rows) and answered class (columns), shape `(C, C)`.

    >>> confusion([0, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]).tolist()
    [[1, 1], [0, 1]]
    """
    labels, probs = check_predictions(labels, probs)
    table = sk.confusion_matrix(labels, probs.argmax(axis=1), labels=np.arange(probs.shape[1]))
    return np.asarray(table, dtype=np.int64)


def calibration_error(labels: ArrayLike, probs: ArrayLike, *, bins: int = 10) -> float:
    """Return the expected calibration error (Guo et al. 2017), from 0 (honest) to 1.

    Answers are sorted into `bins` of equal width by their confidence; the error is the mean gap
    between confidence and share right, weighted by the images in each bin.

    >>> round(calibration_error([0, 1], [[0.9, 0.1], [0.9, 0.1]]), 2)
    0.4
    """
    labels, probs = check_predictions(labels, probs)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[which == b].mean() - right[which == b].mean()) * (which == b).mean()
        for b in np.unique(which)
    ]
    return float(np.sum(gaps))


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


def mean_interval(values: Sequence[float] | NDArray[np.float64], level: float = 0.95) -> Interval:
    """Return the mean over runs (seeds, subsets) with a t interval.

    Raises:
        ValueError: If fewer than two values are given: one run has no interval.

    >>> print(mean_interval([0.8, 0.9, 1.0]))
    0.900 [0.652, 1.148]
    """
    runs = np.asarray(values, dtype=float)
    if runs.ndim != 1 or len(runs) < 2:
        raise ValueError(f"an interval needs two runs or more, got {runs.size}")
    spread = stats.t.ppf((1 + level) / 2, len(runs) - 1) * stats.sem(runs)
    return Interval(float(runs.mean()), float(runs.mean() - spread), float(runs.mean() + spread))


def paired_mean_interval(
    first: Sequence[float] | NDArray[np.float64],
    second: Sequence[float] | NDArray[np.float64],
    level: float = 0.95,
) -> Interval:
    """Return the mean of first - second over runs that share seed and images, with a t interval.

    Raises:
        ValueError: If the runs do not pair up.

    >>> print(paired_mean_interval([0.9, 0.8, 0.85], [0.8, 0.7, 0.75]))
    0.100 [0.100, 0.100]
    """
    if len(first) != len(second):
        raise ValueError(f"runs must pair up, got {len(first)} and {len(second)}")
    return mean_interval(np.asarray(first, dtype=float) - np.asarray(second, dtype=float), level)


def check_predictions(
    labels: ArrayLike, probs: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return labels and probs as arrays, or say what is wrong with them.

    Raises:
        ValueError: If shapes disagree, a label lies outside the classes, or rows are no
            probabilities.
    """
    labels = np.asarray(labels)
    probs = np.asarray(probs, dtype=float)
    if labels.ndim != 1 or probs.ndim != 2 or len(labels) != len(probs):
        raise ValueError(
            f"expected labels (N,) and probs (N, C), got {labels.shape}, {probs.shape}"
        )
    if len(labels) == 0:
        raise ValueError("expected at least one prediction, got none")
    if not np.isfinite(probs).all() or (probs < 0).any() or (abs(probs.sum(1) - 1) > 1e-3).any():
        raise ValueError(
            "probs must be finite, not negative and sum to 1 in each row: apply softmax"
        )
    if labels.min() < 0 or labels.max() >= probs.shape[1]:
        raise ValueError(
            f"labels must lie in 0..{probs.shape[1] - 1}, found {labels.min()}..{labels.max()}"
        )
    return labels.astype(np.int64), probs


def _resamples(labels: NDArray[np.int64], count: int, seed: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    return [np.concatenate([rng.choice(m, len(m)) for m in members]) for _ in range(count)]


def _percentiles(estimate: float, draws: list[float], level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))
