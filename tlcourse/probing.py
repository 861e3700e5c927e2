"""Ask every stage of a network the same question: tasks of known level, a probe per stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from skimage import data as photographs
from torch import nn

from tlcourse.classic import photo_textures
from tlcourse.datasets import Split
from tlcourse.datasets.imagesets import join
from tlcourse.features import cache_features
from tlcourse.metrics import auc
from tlcourse.observe import feature_stages
from tlcourse.probes import probe

CHANCE = 0.5
"""AUC of guessing, whatever the number of classes: that makes scores of tasks comparable."""


def edge_orientations(
    n: int = 240, *, size: int = 64, orientations: int = 8, noise: float = 20.0, seed: int = 0
) -> Split:
    """Draw one noisy edge an image; its orientation is the label, and nothing else helps.

    Label k is an edge turned by k * 180 / `orientations` degrees from the vertical. Which side is
    brighter, the edge's place, contrast and the mean brightness are drawn at random, and every
    pixel gets normal noise.

    Args:
        n: Number of images, at least one per orientation.
        size: Side in pixels, 8 or more.
        orientations: Number of classes, 2 or more.
        noise: Standard deviation of the noise in grey levels; the edge's step is 20 to 80.
        seed: Seed of all draws.

    Raises:
        ValueError: If an argument is out of range.

    >>> task = edge_orientations(16, size=32)
    >>> task.images.shape, np.bincount(task.labels).tolist()
    ((16, 32, 32), [2, 2, 2, 2, 2, 2, 2, 2])
    """
    if orientations < 2 or n < orientations or size < 8 or noise < 0:
        raise ValueError(
            "expected 2 orientations or more, n at least as many, size of 8 or more and noise not "
            f"negative, got orientations={orientations}, n={n}, size={size}, noise={noise}"
        )
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % orientations).astype(np.int64)
    factors = pd.DataFrame(
        {
            "angle": labels * 180 / orientations,
            "offset": rng.uniform(-size / 4, size / 4, n),
            "contrast": rng.uniform(10, 40, n) * rng.choice([-1, 1], n),
            "brightness": rng.uniform(90, 165, n),
        }
    )
    images = _edges(factors, size) + noise * rng.standard_normal((n, size, size))
    return Split(np.clip(images, 0, 255).round().astype(np.uint8), labels, factors=factors)


def edge_pair(size: int = 64) -> NDArray[np.uint8]:
    """Return a vertical and a horizontal edge, dark beside bright, `(2, size, size)`.

    Each is the other's transpose, so that a filter's two answers differ by orientation alone.

    Args:
        size: Side in pixels, 2 or more.

    >>> vertical, horizontal = edge_pair(4)
    >>> vertical[0].tolist(), horizontal[0].tolist()
    ([90, 90, 165, 165], [90, 90, 90, 90])
    """
    vertical = np.full((size, size), 90, np.uint8)
    vertical[:, size // 2 :] = 165
    return np.stack([vertical, vertical.T])


def texture_patches(n: int = 240, *, size: int = 16, seed: int = 0) -> Split:
    """Return small patches of brick, grass and gravel, grouped by their place in the photograph.

    The patches of `classic.photo_textures`, all parts in one. Each photograph has three places, so
    that `datasets.grouped_folds` can deal three folds which never judge a place they trained on.

    Args:
        n: Number of patches, 30 or more.
        size: Side in pixels, 16 to 256: the smaller, the harder.
        seed: Seed of places and light.

    Raises:
        ValueError: If `n` or `size` is out of range.

    >>> patches = texture_patches(60)
    >>> len(patches), len(np.unique(patches.groups))
    (60, 9)
    """
    patches = photo_textures(n, size=size, seed=seed)
    return join(patches.development, patches.test)


def photograph(name: str = "astronaut", *, size: int = 256) -> NDArray[np.uint8]:
    """Return the middle square of a colour photograph that scikit-image carries, `(S, S, 3)`.

    Args:
        name: `"astronaut"`, `"chelsea"` (a cat) or `"coffee"`.
        size: Largest side in pixels; the picture is thinned out to at most that.

    Raises:
        ValueError: If the name is another or `size` is below 8.

    >>> photograph(size=128).shape
    (128, 128, 3)
    """
    known = ("astronaut", "chelsea", "coffee")
    if name not in known or size < 8:
        raise ValueError(f"expected one of {known} and a size of 8 or more, got {name!r}, {size}")
    picture = getattr(photographs, name)()
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    square = picture[top : top + side, left : left + side]
    places = np.linspace(0, side - 1, min(size, side)).round().astype(int)
    thinned: NDArray[np.uint8] = square[np.ix_(places, places)]
    return thinned


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
    for number, (train, judged) in enumerate(folds):
        if np.intersect1d(train, judged).size:
            raise ValueError(f"fold {number} judges images that it trained on: use grouped_folds")
        for stage, values in features.items():
            table = np.asarray(values)
            fitted = probe(table[train], truth[train])
            score = auc(truth[judged], fitted.predict_proba(table[judged]))
            rows.append((stage, number, score, CHANCE))
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


def _edges(factors: pd.DataFrame, size: int) -> NDArray[np.float64]:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    angle, offset, contrast, brightness = (
        factors[name].to_numpy()[:, None, None]
        for name in ("angle", "offset", "contrast", "brightness")
    )
    turned = np.radians(angle)
    across = columns * np.cos(turned) + rows * np.sin(turned) - offset
    # A ramp of about three pixels: a step drawn on pixels would show stairs at slanted angles.
    edges: NDArray[np.float64] = brightness + contrast * np.tanh(across / 1.5)
    return edges
