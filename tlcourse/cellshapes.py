"""Draw at random what the simulated blood smears are made of: slides, white cells, their company.

Middle of the three modules behind the simulated smears (`bloodcells` < `cellshapes` < `smears`).
The tables below are invented for difficulty; they are no haematology.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from tlcourse.anatomy import Floats, Generator
from tlcourse.bloodcells import Discs

SMEAR_CLASSES: Final = ("lymphocyte", "monocyte", "neutrophil")
"""In the order of the labels, and of the alphabet: a folder per class gives the same labels."""

# Mean and standard deviation by class: of the cell (radius in image sides) and of the band that
# its nucleus is (in radii of the cell, angles in radians).
SHAPES: Final[dict[str, Sequence[tuple[float, float]]]] = {
    "radius": ((0.205, 0.030), (0.275, 0.035), (0.235, 0.025)),
    "arc": ((0.16, 0.10), (0.34, 0.08), (0.44, 0.06)),
    "span": ((0.60, 0.35), (1.15, 0.40), (1.85, 0.45)),
    "width": ((0.70, 0.07), (0.46, 0.06), (0.31, 0.045)),
    "waist": ((0.05, 0.06), (0.12, 0.12), (0.55, 0.24)),
    "crooked": ((0.0, 0.05), (0.0, 0.08), (0.0, 0.14)),
    "blueness": ((0.68, 0.18), (0.60, 0.18), (0.34, 0.18)),
    "grain": ((0.06, 0.04), (0.12, 0.06), (0.20, 0.08)),
}
LIMITS: Final = {
    "radius": (0.13, 0.38),
    "arc": (0.02, 0.6),
    "span": (0.05, 2.7),
    "width": (0.2, 0.9),
    "waist": (0.0, 0.92),
    "crooked": (-0.3, 0.3),
    "blueness": (0.0, 1.0),
    "grain": (0.0, 0.5),
}
MOST_LOBES: Final = 5
LATTICE: Final = 5  # red cells lie near the points of a lattice of so many rows and columns
MOST_PLATELETS: Final = 3
COLOURS: Final = ("red", "green", "blue")

Columns = dict[str, NDArray[np.float64]]


def draw_slides(count: int, rng: Generator) -> Columns:
    """Draw what the cells of a slide share: stain, lamp, focus, `(count,)` each."""
    drawn: Columns = {"stain": np.exp(rng.normal(0, 0.16, count))}
    for name, spread in {"nucleus": 0.10, "red": 0.15}.items():
        for colour in COLOURS:
            drawn[f"{name}_{colour}"] = np.exp(rng.normal(0, spread, count))
    bright = rng.uniform(0.78, 0.97, count)
    for colour, warm in zip(COLOURS, (1.02, 1.0, 0.98), strict=True):
        light = bright * warm * np.exp(rng.normal(0, 0.03, count))
        drawn[f"lamp_{colour}"] = np.minimum(light, 1)
    drawn["slope_x"], drawn["slope_y"] = rng.normal(0, 0.06, (2, count))
    drawn["blur"] = rng.uniform(0.005, 0.017, count)  # in image sides
    drawn["noise"] = rng.uniform(0.006, 0.022, count)
    drawn["scale"] = 1.12 * np.exp(rng.normal(0, 0.08, count))
    drawn["crowding"] = rng.uniform(0.45, 0.95, count)
    return drawn


def draw_cells(labels: NDArray[np.int64], scale: NDArray[np.float64], rng: Generator) -> Columns:
    """Draw each white cell by its class, `(N,)` each.

    Args:
        labels: int64 `(N,)`, places in `SMEAR_CLASSES`.
        scale: `(N,)`: how much larger the cell's slide shows everything.
        rng: Where it is drawn from.
    """
    drawn: Columns = {}
    for name, table in SHAPES.items():
        mean, spread = np.array(table)[labels].T
        drawn[name] = np.clip(rng.normal(mean, spread), *LIMITS[name])
    drawn["radius"] = drawn["radius"] * scale
    # Between two lobes lies a waist; a band without waists keeps its width.
    lobes = rng.integers(3, MOST_LOBES + 1, len(labels))
    drawn["lobes"] = np.where(labels == SMEAR_CLASSES.index("neutrophil"), lobes, 2.0)
    drawn["oval"], drawn["bulge"] = rng.normal(0, [[0.05], [0.03]], (2, len(labels)))
    drawn["oval_at"], drawn["turn"] = rng.uniform(-np.pi, np.pi, (2, len(labels)))
    drawn["aside"] = rng.normal(0, 0.06, len(labels))
    drawn["x"], drawn["y"] = rng.normal(0, 0.075, (2, len(labels)))
    return drawn


def red_cells(factors: Mapping[str, NDArray[Any]], rngs: Sequence[Generator]) -> Discs:
    """Scatter red cells over each image, beside its white cell and not under it."""
    count = LATTICE**2
    chance = np.stack([rng.random((6, count)) for rng in rngs])
    scale = factors["scale"][:, None]
    reach = 0.135 * scale * (0.9 + 0.2 * chance[:, 0])
    rows, cols = np.divmod(np.arange(count), LATTICE)
    middle = (LATTICE - 1) / 2
    pitch = 0.30 * scale
    across = (cols - middle + 0.5 * (rows % 2) - 0.25) * pitch + 0.16 * (chance[:, 1] - 0.5)
    down = (rows - middle) * 0.87 * pitch + 0.16 * (chance[:, 2] - 0.5)
    around = 2 * np.pi * np.stack([rng.random(1) for rng in rngs])
    x = np.cos(around) * across - np.sin(around) * down - factors["x"][:, None]
    y = np.sin(around) * across + np.cos(around) * down - factors["y"][:, None]
    away, room = np.hypot(x, y), factors["radius"][:, None] + 0.97 * reach
    # What would lie under the white cell is pushed aside; what lies in its middle is left out.
    push = np.maximum(room / np.maximum(away, 1e-6), 1)
    there = (chance[:, 3] < factors["crowding"][:, None]) & (away > 0.45 * room)
    return Discs(
        *(np.asarray(values, np.float32) for values in (
            x * push + factors["x"][:, None],
            y * push + factors["y"][:, None],
            np.where(there, reach, 0),
            1 + 0.1 * chance[:, 4],
            2 * np.pi * chance[:, 5],
            0.8 + 0.4 * chance[:, 0],
        ))
    )  # fmt: skip


def platelets(rngs: Sequence[Generator]) -> Discs:
    """Scatter up to three small violet bodies over each image."""
    chance = np.stack([rng.random((6, MOST_PLATELETS)) for rng in rngs])
    there = chance[:, 3] < 0.35
    return Discs(
        *(np.asarray(values, np.float32) for values in (
            chance[:, 0] - 0.5,
            chance[:, 1] - 0.5,
            np.where(there, 0.02 + 0.025 * chance[:, 2], 0),
            1 + 0.25 * chance[:, 4],
            2 * np.pi * chance[:, 5],
            0.5 + 0.4 * chance[:, 2],
        ))
    )  # fmt: skip


def textures(rngs: Sequence[Generator], size: int) -> Floats:
    """Draw a random field of unit variance for each image, `(N, size, size)`."""
    fields = [rng.standard_normal((size, size), np.float32) for rng in rngs]
    smooth = np.stack([scipy.ndimage.gaussian_filter(field, 0.017 * size) for field in fields])
    return np.asarray(smooth / smooth.std((1, 2), keepdims=True), np.float32)
