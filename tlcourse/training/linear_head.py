"""Train heads on features that were computed once: many seeds and recipes for little time.

A frozen backbone gives an image the same features in every epoch. So they are extracted once
(`tlcourse.features.extract_features`), and each training runs no network but the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from tlcourse.datasets.base import Split
from tlcourse.datasets.splits import grouped_folds
from tlcourse.features.probe import probe
from tlcourse.loaders.batches import TrainingBatches
from tlcourse.metrics.scores import accuracy, auc, balanced_accuracy, confusion, log_loss
from tlcourse.runtime import seeded
from tlcourse.training.fit import train_epoch

Features = NDArray[np.float32]
PROBE = "logistic probe"


def train_head(
    features: Features,
    labels: NDArray[np.int64],
    *,
    epochs: int = 10,
    lr: float = 1e-3,
    momentum: float = 0.9,
    balanced: bool = False,
    batch_size: int = 32,
    seed: int = 0,
) -> nn.Linear:
    """Train a linear head by SGD and cross-entropy, as the last layer of a frozen network.

    Args:
        features: float32 `(N, F)`, the input of the head.
        labels: `(N,)`, each class from 0 to C - 1 present.
        epochs: Times that every row is seen; 0 returns the untrained head.
        lr: Learning rate.
        momentum: Momentum of SGD.
        balanced: Whether the loss weighs each class by N / (C * images of the class).
        batch_size: Rows in a batch, at least 2.
        seed: Seed of first weights and order.

    Raises:
        ValueError: If rows and labels disagree, a class is missing or `epochs` is below 0.

    >>> rows = np.array([[0.0, 1.0], [1.0, 0.0]] * 8, np.float32)
    >>> head = train_head(rows, np.array([0, 1] * 8), epochs=20, lr=0.1)
    >>> head_probabilities(head, rows).argmax(axis=1)[:4].tolist()
    [0, 1, 0, 1]
    """
    classes = _checked_classes(features, labels, epochs)
    weights = compute_class_weight("balanced", classes=classes, y=labels) if balanced else None
    loss = nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights).float())
    with seeded(seed):
        head = nn.Linear(features.shape[1], len(classes))
    optimizer = torch.optim.SGD(head.parameters(), lr=lr, momentum=momentum)
    batches = TrainingBatches(_Rows(features), labels, batch_size, seed=seed)
    for _ in range(epochs):
        train_epoch(head, batches, loss, optimizer)
    return head.eval()


def head_probabilities(head: nn.Linear, features: Features) -> NDArray[np.float64]:
    """Return the probabilities `(N, C)` that a head gives to features `(N, F)`.

    >>> head_probabilities(nn.Linear(3, 2), np.zeros((4, 3), np.float32)).shape
    (4, 2)
    """
    with torch.inference_mode():
        logits = head(torch.tensor(features))
    return np.asarray(logits.double().softmax(dim=1).numpy())


def first_losses(
    features: Features, labels: ArrayLike, num_classes: int, *, seeds: Iterable[int] = range(10)
) -> NDArray[np.float64]:
    """Return the cross-entropy in nats of untrained heads, one per seed: about ln `num_classes`.

    Args:
        features: float32 `(N, F)`.
        labels: `(N,)`, from 0 to `num_classes` - 1.
        num_classes: Answers of the heads.
        seeds: Seeds of the heads' first weights.

    >>> rows = np.zeros((4, 3), np.float32)
    >>> bool(abs(first_losses(rows, [0, 1, 0, 1], 2) - np.log(2)).max() < 0.5)
    True
    """
    losses = []
    for seed in seeds:
        with seeded(seed):
            head = nn.Linear(features.shape[1], num_classes)
        losses.append(log_loss(labels, head_probabilities(head, features)))
    return np.array(losses)


def compare_heads(
    features: Features,
    part: Split,
    recipes: Mapping[str, Mapping[str, Any]],
    *,
    folds: int = 5,
    splits: int = 2,
    with_probe: bool = False,
) -> pd.DataFrame:
    """Train heads by several recipes on the same folds and seeds; score them on held-out images.

    Args:
        features: float32 `(N, F)` of the images of `part`.
        part: Labels and groups; groups are never parted.
        recipes: Arguments of `train_head` by name.
        folds: Folds in each dealing.
        splits: Times that the images are dealt anew.
        with_probe: Whether to add rows of `tlcourse.features.probe.probe`, named "logistic probe".

    Returns:
        A row per recipe, dealing and fold: `recipe`, `split`, `fold`, `auc`, `sensitivity`
        (share found of class 0, at probability one half), `specificity`, `balanced_accuracy`,
        `accuracy`. Rows of one dealing and fold share training images and first weights.

    >>> part = Split(np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2)
    >>> rows = np.eye(2, dtype=np.float32)[part.labels]
    >>> table = compare_heads(rows, part, {"short": {"epochs": 1}}, folds=2, splits=1)
    >>> len(table)
    2
    """
    scores = []
    for split in range(splits):
        for fold, (train, held_out) in enumerate(grouped_folds(part, folds, seed=split)):
            where = {"dealing": split, "fold": fold}
            there, labels, seen = features[train], part.labels[train], features[held_out]
            probs_of = {}
            for name, recipe in recipes.items():
                head = train_head(there, labels, seed=split * folds + fold, **recipe)
                probs_of[name] = head_probabilities(head, seen)
            if with_probe:
                probs_of[PROBE] = probe(there, labels).predict_proba(seen)
            for name, probs in probs_of.items():
                scores.append(
                    {"recipe": name, **where, **head_scores(part.labels[held_out], probs)}
                )
    return pd.DataFrame(scores)


def head_scores(labels: ArrayLike, probs: ArrayLike) -> dict[str, float]:
    """Score answers: AUC, sensitivity and specificity for class 0, balanced accuracy, accuracy.

    >>> head_scores([0, 1], [[0.4, 0.6], [0.2, 0.8]])["sensitivity"]
    0.0
    """
    table = confusion(labels, probs)
    return {
        "auc": auc(labels, probs),
        "sensitivity": float(table[0, 0] / table[0].sum()),
        "specificity": float(table[1:, 1:].sum() / table[1:].sum()),
        "balanced_accuracy": balanced_accuracy(labels, probs),
        "accuracy": accuracy(labels, probs),
    }


class _Rows:
    """Features that batches are drawn from."""

    def __init__(self, features: Features) -> None:
        self._rows = torch.tensor(features)
        self.view = 0

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: Tensor) -> Tensor:
        return self._rows[indices]


def _checked_classes(
    features: Features, labels: NDArray[np.int64], epochs: int
) -> NDArray[np.int64]:
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(
            f"expected features (N, F) and labels (N,), got {features.shape} and {labels.shape}"
        )
    classes = np.unique(labels)
    if len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes))):
        raise ValueError(
            f"expected labels from 0 up, two classes or more, each present; got {classes.tolist()}"
        )
    if epochs < 0:
        raise ValueError(f"expected epochs of 0 or more, got {epochs}")
    return classes
