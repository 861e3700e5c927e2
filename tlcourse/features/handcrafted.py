"""Extract features by hand-made rules, as before deep learning, and a task to build them on.

All take grey or colour images of one size and give `(N, F)` float32. F depends on that size
alone, so that an extractor carries over unchanged from one task to the next.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern

Features = NDArray[np.float32]
Uint8Images = NDArray[np.uint8]

CELL = 8
"""Side of a HOG cell in pixels, as in Dalal and Triggs 2005; likewise 9 orientations, 2 x 2 cells
a block."""
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


def hog_features(images: Uint8Images) -> Features:
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


def texture_statistics(images: Uint8Images) -> Features:
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


def classic_features(images: Uint8Images) -> Features:
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


def _oriented_gradients(image: Uint8Images) -> Features:
    histograms: Features = hog(
        image, orientations=9, pixels_per_cell=(CELL, CELL), cells_per_block=(2, 2)
    )
    return histograms


def _grey(image: Uint8Images) -> Uint8Images:
    if image.ndim == 2:
        return image
    grey: Uint8Images = (255 * rgb2gray(image)).round().astype(np.uint8)
    return grey


def _texture(image: Uint8Images) -> Features:
    values = image / np.float32(255)
    down, right = np.gradient(values)
    edges = np.hypot(down, right)
    gradients = [edges.mean(), edges.std(), *np.percentile(edges, (50, 90))]
    light = [values.mean(), values.std(), *np.percentile(values, _PERCENTILES)]
    return np.concatenate([light, gradients, *_patterns(image), _pairs(image)])


def _patterns(image: Uint8Images) -> list[Features]:
    """Return the shares of the ten uniform patterns of eight neighbours, per radius."""
    codes = [local_binary_pattern(image, 8, radius, method="uniform") for radius in _LBP_RADII]
    return [np.bincount(code.astype(int).ravel(), minlength=10) / code.size for code in codes]


def _pairs(image: Uint8Images) -> Features:
    angles = (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    coarse = image // (256 // _GREY_LEVELS)
    pairs = graycomatrix(
        coarse, _PAIR_DISTANCES, angles, levels=_GREY_LEVELS, symmetric=True, normed=True
    )
    # Angles are averaged: a texture is the same texture when turned.
    return np.concatenate([graycoprops(pairs, name).mean(axis=1) for name in _PAIR_PROPERTIES])


def _each(images: Uint8Images, extract: Callable[[Uint8Images], Features]) -> Features:
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
