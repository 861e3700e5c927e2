"""Say how sure a mean is: over independent runs, and over folds, which are not independent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


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

    @property
    def verdict(self) -> str:
        """What a difference decides: "better", "worse" or, where zero is inside, "open".

        >>> Interval(0.03, 0.01, 0.05).verdict, Interval(0.03, -0.01, 0.07).verdict
        ('better', 'open')
        """
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"


def mean_interval(values: Sequence[float] | NDArray[np.float64], level: float = 0.95) -> Interval:
    """Return the mean over independent runs (seeds) with a t interval; for folds `fold_interval`.

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


def fold_interval(
    first: ArrayLike, second: ArrayLike | None = None, *, folds: int, level: float = 0.95
) -> Interval:
    """Return the mean over folds, or the mean of first - second, with an interval that is honest.

    Two folds of one dealing share most of their training images, and two dealings share all
    images. So results of folds are no independent runs, and `mean_interval` would make of every
    new dealing new evidence. The corrected resampled t interval (Nadeau and Bengio 2003,
    *Inference for the generalization error*; for repeated folds Bouckaert and Frank 2004) takes
    the standard error sd * sqrt(1 / J + 1 / (K - 1)) with J - 1 degrees of freedom: J results of
    K folds, of which each judges one image for K - 1 that it trains on. More dealings make the
    first term smaller, never the second.

    Args:
        first: J scores, a fold each, K for each dealing.
        second: Scores of something else in the same folds; None for the mean of `first` alone.
        folds: K, the folds of one dealing, at least 2.
        level: Share of such intervals that shall hold the truth.

    Raises:
        ValueError: If the scores do not pair up or are not K for each dealing.

    >>> print(fold_interval([0.9, 0.8, 0.7, 0.8, 0.8], [0.7, 0.7, 0.6, 0.6, 0.7], folds=5))
    0.140 [0.038, 0.242]
    """
    runs = np.asarray(first, dtype=float)
    if second is not None:
        others = np.asarray(second, dtype=float)
        if others.shape != runs.shape:
            raise ValueError(f"runs must pair up, got {runs.size} and {others.size}")
        runs = runs - others
    if folds < 2 or runs.ndim != 1 or not runs.size or runs.size % folds:
        raise ValueError(
            f"expected {folds} scores for each dealing into folds, and two folds or more, got "
            f"{runs.size}: average first over what shares a fold, such as subsets"
        )
    error = runs.std(ddof=1) * np.sqrt(1 / len(runs) + 1 / (folds - 1))
    spread = float(stats.t.ppf((1 + level) / 2, len(runs) - 1) * error)
    return Interval(float(runs.mean()), float(runs.mean() - spread), float(runs.mean() + spread))
