"""Extract features by hand-made rules, as before deep learning, and a task to build them on.

All take grey or colour images of one size and give `(N, F)` float32. F depends on that size
alone, so that an extractor carries over unchanged from one task to the next.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage import data as photographs
from skimage.color import rgb2gray
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern

from tlcourse.datasets import ImageSet, Split

Features = NDArray[np.float32]
Images = NDArray[np.uint8]

CELL = 8
"""Side of a HOG cell in pixels, as in Dalal and Triggs 2005; likewise 9 orientations, 2 x 2 cells
a block."""

TEXTURES = ("brick", "grass", "gravel")
"""Photographs that scikit-image carries, each 512 x 512, grey, CC0."""

_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_LBP_RADII = (1, 3)
_GREY_LEVELS = 16
_PAIR_DISTANCES = (1, 3)
_PAIR_PROPERTIES = ("contrast", "homogeneity", "energy", "correlation")

TEXTURE_NAMES = (
    "mean",
    "spread",
    *(f"percentile {p}" for p in _PERCENTILES),
    *(f"gradient {what}" for what in ("mean", "spread", "median", "percentile 90")),
    *(f"pattern {code} at {radius} px" for radius in _LBP_RADII for code in range(10)),
    *(f"pair {name} at {d} px" for name in _PAIR_PROPERTIES for d in _PAIR_DISTANCES),
)
"""Names of the columns of `texture_statistics`."""


def hog_features(images: Images) -> Features:
    """Return histograms of oriented gradients (Dalal and Triggs 2005): edges, cell by cell.

    Args:
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`, at least 16 x 16.

    Raises:
        TypeError: If `images` are not uint8.
        ValueError: If the shape is another.

    >>> hog_features(np.zeros((2, 64, 64), np.uint8)).shape
    (2, 1764)
    """
    return _each(images, _oriented_gradients)


def texture_statistics(images: Images) -> Features:
    """Return statistics of brightness, gradients and local patterns, wherever in the image.

    Brightness percentiles; strength of gradients; uniform local binary patterns (Ojala et al.
    2002) at two radii; contrast, homogeneity, energy and correlation of grey-level pairs
    (Haralick et al. 1973) at two distances. `TEXTURE_NAMES` names the columns.

    Args:
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`, at least 16 x 16.

    Raises:
        TypeError: If `images` are not uint8.
        ValueError: If the shape is another.

    >>> texture_statistics(np.zeros((2, 64, 64), np.uint8)).shape == (2, len(TEXTURE_NAMES))
    True
    """
    return _each(images, _texture)


def classic_features(images: Images) -> Features:
    """Return `hog_features` and `texture_statistics` side by side.

    Args:
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`, at least 16 x 16.

    Raises:
        TypeError: If `images` are not uint8.
        ValueError: If the shape is another.

    >>> classic_features(np.zeros((2, 32, 32), np.uint8)).shape
    (2, 365)
    """
    return np.concatenate([hog_features(images), texture_statistics(images)], axis=1)


def photo_textures(
    n: int = 600, *, size: int = 64, seed: int = 0, vary_light: bool = True
) -> ImageSet:
    """Cut patches from photographs of brick, grass and gravel: a task far from medicine.

    Training patches come from the left half of each photograph, test patches from the upper and
    validation patches from the lower quarter of the right half, 70, 20 and 10 in a hundred.
    Within a part patches may overlap.

    Args:
        n: Number of patches, 30 or more.
        size: Side in pixels, 16 to 256.
        seed: Seed of places and light.
        vary_light: Give each patch a mean and a spread at random, so that brightness and contrast
            do not tell the class.

    Raises:
        ValueError: If `n` or `size` is out of range.

    >>> textures = photo_textures(60, size=32)
    >>> len(textures.train), len(textures.test), textures.classes
    (42, 12, ('brick', 'grass', 'gravel'))
    """
    if n < 30 or not 2 * CELL <= size <= 256:
        raise ValueError(f"expected n of 30 or more and size 16..256, got n={n}, size={size}")
    rng = np.random.default_rng(seed)
    places = {"train": (0, 512, 0), "test": (0, 256, 256), "val": (256, 512, 256)}
    counts = {"val": round(0.1 * n), "test": round(0.2 * n)}
    counts["train"] = n - counts["val"] - counts["test"]
    parts = {
        part: _part(place, counts[part], size, rng, vary_light, group)
        for group, (part, place) in enumerate(places.items())
    }
    return ImageSet(
        name="photo textures",
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        classes=TEXTURES,
        source="patches of brick, grass and gravel from scikit-image's own photographs",
        license="CC0",
        citation="van der Walt et al., scikit-image: image processing in Python, PeerJ 2 (2014)",
        partition="grouped",
    )


def _part(
    place: tuple[int, int, int],
    count: int,
    size: int,
    rng: np.random.Generator,
    vary_light: bool,
    group: int,
) -> Split:
    top, bottom, left = place
    labels = rng.permutation(np.arange(count) % len(TEXTURES))
    rows = rng.integers(top, bottom - size + 1, count)
    columns = rng.integers(left, left + 256 - size + 1, count)
    scenes = np.stack([getattr(photographs, name)() for name in TEXTURES])
    patches = np.stack(
        [
            scenes[label, row : row + size, column : column + size]
            for label, row, column in zip(labels, rows, columns, strict=True)
        ]
    )
    factors = pd.DataFrame({"texture": labels, "row": rows, "column": columns})
    if vary_light:
        factors["brightness"] = rng.uniform(90, 165, count)
        factors["spread"] = rng.uniform(15, 45, count)
        patches = _relit(patches, factors["brightness"], factors["spread"])
    factors["texture"] = np.asarray(TEXTURES)[labels]
    groups = (labels * 3 + group).astype(np.int64)
    return Split(images=patches, labels=labels.astype(np.int64), groups=groups, factors=factors)


def _relit(patches: Images, means: pd.Series[float], spreads: pd.Series[float]) -> Images:
    values = patches.astype(np.float64)
    values -= values.mean(axis=(1, 2), keepdims=True)
    values /= values.std(axis=(1, 2), keepdims=True)
    light, contrast = means.to_numpy()[:, None, None], spreads.to_numpy()[:, None, None]
    return np.clip(values * contrast + light, 0, 255).round().astype(np.uint8)


def _oriented_gradients(image: Images) -> Features:
    histograms: Features = hog(
        image, orientations=9, pixels_per_cell=(CELL, CELL), cells_per_block=(2, 2)
    )
    return histograms


def _grey(image: Images) -> Images:
    if image.ndim == 2:
        return image
    grey: Images = (255 * rgb2gray(image)).round().astype(np.uint8)
    return grey


def _texture(image: Images) -> Features:
    values = image / np.float32(255)
    down, right = np.gradient(values)
    edges = np.hypot(down, right)
    gradients = [edges.mean(), edges.std(), *np.percentile(edges, (50, 90))]
    light = [values.mean(), values.std(), *np.percentile(values, _PERCENTILES)]
    return np.concatenate([light, gradients, *_patterns(image), _pairs(image)])


def _patterns(image: Images) -> list[Features]:
    """Return the shares of the ten uniform patterns of eight neighbours, per radius."""
    codes = [local_binary_pattern(image, 8, radius, method="uniform") for radius in _LBP_RADII]
    return [np.bincount(code.astype(int).ravel(), minlength=10) / code.size for code in codes]


def _pairs(image: Images) -> Features:
    angles = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    coarse = image // (256 // _GREY_LEVELS)
    pairs = graycomatrix(
        coarse, _PAIR_DISTANCES, angles, levels=_GREY_LEVELS, symmetric=True, normed=True
    )
    # Angles are averaged: a texture is the same texture when turned.
    return np.concatenate([graycoprops(pairs, name).mean(axis=1) for name in _PAIR_PROPERTIES])


def _each(images: Images, extract: Callable[[Images], Features]) -> Features:
    if getattr(images, "dtype", None) != np.uint8:
        found = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"expected uint8 images with values 0..255, got {found}")
    grey = images.ndim == 3
    colour = images.ndim == 4 and images.shape[3] == 3
    if not (grey or colour) or len(images) == 0 or min(images.shape[1:3]) < 2 * CELL:
        raise ValueError(
            "expected images (N, H, W) or (N, H, W, 3), N of 1 or more, H and W of "
            f"{2 * CELL} or more, got {images.shape}"
        )
    rows = (extract(_grey(image)) for image in images)
    return np.stack([row.astype(np.float32) for row in rows])
