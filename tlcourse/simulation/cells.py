"""Draw blood cells: their shapes, their colours, the light they are seen in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from tlcourse.simulation.anatomy import Batch, Floats, Generator, column, radius, step

Factors = Mapping[str, NDArray[Any]]

# Optical densities of full stain for red, green and blue light; invented, to look right.
NUCLEUS: Final = np.array([1.05, 1.55, 0.50], np.float32)
RED_CELL: Final = np.array([0.10, 0.48, 0.38], np.float32)
PINK: Final = np.array([0.16, 0.38, 0.17], np.float32)
BLUE: Final = np.array([0.52, 0.34, 0.12], np.float32)

SHARPEST: Final = 0.006
"""Half width of the sharpest edge, in image sides."""


@dataclass(frozen=True)
class Discs(Batch):
    """Round things around the white cell, `(N, K)` each.

    Attributes:
        x: Place across.
        y: Place down.
        radius: Mean radius; 0 where there is none.
        squeeze: Long over short axis, square root of it.
        turn: Direction of the long axis.
        stain: How much stain it took.
    """

    x: Floats
    y: Floats
    radius: Floats
    squeeze: Floats
    turn: Floats
    stain: Floats


def pixel_grid(size: int) -> tuple[Floats, Floats]:
    """Return the places of pixels: `(1, size)` across and `(size, 1)` down.

    >>> pixel_grid(4)[0].tolist()
    [[-0.375, -0.125, 0.125, 0.375]]
    """
    places = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    return places[None, :], places[:, None]


def shown(
    factors: Factors, red: Discs, platelets: Discs, texture: Floats, size: int
) -> NDArray[np.float32]:
    """Return the light that passes, 0 to 1, `(N, size, size, 3)`; noise is left to the camera.

    Args:
        factors: Columns of `smears.Smears.factors`, an element per image.
        red: Red cells.
        platelets: Small violet bodies.
        texture: `(N, size, size)` random fields of unit variance: grains of nucleus and cytoplasm.
        size: Side in pixels.
    """
    cell, nucleus = white_cell(factors, size)
    plasm = (cell - nucleus) * np.clip(1 + column(factors["grain"]) * texture, 0.3, 2)
    nucleus *= np.clip(1 + 0.22 * texture, 0.5, 1.5)
    below = 0.95 * cell
    cells = thickness(red, size, pale=0.55) * (1 - below)
    violet = nucleus + 0.6 * thickness(platelets, size, pale=0.0) * (1 - below)
    blue = column(factors["blueness"])
    density = (
        _stained(violet, NUCLEUS * _tint(factors, "nucleus"))
        + _stained(cells, RED_CELL * _tint(factors, "red"))
        + _stained(plasm * blue, BLUE * _tint(factors, "nucleus"))
        + _stained(plasm * (1 - blue), PINK * _tint(factors, "red"))
    )
    density *= column(factors["stain"])[..., None]
    light = _lamp(factors, size) * np.exp(-density)
    return _blurred(light, np.asarray(factors["blur"]) * size)


def white_cell(factors: Factors, size: int) -> tuple[Floats, Floats]:
    """Return how much of each pixel is white cell, and how much nucleus, `(N, size, size)`."""
    x, y = pixel_grid(size)
    turn, reach = column(factors["turn"]), column(factors["radius"])
    across, down = x - column(factors["x"]), y - column(factors["y"])
    # In radii of the cell, turned so that the nucleus opens to the left.
    u = (np.cos(turn) * across + np.sin(turn) * down) / reach
    v = (np.cos(turn) * down - np.sin(turn) * across) / reach
    angle = np.arctan2(v, u)
    rim = 1 + column(factors["oval"]) * np.cos(2 * angle + column(factors["oval_at"]))
    rim += column(factors["bulge"]) * np.cos(3 * angle + column(factors["oval_at"]))
    soft = max(SHARPEST, 0.4 / size) / reach
    cell = step((rim - radius(u, v)) / soft)
    return cell, cell * step(-_to_nucleus(factors, u, v) / soft)


def _to_nucleus(factors: Factors, u: Floats, v: Floats) -> Floats:
    """Distance to the rim of the nucleus in radii of the cell, negative inside."""
    arc, span, width = (column(factors[name]) for name in ("arc", "span", "width"))
    # The band's centre of mass lies at the place where the nucleus shall be.
    u = u + arc * np.sin(span) / span - column(factors["aside"])
    along = np.clip(np.arctan2(v, u), -span, span)
    wave = 1 + column(factors["crooked"]) * np.cos(3 * along + column(factors["oval_at"]))
    apart = radius(u - arc * wave * np.cos(along), v - arc * wave * np.sin(along))
    waists = np.sin(np.pi * (column(factors["lobes"]) - 1) * (along + span) / (2 * span)) ** 2
    return np.asarray(apart - width * (1 - column(factors["waist"]) * waists))


def thickness(discs: Discs, size: int, *, pale: float) -> Floats:
    """Return how much stain lies over each pixel, `(N, size, size)`.

    Args:
        discs: K discs in each image; stain adds up where they overlap.
        size: Side in pixels.
        pale: How much thinner a disc is in its middle, 0 to 1.
    """
    x, y = pixel_grid(size)
    total = np.zeros((len(discs.x), size, size), np.float32)
    soft = max(SHARPEST, 0.4 / size)
    for k in range(discs.x.shape[1]):
        there = np.flatnonzero(discs.radius[:, k] > 0)
        one = discs.take(there)
        across, down = x - column(one.x[:, k]), y - column(one.y[:, k])
        cos, sin = column(np.cos(one.turn[:, k])), column(np.sin(one.turn[:, k]))
        reach, squeeze = column(one.radius[:, k]), column(one.squeeze[:, k])
        u = (cos * across + sin * down) / (reach * squeeze)
        v = (cos * down - sin * across) * (squeeze / reach)
        away = u * u + v * v
        body = step((1 - away) * (reach / (2 * soft)))
        total[there] += column(one.stain[:, k]) * body * (1 - pale * np.exp(-3 * away))
    return total


def _tint(factors: Factors, stain: str) -> Floats:
    """How a slide's stain differs in red, green and blue, `(N, 1, 1, 3)`."""
    tint = np.stack([factors[f"{stain}_{light}"] for light in CHANNELS], axis=-1)
    return np.asarray(tint[:, None, None, :], np.float32)


def _stained(amount: Floats, density: Floats) -> Floats:
    return np.asarray(amount[..., None] * density)


def _lamp(factors: Factors, size: int) -> Floats:
    """Light without a slide: its colour, brighter towards one side."""
    x, y = pixel_grid(size)
    slope = column(factors["slope_x"]) * x + column(factors["slope_y"]) * y
    lamp = np.stack([factors[f"lamp_{light}"] for light in CHANNELS], axis=-1)
    return np.asarray((1 + slope)[..., None] * lamp[:, None, None, :], np.float32)


def _blurred(light: Floats, sigmas: NDArray[np.float64]) -> Floats:
    """Blur each image by its own standard deviation in pixels."""
    for image, sigma in zip(light, sigmas, strict=True):
        scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0), output=image, mode="nearest")
    return light


SMEAR_CLASSES: Final = ("lymphocyte", "monocyte", "neutrophil")
"""In the order of the labels, and of the alphabet: a folder per class gives the same labels."""

# Mean and standard deviation by class, then limits: of the cell (radius in image sides) and of the
# band that its nucleus is (in radii of the cell, angles in radians).
SHAPES: Final[dict[str, tuple[Sequence[tuple[float, float]], tuple[float, float]]]] = {
    "radius": (((0.205, 0.030), (0.275, 0.035), (0.235, 0.025)), (0.13, 0.38)),
    "arc": (((0.16, 0.10), (0.34, 0.08), (0.44, 0.06)), (0.02, 0.6)),
    "span": (((0.60, 0.35), (1.15, 0.40), (1.85, 0.45)), (0.05, 2.7)),
    "width": (((0.70, 0.07), (0.46, 0.06), (0.31, 0.045)), (0.2, 0.9)),
    "waist": (((0.05, 0.06), (0.12, 0.12), (0.55, 0.24)), (0.0, 0.92)),
    "crooked": (((0.0, 0.05), (0.0, 0.08), (0.0, 0.14)), (-0.3, 0.3)),
    "blueness": (((0.68, 0.18), (0.60, 0.18), (0.34, 0.18)), (0.0, 1.0)),
    "grain": (((0.06, 0.04), (0.12, 0.06), (0.20, 0.08)), (0.0, 0.5)),
}

MOST_LOBES: Final = 5
LATTICE: Final = 5  # red cells lie near the points of a lattice of so many rows and columns
MOST_PLATELETS: Final = 3
CHANNELS: Final = ("red", "green", "blue")
Columns = dict[str, NDArray[np.float64]]


def draw_slides(count: int, rng: Generator) -> Columns:
    """Draw what the cells of a slide share: stain, lamp, focus, `(count,)` each."""
    drawn: Columns = {"stain": np.exp(rng.normal(0, 0.16, count))}
    for name, spread in {"nucleus": 0.10, "red": 0.15}.items():
        for colour in CHANNELS:
            drawn[f"{name}_{colour}"] = np.exp(rng.normal(0, spread, count))
    bright = rng.uniform(0.78, 0.97, count)
    for colour, warm in zip(CHANNELS, (1.02, 1.0, 0.98), strict=True):
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
    for name, (by_class, limits) in SHAPES.items():
        mean, spread = np.array(by_class)[labels].T
        drawn[name] = np.clip(rng.normal(mean, spread), *limits)
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
