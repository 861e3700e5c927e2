"""Score predictions: AUC, accuracy, log loss, confusion, calibration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
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
