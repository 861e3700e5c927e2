"""Make an `ImageSet` of the simulated breast ultrasound, and say so where it stands in."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcourse.datasets.base import ImageSet, Split
from tlcourse.datasets.medmnist import CLASSES, FILES
from tlcourse.datasets.npz import resize
from tlcourse.datasets.splits import split_rows
from tlcourse.runtime import in_notebook
from tlcourse.simulation.phantom import Phantom, simulate
from tlcourse.simulation.scanner import LARGEST_SIZE, SMALLEST_SIZE, Shift

NOTICE = (
    "SIMULATED IMAGES: the real BreastMNIST is not in use ({reason}). What follows runs on "
    "simulated ultrasound; its scores say nothing about patients."
)


LARGEST = max(FILES)
"""Largest side in pixels, that of the real set; above the simulation's own, images are enlarged."""


def simulated_set(
    n: int = 780,
    *,
    size: int = 64,
    seed: int = 0,
    shift: str | Shift | None = None,
    shift_test: str | Shift | None = None,
    progress: bool = False,
    **simulation: Any,
) -> ImageSet:
    """Simulate breast ultrasound and divide it 70/10/20 by patient.

    Args:
        n: Number of images.
        size: Side in pixels, 16 to 224; above 128 the images of 128 are enlarged, as `source` says.
        seed: What the simulation and the dealing start from.
        shift: Another scanner for all images.
        shift_test: Another scanner for the test images alone, in place of `shift`.
        progress: Whether to show a progress bar.
        **simulation: More for `phantom.simulate`.

    Raises:
        InvalidDataset: If there are too few patients to divide.
        ValueError: If `size` is out of range or `phantom.simulate` refuses an argument.

    >>> data = simulated_set(30, size=32, views=3)
    >>> bool(set(data.train.groups) & set(data.test.groups)), data.simulated
    (False, True)
    """
    if not SMALLEST_SIZE <= size <= LARGEST:
        raise ValueError(f"expected a size from {SMALLEST_SIZE} to {LARGEST} pixels, got {size}")
    options = {"seed": seed, "size": min(size, LARGEST_SIZE), **simulation}
    scene = _simulated(n, size, shift=shift, progress=progress, **options)
    moved = scene
    if shift_test is not None:
        moved = _simulated(n, size, shift=shift_test, progress=progress, **options)
    train, val, test = split_rows(
        scene.labels, scene.patients, seed=seed, where="the simulated set"
    )
    return ImageSet(
        name="phantom",
        train=_select(scene, train),
        val=_select(scene, val),
        test=_select(moved, test),
        classes=CLASSES,
        source=_recipe(size, n=n, **options, shift=shift, shift_test=shift_test),
        license="MIT, as this package: no patient was imaged",
        citation="the tlcourse authors: simulated breast ultrasound",
        partition="patient",
        simulated=True,
    )


def announce(reason: str) -> None:
    """Say that images are simulated: a coloured box in a notebook, a line in a terminal.

    >>> announce("an example")  # doctest: +ELLIPSIS
    SIMULATED IMAGES: the real BreastMNIST is not in use (an example). ...
    """
    text = NOTICE.format(reason=reason)
    if not in_notebook():
        print(text, flush=True)
        return
    from IPython.display import display

    # Both colours are stated, so that the box reads in dark themes too.
    style = "background:#fff3cd;color:#3d2c00;border:2px solid #b58900;padding:.6em"
    box = f'<div role="note" style="{style}"><strong>{escape(text)}</strong></div>'
    display({"text/html": box, "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]


def _simulated(n: int, side: int, **options: Any) -> Phantom:
    scene: Phantom = simulate(n, **options)
    return replace(scene, images=resize(scene.images, side))


def _select(scene: Phantom, rows: NDArray[np.int64]) -> Split:
    return Split(scene.images, scene.labels, scene.patients, scene.factors).select(rows)


def _recipe(side: int, **options: object) -> str:
    stated = ", ".join(f"{key}={value!r}" for key, value in options.items() if value is not None)
    enlarged = "" if side == options["size"] else f", enlarged to {side} px (bilinear)"
    return f"tlcourse.simulation.phantom.simulate({stated}){enlarged}"
