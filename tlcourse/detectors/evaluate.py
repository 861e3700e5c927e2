"""Score the answers of a detector, and find the images it is most wrong about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlcourse import metrics
from tlcourse.datasets.base import Split
from tlcourse.detectors.artifacts import PROBABILITY
from tlcourse.detectors.detector import Detector

WITH_INTERVAL: dict[str, metrics.Metric] = {
    "auc": metrics.auc,
    "accuracy": metrics.accuracy,
    "balanced_accuracy": metrics.balanced_accuracy,
    "log_loss": metrics.log_loss,
}
"""Scores whose bootstrap interval is meaningful; that of a calibration error is biased upward."""


RESAMPLES = 1000
"""Draws of the bootstrap."""

MOST_WRONG = 12
"""Images that a report shows at most."""


def test_scores(test: Split, probs: pd.DataFrame) -> dict[str, Any]:
    """Return scores by name: estimate, low and high of a 95 % bootstrap interval.

    Images of one group (a patient, near copies) are drawn together. `calibration_error` is a
    number alone.

    Args:
        test: The test part, N images.
        probs: `(N, C)`, what a detector predicted.
    """
    labels, groups = test.labels, test.groups
    rows = probs.to_numpy(dtype=float)
    intervals = {
        name: metrics.bootstrap(metric, labels, rows, groups=groups, resamples=RESAMPLES)._asdict()
        for name, metric in WITH_INTERVAL.items()
    }
    return {**intervals, "calibration_error": metrics.calibration_error(labels, rows)}


def validation_scores(labels: NDArray[np.int64], probs: pd.DataFrame) -> dict[str, float]:
    """Return scores by name, of images on which choices were made: they flatter.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`, what a detector predicted.
    """
    rows = probs.to_numpy(dtype=float)
    return {name: metric(labels, rows) for name, metric in WITH_INTERVAL.items()}


def prediction_table(
    labels: NDArray[np.int64], probs: pd.DataFrame, detector: Detector
) -> pd.DataFrame:
    """Return a row per test image: its place in the part, label, answer, `p_CLASS` for each class.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`, what the detector predicted.
        detector: Knows the classes and how it answers.
    """
    table = pd.DataFrame({"image": np.arange(len(labels))})
    table["label"] = [detector.classes[label] for label in labels]
    table["answer"] = detector.predicted_classes(probs).to_numpy()
    return table.join(probs.add_prefix(PROBABILITY))


def most_wrong(labels: NDArray[np.int64], probs: pd.DataFrame) -> NDArray[np.int64]:
    """Return the rows answered wrongly, that whose true class got the least probability first.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`.

    >>> probs = pd.DataFrame([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> most_wrong(np.array([1, 1, 1]), probs).tolist()
    [0, 1]
    """
    rows = probs.to_numpy(dtype=float)
    truth = rows[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(rows.argmax(axis=1) != labels)
    return wrong[np.argsort(truth[wrong], kind="stable")][:MOST_WRONG]
