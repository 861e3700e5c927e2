"""List what a model can do: a row for each threshold that makes a difference.

An image is called ill when its probability of class `positive` is at least the threshold. With
more than two classes, `positive` stands against all the others.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix_at_thresholds

from tlcourse.metrics.scores import check_predictions


def roc_points(labels: ArrayLike, probs: ArrayLike, *, positive: int = 0) -> pd.DataFrame:
    """Return a row per attainable threshold, from calling nobody ill (inf) to calling everybody.

    Images with equal probabilities are called together, so each distinct probability is one
    threshold and one row; between two rows there is no threshold that does anything else.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`.
        positive: The class that counts as ill; 0 is malignant in the course's sets.

    Returns:
        Columns `threshold` (falling), `sensitivity`, `specificity`, and the counts `found`,
        `missed`, `alarms`, `cleared` of `OperatingPoint`.

    Raises:
        ValueError: If predictions are malformed, or `labels` lack the class or everything else.

    >>> probs = [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]
    >>> roc_points([0, 0, 1, 1], probs)[["threshold", "sensitivity", "specificity"]].values.tolist()
    [[inf, 0.0, 1.0], [0.9, 0.5, 1.0], [0.6, 1.0, 0.5], [0.2, 1.0, 0.0]]
    """
    ill, score = one_against_rest(labels, probs, positive)
    if len(np.unique(ill)) < 2:
        raise ValueError(
            f"a threshold needs images of class {positive} and of others, found "
            f"{int(ill.sum())} and {int((~ill).sum())}"
        )
    cleared, alarms, missed, found, steps = confusion_matrix_at_thresholds(ill, score)
    table = pd.DataFrame({"found": found, "missed": missed, "alarms": alarms, "cleared": cleared})
    nobody = pd.DataFrame({"found": [0], "missed": ill.sum(), "alarms": 0, "cleared": (~ill).sum()})
    table = pd.concat([nobody, table], ignore_index=True).astype(int)
    table.insert(0, "threshold", np.concatenate([[np.inf], steps]))
    table.insert(1, "sensitivity", table["found"] / ill.sum())
    table.insert(2, "specificity", table["cleared"] / (~ill).sum())
    return table


def precision_recall(labels: ArrayLike, probs: ArrayLike, *, positive: int = 0) -> pd.DataFrame:
    """Return precision and recall (the same as sensitivity) at each attainable threshold.

    As `roc_points`, without its first row: where nobody is called ill there is no precision, and
    the point (0, 1) that curves are often begun with is no threshold's.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`.
        positive: The class that counts as ill.

    Returns:
        Columns `threshold` (falling), `recall` (rising), `precision`, `found`, `alarms`.

    Raises:
        ValueError: If predictions are malformed, or `labels` lack the class or everything else.

    >>> probs = [[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]]
    >>> precision_recall([0, 0, 1, 1], probs)[["recall", "precision"]].round(2).values.tolist()
    [[0.5, 1.0], [1.0, 0.67], [1.0, 0.5]]
    """
    table = roc_points(labels, probs, positive=positive).iloc[1:].reset_index(drop=True)
    table["precision"] = table["found"] / (table["found"] + table["alarms"])
    table = table.rename(columns={"sensitivity": "recall"})
    return table[["threshold", "recall", "precision", "found", "alarms"]]


def one_against_rest(
    labels: ArrayLike, probs: ArrayLike, positive: int
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return who is ill, `(N,)`, and with what probability each is called so, `(N,)`.

    Raises:
        ValueError: If predictions are malformed or `positive` is no class.

    >>> one_against_rest([0, 1], [[0.9, 0.1], [0.3, 0.7]], 0)
    (array([ True, False]), array([0.9, 0.3]))
    """
    labels, probs = check_predictions(labels, probs)
    if not 0 <= positive < probs.shape[1]:
        raise ValueError(f"positive must name a class in 0..{probs.shape[1] - 1}, got {positive}")
    return labels == positive, probs[:, positive]
