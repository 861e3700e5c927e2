"""Say how sure a score is: over runs, folds, resampled images, and under shifts of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tlcourse.metrics.scores import Metric, check_predictions


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
    return _t_interval(runs, float(stats.sem(runs)), level)


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
    return mean_interval(_differences(first, second), level)


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
    runs = np.asarray(first, dtype=float) if second is None else _differences(first, second)
    if folds < 2 or runs.ndim != 1 or not runs.size or runs.size % folds:
        raise ValueError(
            f"expected {folds} scores for each dealing into folds, and two folds or more, got "
            f"{runs.size}: average first over what shares a fold, such as subsets"
        )
    error = runs.std(ddof=1) * np.sqrt(1 / len(runs) + 1 / (folds - 1))
    return _t_interval(runs, float(error), level)


def _differences(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    ones, others = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if ones.shape != others.shape:
        raise ValueError(f"runs must pair up, got {ones.size} and {others.size}")
    return np.asarray(ones - others)


def _t_interval(runs: NDArray[np.float64], error: float, level: float) -> Interval:
    spread = stats.t.ppf((1 + level) / 2, len(runs) - 1) * error
    return Interval(float(runs.mean()), float(runs.mean() - spread), float(runs.mean() + spread))


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
    draws = [metric(labels[i], probs[i]) for i in _resamples(labels, groups, resamples, seed)]
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


UNSHIFTED = "none"
"""Name of the test images as they are."""


def rows_by_shift(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run and shift from a table with a column per shift.

    Args:
        runs: Columns `strategy`, `seed`, `auc` and one `auc_NAME` per shift, as in the tables
            `04_strategies_*`.

    Returns:
        Columns `way`, `seed`, `shift` and `auc`; `UNSHIFTED` is the shift of plain test images.

    Raises:
        ValueError: If no column is called `auc_NAME`.

    Example:
        >>> wide = pd.DataFrame({"strategy": ["cold"], "seed": [0], "auc": [0.9]})
        >>> wide["auc_blur"] = 0.8
        >>> rows_by_shift(wide)["shift"].tolist()
        ['none', 'blur']
    """
    scores = ["auc", *(name for name in runs.columns if name.startswith("auc_"))]
    if len(scores) == 1:
        raise ValueError(f"expected a column auc_NAME per shift, got {', '.join(runs.columns)}")
    rows = runs.melt(["strategy", "seed"], scores, "shift", "auc_")
    rows["shift"] = rows["shift"].str.removeprefix("auc").str.removeprefix("_")
    rows["shift"] = rows["shift"].replace("", UNSHIFTED)
    return rows.rename(columns={"strategy": "way", "auc_": "auc"})


def shift_effects(runs: pd.DataFrame, *, reference: str) -> pd.DataFrame:
    """Return what each way loses and keeps, as the mean over all shifts, with intervals.

    Two questions with two answers: who loses least, and who is best afterwards. A way that started
    lower can lose least and still end lowest.

    Args:
        runs: Columns `way`, `seed`, `shift` and `auc`, one row each; every way has every seed, and
            `UNSHIFTED` is among the shifts.
        reference: The way that the others are compared with, seed by seed.

    Returns:
        A row per way; columns `lost`, `lost_more` and `left_more` of intervals: AUC lost, AUC lost
        beyond the reference's loss, AUC afterwards beyond the reference's.

    Raises:
        ValueError: If the reference or the unshifted scores are missing, or a way lacks a score.

    Example:
        >>> rows = [(strategy, seed, shift, auc - 0.01 * seed * (shift == "blur"))
        ...         for strategy, auc in (("cold", 0.9), ("frozen", 0.8))
        ...         for seed in (0, 1) for shift in ("none", "blur")]
        >>> runs = pd.DataFrame(rows, columns=["way", "seed", "shift", "auc"])
        >>> round(shift_effects(runs, reference="frozen")["left_more"]["cold"].estimate, 2)
        0.1
    """
    scores = runs.pivot(index="seed", columns=["way", "shift"], values="auc")
    ways = list(dict.fromkeys(runs["way"]))
    if reference not in ways:
        raise ValueError(f"expected a reference among {', '.join(ways)}, got {reference!r}")
    if scores.isna().any(axis=None) or any((way, UNSHIFTED) not in scores for way in ways):
        raise ValueError(f"expected a score per way, seed and shift, {UNSHIFTED!r} among them")
    after = {way: scores[way].drop(columns=UNSHIFTED).mean(axis=1) for way in ways}
    lost = {way: scores[way][UNSHIFTED] - after[way] for way in ways}
    columns = {
        "lost": [mean_interval(lost[way]) for way in ways],
        "lost_more": [paired_mean_interval(lost[way], lost[reference]) for way in ways],
        "left_more": [paired_mean_interval(after[way], after[reference]) for way in ways],
    }
    return pd.DataFrame(columns, index=pd.Index(ways, name="way"))
