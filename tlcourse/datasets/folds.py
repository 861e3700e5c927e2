"""Deal a part into folds: every image judged once, groups kept whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlcourse.datasets.imagesets import Split

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def grouped_folds(part: Split, folds: int = 5, *, seed: int = 0) -> list[Fold]:
    """Return `folds` pairs of indices (to train on, to judge on), stratified by label.

    Images of one group are always on the same side, so that no patient or near copy is judged by
    a network that trained on it. Every image is judged in exactly one fold.

    Args:
        part: Images with labels and groups.
        folds: Number of folds, at least 2.
        seed: What the dealing starts from.

    Raises:
        ValueError: If `folds` is below 2 or a class has fewer groups than there are folds.

    >>> part = Split(np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2, np.arange(20) // 2 * 3)
    >>> [(len(train), len(judged)) for train, judged in grouped_folds(part, 5)]
    [(16, 4), (16, 4), (16, 4), (16, 4), (16, 4)]
    """
    if folds < 2:
        raise ValueError(f"expected at least 2 folds, got {folds}")
    for label in np.unique(part.labels):
        groups = len(np.unique(part.groups[part.labels == label]))
        if groups < folds:
            raise ValueError(
                f"{folds} folds need {folds} independent groups of each class; "
                f"label {label} has {groups}: ask for fewer folds"
            )
    # Here and not above: it takes as long to import as all else that reads and divides images.
    from sklearn.model_selection import StratifiedGroupKFold

    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(dealer.split(part.labels, part.labels, part.groups))
