"""Draw simulated blood cells as a microscope shows them on a stained slide.

Lowest of three modules behind the simulated smears (`bloodcells` < `cellshapes` < `smears`). Light
passes through stained parts and is absorbed there (Beer-Lambert): the parts' optical densities add
up, whatever overlaps. Places and lengths are in image sides, counted from the middle of the image,
so that they do not depend on its pixels. The shape of a nucleus is one band bent round an arc: a
short and wide one is round, a longer one a kidney, a long one with waists a chain of lobes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from tlcourse.anatomy import Batch, Floats, column, radius, step

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


def grid(size: int) -> tuple[Floats, Floats]:
    """Return the places of pixels: `(1, size)` across and `(size, 1)` down.

    >>> grid(4)[0].tolist()
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
    x, y = grid(size)
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
    x, y = grid(size)
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
    tint = np.stack([factors[f"{stain}_{light}"] for light in ("red", "green", "blue")], axis=-1)
    return np.asarray(tint[:, None, None, :], np.float32)


def _stained(amount: Floats, density: Floats) -> Floats:
    return np.asarray(amount[..., None] * density)


def _lamp(factors: Factors, size: int) -> Floats:
    """Light without a slide: its colour, brighter towards one side."""
    x, y = grid(size)
    slope = column(factors["slope_x"]) * x + column(factors["slope_y"]) * y
    lamp = np.stack([factors[f"lamp_{light}"] for light in ("red", "green", "blue")], axis=-1)
    return np.asarray((1 + slope)[..., None] * lamp[:, None, None, :], np.float32)


def _blurred(light: Floats, sigmas: NDArray[np.float64]) -> Floats:
    """Blur each image by its own standard deviation in pixels."""
    for image, sigma in zip(light, sigmas, strict=True):
        scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0), output=image, mode="nearest")
    return light
