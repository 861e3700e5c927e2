"""Say what each stage of a network knows of a task: a probe on its activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import nn

from tlcourse.backbones.hooks import feature_stages
from tlcourse.features.extract import cache_features
from tlcourse.features.probe import probe
from tlcourse.metrics.scores import auc

CHANCE_AUC = 0.5
"""AUC of guessing, whatever the number of classes: that makes scores of tasks comparable."""


def stage_scores(
    features: Mapping[str, ArrayLike],
    labels: ArrayLike,
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> pd.DataFrame:
    """Fit a linear probe at every stage in every fold; return its score on what it did not see.

    The score is the AUC (mean of one against the rest), whose chance level is one half for any
    number of classes, so that tasks may stand in one picture. The probe and its penalty are the
    same at every stage (`probes.probe`). They were chosen on the last one's features: with a
    penalty chosen for each stage (`kind="tuned"`), MobileNetV2's middle stages gained up to .1 AUC
    on edges and .06 on textures, its early ones up to .05 on cancer, and late ones stayed ahead.

    Args:
        features: Stage name to `(N, C)`, as `features.stage_features` gives.
        labels: `(N,)`, from 0 up.
        folds: Pairs of indices, to train on and to judge on; see `datasets.grouped_folds`.

    Returns:
        A row per stage and fold: columns stage, fold, score, chance.

    Raises:
        ValueError: If there is no stage or fold, or a fold judges images that it trained on.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(40) % 2
    >>> table = {"noise": rng.normal(size=(40, 3)), "answer": labels[:, None] + np.zeros((40, 2))}
    >>> folds = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    >>> scores = stage_scores(table, labels, folds)
    >>> scores.loc[scores["stage"] == "answer", "score"].tolist()
    [1.0, 1.0]
    """
    if not features or not len(folds):
        raise ValueError("expected at least one stage and one fold, got none")
    truth, rows = np.asarray(labels), []
    for number, (train, held_out) in enumerate(folds):
        if np.intersect1d(train, held_out).size:
            raise ValueError(f"fold {number} judges images that it trained on: use grouped_folds")
        for stage, values in features.items():
            table = np.asarray(values)
            fitted = probe(table[train], truth[train])
            score = auc(truth[held_out], fitted.predict_proba(table[held_out]))
            rows.append((stage, number, score, CHANCE_AUC))
    return pd.DataFrame(rows, columns=["stage", "fold", "score", "chance"])


def flat_maps(
    model: nn.Module, images: NDArray[np.uint8], *, size: int = 128
) -> dict[str, NDArray[np.float32]]:
    """Return each stage's whole output as one row an image, `(N, C * h * w)`, head excluded.

    For `similarity.cka_by_stage`: two networks may answer alike on average (brighter image,
    larger answers) and still see different things in different places. A stem's maps take much
    memory: 100 images will do.

    Args:
        model: A classifier of torchvision; it is only read.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`.
        size: Side to which images are resized, in pixels.

    >>> from torchvision.models import resnet18
    >>> rows = flat_maps(resnet18(), np.zeros((2, 28, 28), np.uint8), size=32)
    >>> rows["stage2"].shape
    (2, 2048)
    """
    maps = {
        stage: cache_features(model, images, through=stage, size=size, progress=False)
        for stage in feature_stages(model)
    }
    return {stage: values.reshape(len(values), -1) for stage, values in maps.items()}
