"""Fit a small classifier on frozen features: the learning block of transfer learning."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

Kind = Literal["logistic", "tuned", "svm", "knn"]

# Chosen with frozen MobileNetV2 features of BreastMNIST's training and validation images alone (10
# subsets of 50, 100, 200 and 400, judged on the rest): of 1e-5 .. 1 the lowest log loss at each
# size and an AUC within .003 of the best. With scikit-learn's default of 1 the log loss is half as
# much again: with more features than images it fits the training images perfectly.
LOGISTIC_C = 0.01
"""Inverse penalty of logistic regression on standardised features; no fit searches for it."""

# On BreastMNIST, ImageNet features take mostly 1e-2, pixels and hand-made ones 1e-3; below 1e-4 the
# ranking hardly changes any more, and above 1e-1 nothing was chosen.
TUNED_C = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse penalties that `kind="tuned"` chooses from, by log loss on folds of the training images.

For a comparison of several kinds of features: `LOGISTIC_C` suits those that it was chosen with.
"""

SVM_C = 3.0
"""Penalty of errors of the SVM, chosen as `LOGISTIC_C` was."""

NEIGHBOURS = 15
"""Neighbours asked in k-NN, weighted by nearness (fewer where the set is smaller)."""

_FOLDS = 3
"""Folds of the training images, to fit the SVM's sigmoid and to choose a penalty."""


def probe(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    kind: Kind = "logistic",
    groups: ArrayLike | None = None,
) -> Pipeline:
    """Fit a classifier on standardised features; return it as a scikit-learn pipeline.

    Settings are fixed, but for `"tuned"`: a logistic regression whose penalty is the one of
    `TUNED_C` with the lowest log loss over 3 folds of these very images. Take it to compare kinds
    of features, each at its best. Whatever is chosen or calibrated on folds is so with the scaler
    fitted inside each fold, too. Classes weigh as they come, which keeps probabilities honest. The
    SVM has an RBF kernel and probabilities by Platt's sigmoid over 3 folds. k-NN asks 15 neighbours
    by cosine distance.

    Args:
        features: Finite numbers `(N, F)`.
        labels: Classes `(N,)`, two different ones or more.
        kind: `"logistic"`, `"tuned"`, `"svm"` or `"knn"`.
        groups: `(N,)`; the folds of `"tuned"` and `"svm"` keep them whole. None: each image is its
            own group.

    Returns:
        A fitted pipeline with `predict_proba`; its columns follow `.classes_`.

    Raises:
        ValueError: If shapes disagree, a feature is not finite, there is one class only, folds
            are needed and there are fewer than two images of a class, or `kind` is unknown.

    >>> features = np.array([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.2]])
    >>> probe(features, [0, 0, 1, 1]).predict([[0.0, 0.8]])
    array([0])
    """
    features, labels = _checked(features, labels)
    own = np.arange(len(labels)) if groups is None else np.asarray(groups)
    if own.shape != labels.shape:
        raise ValueError(f"expected a group per image, got {own.shape} for {labels.shape}")
    classifier = _classifier(kind, labels, own)
    # Matrices this small cost more to share among threads than to multiply: on a busy machine
    # with two cores, 546 x 1280 took 870 ms of CPU time on two threads and 17 ms on one.
    with threadpool_limits(1, user_api="blas"):
        fitted = classifier.fit(features, labels)
    pipeline: Pipeline = fitted.best_estimator_ if kind == "tuned" else fitted
    return pipeline


def _classifier(
    kind: str, labels: NDArray[np.generic], groups: NDArray[np.generic]
) -> Pipeline | GridSearchCV:
    """Return what is to be fitted; the scaler stands inside whatever has folds of its own."""
    if kind == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression(C=LOGISTIC_C, max_iter=1000))
    if kind == "tuned":
        scaled = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        penalties = {"logisticregression__C": TUNED_C}
        folds = _folds(labels, groups, kind)
        return GridSearchCV(scaled, penalties, scoring="neg_log_loss", cv=folds)
    if kind == "svm":
        svm = make_pipeline(StandardScaler(), SVC(C=SVM_C))
        # ensemble=False: one machine on all images, only the sigmoid is fitted on folds.
        folds = _folds(labels, groups, kind)
        return make_pipeline(CalibratedClassifierCV(svm, ensemble=False, cv=folds))
    if kind == "knn":
        count = min(NEIGHBOURS, len(labels))
        nearest = KNeighborsClassifier(count, weights="distance", metric="cosine")
        return make_pipeline(StandardScaler(), nearest)
    raise ValueError(f"expected kind 'logistic', 'tuned', 'svm' or 'knn', got {kind!r}")


def _folds(
    labels: NDArray[np.generic], groups: NDArray[np.generic], kind: str
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    alone = np.unique(np.stack([labels, groups]), axis=1)[0]  # a label per group
    classes, counts = np.unique(alone, return_counts=True)
    if counts.min() < 2:
        raise ValueError(
            f"kind {kind!r} needs two images or more of each class, of two groups, found "
            f"{counts.min()} of class {classes[counts.argmin()]}: add images or use kind='logistic'"
        )
    splitter = StratifiedGroupKFold(min(_FOLDS, counts.min()), shuffle=True, random_state=0)
    return list(splitter.split(labels, labels, groups))


def _checked(
    features: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    features, labels = np.asarray(features), np.asarray(labels)
    if features.ndim != 2 or labels.ndim != 1:
        raise ValueError(
            f"expected features (N, F) and labels (N,), got {features.shape} and {labels.shape}: "
            "take means over positions or flatten, such as features.reshape(len(features), -1)"
        )
    if len(features) != len(labels):
        raise ValueError(
            f"expected a label per row, got {len(features)} rows, {len(labels)} labels"
        )
    if not np.isfinite(features).all():
        count = int((~np.isfinite(features)).any(axis=1).sum())
        raise ValueError(f"features must be finite, found NaN or infinity in {count} rows")
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(f"a probe needs two classes or more, found only {present.tolist()}")
    return features, labels
