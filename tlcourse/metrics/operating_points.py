"""Choose a threshold on one part, and say what it does on another.

An image is called ill when its probability of class `positive` is at least the threshold. With
more than two classes, `positive` stands against all the others.

What a threshold reaches on the images it was chosen on flatters it. So the functions that choose
return a `ChosenThreshold`, which knows those images, and `at_threshold`, which judges, refuses
them:

    chosen = sensitivity_at_specificity(data.val.labels, val_probs, 0.9)
    print(at_threshold(data.test.labels, test_probs, chosen))
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from tlcourse.metrics.scores import check_predictions, one_against_rest, roc_points


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold does on one part.

    Attributes:
        threshold: Images with at least this probability are called ill; inf calls none.
        positive: The class that counts as ill.
        found: Ill images called ill.
        missed: Ill images not called ill.
        alarms: Other images called ill.
        cleared: Other images not called ill.

    >>> point = OperatingPoint(0.5, positive=0, found=18, missed=2, alarms=9, cleared=81)
    >>> print(point)
    threshold 0.500: sensitivity 0.900 (18 of 20), specificity 0.900 (81 of 90)
    >>> round(point.precision, 2)
    0.67
    """

    threshold: float
    positive: int
    found: int
    missed: int
    alarms: int
    cleared: int

    @property
    def sensitivity(self) -> float:
        """Share of ill images called ill (recall); NaN without ill images."""
        return _share(self.found, self.missed)

    @property
    def specificity(self) -> float:
        """Share of the others not called ill; NaN without others."""
        return _share(self.cleared, self.alarms)

    @property
    def precision(self) -> float:
        """Share of images called ill that are (positive predictive value); NaN if none is called.

        It holds for parts with the same share of ill images only.
        """
        return _share(self.found, self.alarms)

    def __str__(self) -> str:
        ill, others = self.found + self.missed, self.cleared + self.alarms
        return (
            f"threshold {self.threshold:.3f}: "
            f"sensitivity {self.sensitivity:.3f} ({self.found} of {ill}), "
            f"specificity {self.specificity:.3f} ({self.cleared} of {others})"
        )


@dataclass(frozen=True)
class ChosenThreshold(OperatingPoint):
    """A threshold with what it reached on the images it was chosen on: a promise, no result.

    Give it to `at_threshold` with predictions for other images to learn how it holds.

    Attributes:
        rule: What it was chosen for.
        cost: Cost per image on the images it was chosen on; None if not chosen for a cost.
    """

    rule: str
    cost: float | None = None
    # Digest of the predictions it was chosen on, by which `at_threshold` knows them again.
    chosen_on: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{super().__str__()}; chosen on these images for {self.rule}"


def sensitivity_at_specificity(
    labels: ArrayLike, probs: ArrayLike, specificity: float = 0.9, *, positive: int = 0
) -> ChosenThreshold:
    """Choose the threshold that finds most ill images at `specificity` or above.

    Only attainable thresholds count (`roc_points`): images with equal probabilities are called
    together, and nothing is interpolated between two points of the curve, for no threshold lies
    there. So the specificity reached is mostly above the one asked for. Where several thresholds
    find equally many, the highest is taken: it gives the fewest false alarms. If even the
    surest image of all would break the specificity, the threshold is inf and the sensitivity 0.

    Args:
        labels: `(N,)`, of the part to choose on: validation.
        probs: `(N, C)`, predictions for it.
        specificity: Share of the others that may at least not be called ill, from 0 to 1.
        positive: The class that counts as ill.

    Returns:
        The threshold, with the sensitivity and specificity it reached here; judge it on another
        part with `at_threshold`.

    Raises:
        ValueError: If predictions are malformed, `labels` lack the class or everything else, or
            `specificity` lies outside 0..1.

    >>> probs = [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]
    >>> chosen = sensitivity_at_specificity([0, 0, 1, 1], probs, 0.9)
    >>> chosen.threshold, chosen.sensitivity, chosen.specificity
    (0.9, 0.5, 1.0)
    """
    if not 0 <= specificity <= 1:
        raise ValueError(f"specificity must lie in 0..1, got {specificity}")
    table = roc_points(labels, probs, positive=positive)
    # The tolerance keeps 9 cleared of 10 at 0.9 whatever the last bit says.
    allowed = table[table["specificity"] >= specificity - 1e-12]
    best = allowed["threshold"].to_numpy()[allowed["sensitivity"].argmax()]  # the first of equals
    rule = f"a specificity of at least {100 * specificity:g} %"
    return _chosen(labels, probs, float(best), positive, rule)


def threshold_for_cost(
    labels: ArrayLike,
    probs: ArrayLike,
    *,
    cost_missed: float,
    cost_alarm: float,
    positive: int = 0,
) -> ChosenThreshold:
    """Choose the attainable threshold with the least cost per image.

    Among equals the lowest is taken: it misses fewest. Only the ratio of the costs matters for the
    choice. If probabilities were calibrated, the best threshold would be
    cost_alarm / (cost_alarm + cost_missed) (Elkan 2001, *The foundations of cost-sensitive
    learning*); here it is counted, which asks nothing of them but needs more images.

    Args:
        labels: `(N,)`, of the part to choose on: validation. Its share of ill images should be
            that of the images to come.
        probs: `(N, C)`, predictions for it.
        cost_missed: Cost of an ill image not called ill, above 0, in any unit.
        cost_alarm: Cost of another image called ill, above 0, in the same unit.
        positive: The class that counts as ill.

    Returns:
        The threshold, with its `cost` per image here; judge it on another part with
        `at_threshold`, whose result counts what was missed and the alarms.

    Raises:
        ValueError: If predictions are malformed, `labels` lack the class or everything else, or
            a cost is not above 0.

    >>> probs = [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]
    >>> chosen = threshold_for_cost([0, 0, 1, 1], probs, cost_missed=10, cost_alarm=1)
    >>> chosen.threshold, chosen.cost
    (0.6, 0.25)
    """
    for name, cost in {"cost_missed": cost_missed, "cost_alarm": cost_alarm}.items():
        if not (math.isfinite(cost) and cost > 0):
            raise ValueError(f"{name} must be a finite number above 0, got {cost}")
    table = roc_points(labels, probs, positive=positive)
    total = cost_missed * table["missed"].to_numpy() + cost_alarm * table["alarms"].to_numpy()
    least = np.isclose(total, total.min(), rtol=1e-12, atol=0)
    best = table["threshold"].to_numpy()[least].min()
    rule = f"the least cost, {cost_missed:g} a missed image and {cost_alarm:g} a false alarm"
    cost = float(total.min() / len(np.asarray(labels)))
    return _chosen(labels, probs, float(best), positive, rule, cost)


def at_threshold(
    labels: ArrayLike,
    probs: ArrayLike,
    threshold: float | ChosenThreshold,
    *,
    positive: int = 0,
) -> OperatingPoint:
    """Return what a threshold chosen on another part does on this one.

    Args:
        labels: `(N,)`, of the part to judge on: test.
        probs: `(N, C)`, predictions for it, made as those that the threshold was chosen on; at
            the same temperature, for one.
        threshold: What `sensitivity_at_specificity` or `threshold_for_cost` chose, or a number
            from 0 to 1 that was fixed beforehand.
        positive: The class that counts as ill.

    Raises:
        ValueError: If predictions are malformed, the threshold is no probability, was chosen for
            another class, or was chosen on these very predictions.

    >>> val = [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]
    >>> chosen = threshold_for_cost([0, 0, 1, 1], val, cost_missed=10, cost_alarm=1)
    >>> print(at_threshold([0, 0, 1], [[0.6, 0.4], [0.5, 0.5], [0.3, 0.7]], chosen))
    threshold 0.600: sensitivity 0.500 (1 of 2), specificity 1.000 (1 of 1)
    """
    if isinstance(threshold, ChosenThreshold):
        if threshold.positive != positive:
            raise ValueError(
                f"the threshold was chosen for class {threshold.positive} as ill, got "
                f"positive={positive}: name the same class"
            )
        if threshold.chosen_on == _digest(labels, probs):
            raise ValueError(
                "these are the images the threshold was chosen on, which flatter it: judge it on "
                "another part; what it reached here stands in the choice itself"
            )
        threshold = threshold.threshold
    if not (0 <= threshold <= 1 or threshold == math.inf):
        raise ValueError(f"threshold must be a probability in 0..1 or inf, got {threshold}")
    ill, score = one_against_rest(labels, probs, positive)
    called = score >= threshold
    return OperatingPoint(
        threshold=float(threshold),
        positive=positive,
        found=int((called & ill).sum()),
        missed=int((~called & ill).sum()),
        alarms=int((called & ~ill).sum()),
        cleared=int((~called & ~ill).sum()),
    )


def _chosen(
    labels: ArrayLike,
    probs: ArrayLike,
    threshold: float,
    positive: int,
    rule: str,
    cost: float | None = None,
) -> ChosenThreshold:
    here = at_threshold(labels, probs, threshold, positive=positive)
    return ChosenThreshold(**vars(here), rule=rule, cost=cost, chosen_on=_digest(labels, probs))


def _digest(labels: ArrayLike, probs: ArrayLike) -> str:
    labels, probs = check_predictions(labels, probs)
    return hashlib.sha256(labels.tobytes() + probs.tobytes()).hexdigest()


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else math.nan
