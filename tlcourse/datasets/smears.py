"""Simulated stained blood smears: a second task for the course, in colour, with three classes.

No blood was looked at, and nothing here may be used on any. The words are real, and so are the
shapes that they stand for: a *neutrophil* has a nucleus of three to five lobes, a *monocyte* is
large with a nucleus like a kidney, a *lymphocyte* is small with a round nucleus that fills it.
All numbers are invented, for difficulty. Each image shows one white cell among red ones; cells of
one slide share its stain, lamp and focus.

Cells are drawn in `tlcourse.simulation.cells`; here they get slides, parts and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from tlcourse.datasets.base import PARTS, apportion
from tlcourse.datasets.splits import grouped_split
from tlcourse.simulation.anatomy import Generator
from tlcourse.simulation.cells import (
    SMEAR_CLASSES,
    draw_cells,
    draw_slides,
    platelets,
    red_cells,
    shown,
    textures,
)

SHARES: Final = (0.30, 0.15, 0.55)
"""Of the classes, in their order."""

# One draw per purpose, so that another size changes nothing else.
SMEAR_STREAMS: Final = ("labels", "slides", "cells")
IMAGE_STREAM, FILE_STREAM = len(SMEAR_STREAMS), len(SMEAR_STREAMS) + 1
SMEAR_BATCH: Final = 16  # images drawn together: their maps stay within a core's cache
SMALLEST_SMEAR, LARGEST_SMEAR = 16, 256
WRITTEN_SIZE: Final = 96


@dataclass(frozen=True)
class Smears:
    """Simulated images with all that they were made from.

    Attributes:
        images: uint8 `(N, size, size, 3)`.
        labels: int64 `(N,)`, places in `SMEAR_CLASSES`.
        slides: int64 `(N,)`: cells of one slide share stain, lamp and focus.
        factors: One row per image: the white cell, its nucleus, its slide.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    slides: NDArray[np.int64]
    factors: pd.DataFrame

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


def simulate_smears(
    n: int = 600,
    *,
    seed: int = 0,
    size: int = 64,
    cells_per_slide: int = 10,
    shares: Sequence[float] = SHARES,
) -> Smears:
    """Simulate stained blood smears with one white cell in each image.

    The same seed gives the same cells whatever `size` is. Nothing is drawn from a global
    generator.

    Args:
        n: Number of images, at least 3.
        seed: Non-negative.
        size: Height and width in pixels, 16 to 256.
        cells_per_slide: Images that share a slide, in consecutive rows.
        shares: Share of each class, in the order of `SMEAR_CLASSES`; met exactly but for
            rounding, and each class has an image.

    Raises:
        ValueError: If an argument is out of its range.

    >>> smears = simulate_smears(20, seed=1)
    >>> smears.images.shape, np.bincount(smears.labels).tolist()
    ((20, 64, 64, 3), [6, 3, 11])
    """
    _check_arguments(n, seed, size, cells_per_slide, shares)
    rngs = {name: np.random.default_rng([seed, at]) for at, name in enumerate(SMEAR_STREAMS)}
    counts = apportion(n, np.asarray(shares, np.float64), minimum=1)
    labels = rngs["labels"].permutation(np.repeat(np.arange(len(SMEAR_CLASSES)), counts))
    slides = np.arange(n) // cells_per_slide
    by_slide = draw_slides(int(slides[-1]) + 1, rngs["slides"])
    columns = {name: values[slides] for name, values in by_slide.items()}
    columns |= draw_cells(labels, columns["scale"], rngs["cells"])
    images = np.empty((n, size, size, 3), np.uint8)
    for start in range(0, n, SMEAR_BATCH):
        rows = np.arange(start, min(start + SMEAR_BATCH, n))
        part = {name: values[rows] for name, values in columns.items()}
        generators = [np.random.default_rng([seed, IMAGE_STREAM, row]) for row in rows.tolist()]
        images[rows] = _photographed(part, generators, size)
    return Smears(images, labels, slides, pd.DataFrame(columns))


def _photographed(
    factors: Mapping[str, NDArray[Any]], rngs: Sequence[Generator], size: int
) -> NDArray[np.uint8]:
    """Surround white cells with others, draw them and let a noisy camera take them."""
    company = red_cells(factors, rngs), platelets(rngs)
    light = shown(factors, *company, textures(rngs, size), size)
    noise = np.stack([rng.standard_normal(light.shape[1:], np.float32) for rng in rngs])
    light += noise * factors["noise"].astype(np.float32)[:, None, None, None]
    return np.asarray(np.rint(255 * np.clip(light, 0, 1)), np.uint8)


def write_smears(
    folder: Path | str,
    n: int = 240,
    *,
    seed: int = 0,
    damaged: int = 0,
    divided: bool = False,
    **simulation: Any,
) -> list[Path]:
    """Write simulated smears as a folder of images per class, as untidy as such folders are.

    Images are PNG and JPEG, of odd sizes and shapes, some without colour. A name tells slide and
    cell: `slide03_cell031.png`.

    Args:
        folder: A new or empty folder.
        n: Number of images.
        seed: As for `simulate_smears`.
        damaged: Files that are cut short, the first ones of the rarest class.
        divided: Whether the classes' folders lie in folders train, val and test, dealt out
            70/10/20 so that no slide is in two of them.
        **simulation: More for `simulate_smears`, but for `size`.

    Returns:
        The files, in the order of the images.

    Raises:
        FileExistsError: If the folder holds something.
        ValueError: If an argument is out of its range.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_smears(folder, 12)[0].relative_to(folder).name
    'slide00_cell000.png'
    """
    root = Path(folder)
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"expected a new or empty folder, found files in {root}")
    smears = simulate_smears(n, seed=seed, size=WRITTEN_SIZE, **simulation)
    rng = np.random.default_rng([seed, FILE_STREAM])
    files = [root / place for place in _places(smears, rng, divided=divided, seed=seed)]
    for file, image in zip(files, smears.images, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(_cropped(image, rng))
        picture = picture.convert("L") if rng.random() < 0.06 else picture
        picture.save(file, quality=90)
    rarest = int(np.argmin(np.bincount(smears.labels)))
    for row in np.flatnonzero(smears.labels == rarest)[:damaged].tolist():
        whole = files[row].read_bytes()
        files[row].write_bytes(whole[: len(whole) // 2])
    return files


def _places(smears: Smears, rng: Generator, *, divided: bool, seed: int) -> list[Path]:
    """Name the file of each image, within the folder."""
    part_of = np.full(len(smears), "", dtype="<U5")
    if divided:
        rows_by_part = grouped_split(smears.labels, smears.slides, seed=seed)
        for part, rows in zip(PARTS, rows_by_part, strict=True):
            part_of[rows] = part
    endings = np.where(rng.random(len(smears)) < 0.3, ".jpg", ".png")
    return [
        Path(part) / SMEAR_CLASSES[label] / f"slide{slide:02}_cell{cell:03}{ending}"
        for cell, (part, label, slide, ending) in enumerate(
            zip(part_of, smears.labels, smears.slides, endings, strict=True)
        )
    ]


def _cropped(image: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Cut an image to an odd size and shape, as people do by hand."""
    height, width = rng.integers(WRITTEN_SIZE - 20, WRITTEN_SIZE + 1, 2)
    top, left = rng.integers(0, WRITTEN_SIZE - np.array([height, width]) + 1)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _check_arguments(
    n: int, seed: int, size: int, cells_per_slide: int, shares: Sequence[float]
) -> None:
    if n < len(SMEAR_CLASSES):
        raise ValueError(f"expected n of {len(SMEAR_CLASSES)} images or more, got {n}")
    if seed < 0:
        raise ValueError(f"expected a seed of 0 or more, got {seed}")
    if not SMALLEST_SMEAR <= size <= LARGEST_SMEAR:
        raise ValueError(
            f"expected a size from {SMALLEST_SMEAR} to {LARGEST_SMEAR} pixels, got {size}"
        )
    if cells_per_slide < 1:
        raise ValueError(f"expected at least 1 cell per slide, got {cells_per_slide}")
    if len(shares) != len(SMEAR_CLASSES) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            f"expected a share above 0 for each of {SMEAR_CLASSES}, 1 in all, got {shares}"
        )
