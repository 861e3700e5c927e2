"""Small tasks with a known answer: which way an edge runs, which texture a patch shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage import data as photographs

from tlcourse.datasets.base import ImageSet, Split, join


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

    The patches of `photo_textures`, all parts in one. Each photograph has three places, so
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


TEXTURES = ("brick", "grass", "gravel")
"""Photographs that scikit-image carries, each 512 x 512, grey, CC0."""


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
    if n < 30 or not 16 <= size <= 256:
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


def _relit(
    patches: NDArray[np.uint8], means: pd.Series[float], spreads: pd.Series[float]
) -> NDArray[np.uint8]:
    values = patches.astype(np.float64)
    values -= values.mean(axis=(1, 2), keepdims=True)
    values /= values.std(axis=(1, 2), keepdims=True)
    light, contrast = means.to_numpy()[:, None, None], spreads.to_numpy()[:, None, None]
    return np.clip(values * contrast + light, 0, 255).round().astype(np.uint8)
