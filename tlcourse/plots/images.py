"""Draw images: with their classes, as patches, under a heat map."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from tlcourse.plots.grids import (
    framed,
    grid,
    montage,
    picture_of,
    pictures_of,
    row_names,
    scale,
)
from tlcourse.plots.style import WIDTH, colours_for, course_style, ink


@course_style()
def image_grid(
    images: ArrayLike,
    labels: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    *,
    rows: int,
    cols: int,
    title: str,
    captions: Sequence[str] | None = None,
) -> NDArray[Any]:
    """Draw images in rows, each in a frame of its class's colour with the class's name below.

    Args:
        images: `(N, H, W)` or `(N, H, W, 3)`, uint8 or floats in 0..1; N at most rows * cols.
        labels: `(N,)`; needs `classes`.
        classes: Class names; needs `labels`.
        rows: Rows of the grid.
        cols: Columns of the grid.
        title: What the images show.
        captions: N texts, a line below each image's class.

    Returns:
        The axes, shape `(rows, cols)`; those without an image are hidden.

    Raises:
        ValueError: If shapes disagree or the images do not fit the grid.

    >>> axes = image_grid(np.zeros((2, 8, 8), np.uint8), [0, 1], ["malignant", "benign"],
    ...                   rows=1, cols=2, title="Two lesions")
    >>> [ax.get_xlabel() for ax in axes.ravel()]
    ['malignant', 'benign']
    """
    pictures = pictures_of(images)
    names = _class_names(len(pictures), labels, classes)
    if len(pictures) > rows * cols:
        raise ValueError(f"{len(pictures)} images do not fit {rows} x {cols}: pass fewer of them")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"expected {len(pictures)} captions, one per image, got {len(captions)}")
    shades = colours_for(classes or [])
    letters = max(8, int(WIDTH / cols / 0.085))
    texts = [_below(name, captions, i, letters) for i, name in enumerate(names)]
    lines = max(text.count("\n") + 1 if text else 0 for text in texts)
    tile = (WIDTH / cols - 0.09) * pictures.shape[1] / pictures.shape[2]
    _, axes = grid(rows, cols, tile + 0.08 + 0.165 * lines, title)
    for ax, picture, name, text in zip(axes.ravel(), pictures, names, texts, strict=False):
        framed(ax, picture, shades.get(name, "#999999"), 3.5 if name else 0.8)
        ax.set_xlabel(text, fontsize=9.5, color=ink(shades.get(name, "#000000")), labelpad=3)
    for ax in axes.ravel()[len(pictures) :]:
        ax.set_visible(False)
    return axes


@course_style()
def patch_grid(patches: Mapping[str, ArrayLike], *, title: str) -> Axes:
    """Draw the patches that excite channels most, a row per channel by name.

    Args:
        patches: `(K, h, w)` or `(K, h, w, 3)` by name, uint8 or floats in 0..1, strongest first;
            all of one shape.
        title: What the patches show.

    Raises:
        ValueError: If shapes disagree.

    >>> patch_grid({"channel 3": np.zeros((9, 6, 6))}, title="What it looks for").get_xlabel()
    'patches of 6 x 6 pixels, strongest response first'
    """
    blocks = [pictures_of(block) for block in patches.values()]
    if len({block.shape for block in blocks}) != 1:
        raise ValueError(f"rows need patches of one shape, got {[b.shape for b in blocks]}")
    count, height, width = blocks[0].shape[:3]
    ax = montage(np.concatenate(blocks), count, title)
    ax.set_xlabel(f"patches of {height} x {width} pixels, strongest response first", loc="left")
    row_names(ax, [textwrap.fill(name, 14) for name in patches])
    return ax


@course_style()
def heat_map(image: ArrayLike, heat: ArrayLike, *, title: str, label: str) -> NDArray[Any]:
    """Draw an image and beside it the same image under a map of what mattered, with its scale.

    Args:
        image: `(H, W)` or `(H, W, 3)`, uint8 or floats in 0..1.
        heat: `(h, w)`, stretched over the image.
        title: What the map shows.
        label: What the colours measure, with its unit.

    Returns:
        The two axes, shape `(2,)`.

    Raises:
        ValueError: If shapes disagree or `label` is empty.

    >>> axes = heat_map(np.zeros((8, 8)), np.eye(4), title="A diagonal", label="fall of p")
    >>> [ax.get_xlabel() for ax in axes]
    ['image, 8 x 8 pixels', 'under the map']
    """
    picture, values = picture_of(image), np.asarray(heat, dtype=float)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"expected a finite map (h, w), got {values.shape}")
    if not label.strip():
        raise ValueError("label must say what the colours measure")
    figure, axes = grid(1, 2, 3.35, title)
    height, width = picture.shape[:2]
    for ax in axes[0]:
        framed(ax, picture)
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    smooth = axes[0, 1].imshow(
        values, extent=extent, alpha=0.55, interpolation="bilinear", **scale(values)
    )
    axes[0, 0].set_xlabel(f"image, {height} x {width} pixels")
    axes[0, 1].set_xlabel("under the map")
    figure.colorbar(smooth, ax=axes[0, 1], fraction=0.046, pad=0.03).set_label(label)
    return axes[0]  # type: ignore[no-any-return]


def _class_names(count: int, labels: ArrayLike | None, classes: Sequence[str] | None) -> list[str]:
    if (labels is None) != (classes is None):
        raise ValueError("labels and classes go together: pass both or neither")
    if labels is None or classes is None:
        return [""] * count
    numbers = np.asarray(labels)
    if numbers.shape != (count,):
        raise ValueError(f"expected labels ({count},), one per image, got {numbers.shape}")
    if not 0 <= numbers.min() <= numbers.max() < len(classes):
        raise ValueError(f"labels must lie in 0..{len(classes) - 1}, the classes named")
    return [classes[int(number)] for number in numbers]


def _below(name: str, captions: Sequence[str] | None, i: int, letters: int) -> str:
    parts = [name, captions[i] if captions is not None else ""]
    return "\n".join(textwrap.fill(part, letters) for part in parts if part)
