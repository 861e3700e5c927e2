"""Lay out pictures: grids of axes, frames, colour scales, montages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from tlcourse.plots.style import WIDTH, canvas, sheet

SIGNED, UNSIGNED = "PuOr_r", "viridis"
"""Colour maps: with a white zero where values have signs, perceptually uniform where not."""


def pictures_of(images: ArrayLike) -> NDArray[Any]:
    """Return images as `(N, H, W)` or `(N, H, W, 3)` floats in 0..1."""
    stack = np.asarray(images)
    if stack.ndim not in (3, 4) or (stack.ndim == 4 and stack.shape[3] != 3) or not stack.size:
        raise ValueError(f"expected images (N, H, W) or (N, H, W, 3), got {stack.shape}")
    if stack.dtype == np.uint8:
        return stack / 255.0
    if not np.issubdtype(stack.dtype, np.floating):
        raise ValueError(f"expected images of uint8 or floats in 0..1, got {stack.dtype}")
    if not (stack.min() >= 0 and stack.max() <= 1):
        raise ValueError(f"float images must lie in 0..1, found {stack.min():g}..{stack.max():g}")
    return stack


def picture_of(image: ArrayLike) -> NDArray[Any]:
    """Return one image as `(H, W)` or `(H, W, 3)` floats in 0..1."""
    picture: NDArray[Any] = pictures_of(np.asarray(image)[None])[0]
    return picture


def responses_of(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Return one image's maps as floats `(C, h, w)`, or say what `what` should have been."""
    maps = np.asarray(values, dtype=float)
    if maps.ndim != 3 or not maps.size:
        raise ValueError(f"expected {what} (C, h, w), got {maps.shape}: pass one image's")
    return maps


def grid(rows: int, cols: int, row_height: float, title: str) -> tuple[Figure, NDArray[Any]]:
    """Return a new figure under `title` and its axes `(rows, cols)`, `row_height` inches a row."""
    if rows < 1 or cols < 1:
        raise ValueError(f"rows and cols must be at least 1, got {rows} x {cols}")
    figure = sheet(title, rows * row_height + 0.36)
    return figure, figure.subplots(rows, cols, squeeze=False)


def framed(
    ax: Axes, picture: NDArray[Any], shade: str = "#999999", width: float = 0.8, **look: Any
) -> None:
    """Draw a picture without ticks, in a frame of colour `shade` and `width` points."""
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1}
    ax.imshow(picture, **(look or (grey if picture.ndim == 2 else {})))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color=shade, linewidth=width)


def scale(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return colour map and limits that fit `values`, for `imshow`."""
    # A white zero only where there are both signs; one stray pixel must not flatten the rest.
    high = float(np.quantile(np.abs(values), 0.995)) or 1.0
    if values.min() < 0:
        return {"cmap": SIGNED, "vmin": -high, "vmax": high}
    return {"cmap": UNSIGNED, "vmin": 0.0, "vmax": high}


def montage(tiles: NDArray[Any], cols: int, title: str) -> Axes:
    """Draw tiles `(K, h, w[, 3])` as one picture with white gaps, each tile one unit wide."""
    if tiles.ndim == 3:
        tiles = np.repeat(tiles[..., None], 3, axis=3)
    rows = -(-len(tiles) // cols)
    ax = canvas(title, height=0.75 + (WIDTH - 0.9) / max(cols, 6) * rows)
    ax.set_aspect("equal", anchor="W")
    for i, tile in enumerate(tiles):
        row, col = divmod(i, cols)
        ax.imshow(
            tile, extent=(col + 0.04, col + 0.96, row + 0.96, row + 0.04), interpolation="nearest"
        )
    ax.set(xlim=(0, cols), ylim=(rows, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def row_names(ax: Axes, names: Sequence[str]) -> None:
    """Write a name left of every row of a montage."""
    ax.set_yticks(np.arange(len(names)) + 0.5, labels=list(names))
    ax.tick_params(axis="y", length=0)
