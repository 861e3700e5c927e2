"""Read a rate off the losses of a range test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import wilcoxon

CLEAR = 5.0
"""How many of its standard errors, by the noise of single steps, the fall must measure: more than
usual, because the lowest steps are picked after seeing all."""

CHANCE = 0.005
"""Chance, by Wilcoxon's signed ranks, below which it is no accident that the loss of most images
fell. Ranks, because a few images that a network gets surely wrong have losses of any size."""

LEAST = 0.1
"""Share of the first loss that the fall must measure: a tiny rate lowers every image's loss by a
little, so surely that any test of significance calls it a fall."""

LARGE = 0.2
"""Share of the first loss from which on an earlier fall is taken, once any fall is clear: a network
that learns at all does so first at the lowest rate that lets it."""

SOME = 3
"""Steps at the beginning and at the end of a fall whose losses are averaged."""

NORMAL_MEDIAN = 0.6745
"""Median size of a normal number with standard deviation 1."""

NEVER_FELL = "the loss did not fall beyond its noise: lower `low`, raise `high` or take more steps"
STILL_FALLING = "the loss was still falling at the highest rate: raise `high`"


def smoothed(losses: Sequence[float] | NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Return the running mean `(N,)` of losses, in which the past has `weight`.

    The mean of the first few is taken over those few (as Adam corrects its means), so that the
    curve starts at the first loss and not at zero.

    Args:
        losses: `(N,)`.
        weight: From 0 (nothing is smoothed) to below 1.

    >>> smoothed([1.0, 0.0], 0.5).round(3).tolist()
    [1.0, 0.333]
    """
    means, mean = [], 0.0
    for step, loss in enumerate(losses, start=1):
        mean = weight * mean + (1 - weight) * float(loss)
        means.append(mean / (1 - weight**step))
    return np.array(means)


def suggest(
    rates: NDArray[np.float64], losses: NDArray[np.float64], weight: float
) -> tuple[float, str]:
    """Return the rate at which half the fall was done, or NaN, and what is to be said of it.

    The point of steepest fall (Smith, Lightning) hangs on the difference of two losses, which is
    mostly noise; the longest run of falling losses (fastai's `valley`) forgets how far they fell,
    so that it starts wherever the test did. Half the fall hangs on neither: it is read off the
    falling curve that is nearest to all losses up to the lowest (isotonic regression), which
    crosses that height where it is steep. If the loss breaks out and falls again, the first fall
    that is clear or large counts.

    Args:
        rates: `(N,)`, rising geometrically.
        losses: `(N, M)`, of the same M images at every step, not smoothed; from the first step
            with one that is no finite number on they are ignored.
        weight: See `smoothed`; the lowest point is looked for on the smoothed mean.

    Returns:
        The rate, NaN if the loss did not fall beyond its noise; a remark, empty if there is none.

    >>> rates, falling = np.geomspace(1e-6, 1, 61), np.linspace(0.7, 0.1, 61)
    >>> losses = falling[:, np.newaxis] + np.linspace(-0.01, 0.01, 8)
    >>> suggest(rates, losses, 0.5)[1]
    'the loss was still falling at the highest rate: raise `high`'
    >>> suggest(rates, losses[::-1], 0.5)[0]
    nan
    """
    broken = np.flatnonzero(~np.isfinite(losses).all(axis=1))
    losses = losses[: broken[0]] if len(broken) else losses
    if len(losses) < 2 * SOME:
        return math.nan, NEVER_FELL
    noise = _noise_of_step(losses.mean(axis=1))
    ends = [_Fall(losses[: end + 1], noise) for end in _lowest_points(losses, weight)]
    if not any(fall.clear for fall in ends):
        return math.nan, NEVER_FELL
    first = next(fall for fall in ends if fall.clear or fall.large)
    return float(rates[first.half]), STILL_FALLING * (first.end == len(rates) - 1)


class _Fall:
    """How the loss fell from the first few steps to the last few of `losses` `(N, M)`."""

    def __init__(self, losses: NDArray[np.float64], noise: float) -> None:
        means = losses.mean(axis=1)
        curve: NDArray[np.float64] = isotonic_regression(means, increasing=False).x
        before, after = means[:SOME].mean(), means[-SOME:].mean()
        self.end = len(losses) - 1
        self.half = int((curve <= (before + after) / 2).argmax())
        share = 1 - after / before
        beyond_steps = before - after > CLEAR * noise * math.sqrt(2 / SOME)
        self.large = bool(share > LARGE and beyond_steps)
        self.clear = bool(share > LEAST and beyond_steps) and _most_fell(losses)


def _noise_of_step(means: NDArray[np.float64]) -> float:
    """Return the standard deviation of one step, by the differences between neighbours.

    The first half of the steps is used, and the median, because steps grow noisier with the rate.
    """
    differences = np.diff(means[: max(len(means) // 2, 2 * SOME)])
    return float(np.median(np.abs(differences))) / NORMAL_MEDIAN / math.sqrt(2)


def _most_fell(losses: NDArray[np.float64]) -> bool:
    falls = losses[:SOME].mean(axis=0) - losses[-SOME:].mean(axis=0)
    return bool(wilcoxon(falls, alternative="greater").pvalue < CHANCE)


def _lowest_points(losses: NDArray[np.float64], weight: float) -> list[int]:
    """Return the steps at which a fall of the smoothed loss ended, in order.

    A fall has ended when half of it is lost again. What falls after that, at rates that threw the
    network about, says nothing about the rates before. Noise ends falls, too: several are returned.
    """
    # Sooner, the smoothed loss is the mean of a few, low by chance alone.
    earliest = 2 * SOME - 1
    means = losses.mean(axis=1)
    curve, start = smoothed(means, weight)[earliest:], means[:SOME].mean()
    best = np.minimum.accumulate(curve)
    lost = (curve > (start + best) / 2) & (best < (1 - LEAST) * start)
    ends = {int(curve[: end + 1].argmin()) for end in [*np.flatnonzero(lost), len(curve) - 1]}
    return [earliest + end for end in sorted(ends)]
