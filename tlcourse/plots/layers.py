"""Draw what a network's layers hold and answer: filters, responses, activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from tlcourse.plots.grids import framed, grid, montage, picture_of, responses_of, row_names, scale
from tlcourse.plots.style import WIDTH, course_style

DEAD = 0.1
"""Share of the largest weight of all filters below which a filter is not brightened further."""


@course_style()
def filters_grid(filters: ArrayLike, *, title: str) -> Axes:
    """Draw the filters of a first layer as small colour pictures, in rows of up to 16.

    Each filter is scaled by its own largest weight, zero as mid grey. One whose weights are all
    tiny beside those of the others is dead, answers nothing, and comes out plain grey.

    Args:
        filters: `(K, 3, h, w)`.
        title: What the filters show.

    Raises:
        ValueError: If the shape is another.

    >>> filters_grid(np.zeros((4, 3, 5, 5)), title="Nothing learned").get_xlabel()
    'red, green and blue weights of each filter, zero is mid grey; 5 x 5 pixels'
    """
    weights = np.asarray(filters, dtype=float)
    if weights.ndim != 4 or weights.shape[1] != 3:
        raise ValueError(f"expected filters (K, 3, h, w), got {weights.shape}")
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    largest = np.maximum(largest, DEAD * largest.max(initial=0))
    scaled = 0.5 + 0.5 * weights / np.where(largest > 0, largest, 1)
    cols = 16 if len(weights) > 32 else min(len(weights), 8)
    size = f"{weights.shape[2]} x {weights.shape[3]} pixels"
    ax = montage(scaled.transpose(0, 2, 3, 1), cols, title)
    ax.set_xlabel(
        f"red, green and blue weights of each filter, zero is mid grey; {size}", loc="left"
    )
    ax.set_ylabel("filters, by number")
    firsts = range(0, len(weights), cols)
    row_names(ax, [f"{i} to {min(i + cols, len(weights)) - 1}" for i in firsts])
    return ax


@course_style()
def response_grid(
    image: ArrayLike, responses: ArrayLike, channels: Sequence[int], *, title: str, cols: int = 5
) -> NDArray[Any]:
    """Draw an image and what chosen channels answer to it, all on one colour scale.

    Args:
        image: `(H, W)` or `(H, W, 3)`, uint8 or floats in 0..1.
        responses: `(C, h, w)` of this image.
        channels: Which of the C channels.
        title: What the responses show.
        cols: Pictures per row.

    Returns:
        The axes in use, the image's first, shape `(1 + len(channels),)`.

    Raises:
        ValueError: If shapes disagree or a channel does not exist.

    >>> axes = response_grid(np.zeros((8, 8)), np.ones((3, 4, 4)), [0, 2], title="Two answers")
    >>> [ax.get_title() for ax in axes]
    ['image', 'channel 0', 'channel 2']
    """
    maps = responses_of(responses, "responses")
    wrong = [c for c in channels if not 0 <= c < len(maps)]
    if wrong or not len(channels):
        raise ValueError(f"channels must name some of 0..{len(maps) - 1}, got {list(channels)}")
    count = 1 + len(channels)
    cols = min(cols, count)
    figure, axes = grid(-(-count // cols), cols, (WIDTH - 0.9) / cols + 0.32, title)
    shown = axes.ravel()[:count]
    framed(shown[0], picture_of(image))
    shown[0].set_title("image")
    look = scale(maps[list(channels)])
    for ax, channel in zip(shown[1:], channels, strict=True):
        framed(ax, maps[channel], **look)
        ax.set_title(f"channel {channel}")
    for ax in axes.ravel()[count:]:
        ax.set_visible(False)
    bar = figure.colorbar(shown[1].images[0], ax=axes.ravel().tolist(), fraction=0.04, pad=0.01)
    bar.set_label("response (no unit)")
    return shown


@course_style()
def activation_stages(
    image: ArrayLike, activations: Mapping[str, ArrayLike], *, title: str, channels: int = 3
) -> NDArray[Any]:
    """Draw the channels that vary most over the image, stage by stage, with the maps' sizes.

    Each map has its own scale: what is bright says where a channel answers, not how much.

    Args:
        image: `(H, W)` or `(H, W, 3)`, uint8 or floats in 0..1.
        activations: `(C, h, w)` of this image per stage, in the order of the network.
        title: What the activations show.
        channels: How many channels per stage.

    Returns:
        The axes, shape `(channels, 1 + stages)`; the image stands in the first.

    Raises:
        ValueError: If shapes disagree.

    >>> maps = {"stem": np.random.default_rng(0).random((4, 8, 8)), "stage1": np.ones((4, 2, 2))}
    >>> activation_stages(np.zeros((8, 8)), maps, title="Coarser and coarser", channels=2).shape
    (2, 3)
    """
    if not activations or channels < 1:
        raise ValueError("expected at least one stage and one channel")
    maps = {
        stage: responses_of(values, f"stage {stage!r}") for stage, values in activations.items()
    }
    cols = 1 + len(maps)
    _, axes = grid(channels, cols, WIDTH / cols + 0.2, title)
    framed(axes[0, 0], picture_of(image))
    axes[0, 0].set_title("image", fontsize=10)
    for column, (stage, values) in zip(axes.T[1:], maps.items(), strict=True):
        strongest = np.argsort(-values.std(axis=(1, 2)), kind="stable")[:channels]
        for ax, channel in zip(column, strongest, strict=False):
            framed(ax, values[channel], **scale(values[channel]))
            ax.set_xlabel(f"channel {channel}", fontsize=8.5, labelpad=2)
        column[0].set_title(f"{stage}\n{values.shape[1]} x {values.shape[2]}", fontsize=10)
    for ax in axes.ravel():
        ax.set_visible(bool(ax.images))
    return axes
