"""Score predictions: AUC, accuracy, log loss, confusion, and the curves behind an AUC.

In a curve an image is called ill when its probability of class `positive` is at least the
threshold. With more than two classes, `positive` stands against all the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

Metric = Callable[[NDArray[np.int64], NDArray[np.float64]], float]
"""A function of labels `(N,)` and probabilities `(N, C)`."""


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
    cleared, alarms, missed, found, steps = sk.confusion_matrix_at_thresholds(ill, score)
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
