"""Put a lesion with its BI-RADS descriptors into the tissue.

Third of the five modules behind the simulated ultrasound (above `anatomy`). Maps are float32
(N, GRID, GRID) in decibels; images without a lesion pass through unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import scipy.ndimage
from numpy.typing import NDArray

from tlcourse.simulation.anatomy import (
    DEPTH,
    LATERAL,
    Batch,
    Factors,
    Floats,
    Generator,
    Textures,
    bump,
    column,
    one_by_one,
    radius,
    step,
)

ANGLES: Final = np.arange(512) * 2 * np.pi / 512
MOST_SATELLITES: Final = 2
MOST_CALCIFICATIONS: Final = 8
Angles = NDArray[np.int64]
Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LesionShapes(Batch):
    """The outline and the small parts of each patient's lesion.

    Attributes:
        outline: (N, 512) radius over the angle, 1 for an ellipse.
        spicules: (N, 512) how strongly a spicule leaves at this angle, 0 to 1.
        satellites: (N, 2, 3) angle, distance and size, in sizes of the lesion.
        calcifications: (N, 8, 3) lateral, depth (1 is the outline) and decibels.
        strengths: (N, 3) of halo, capsule and edge shadows, in dB.
    """

    outline: Floats
    spicules: Floats
    satellites: Floats
    calcifications: Floats
    strengths: Floats


@dataclass(frozen=True)
class Frame:
    """Where every point of the image lies as seen from the lesion, (N, GRID, GRID) each.

    Attributes:
        u: Along the lesion's long axis, 1 at the ellipse.
        v: Across it.
        distance: To the outline, in image heights, negative inside.
        angle: Index into the outline.
    """

    u: Floats
    v: Floats
    distance: Floats
    angle: Angles


def draw_lesion_shapes(factors: pd.DataFrame, rng: Generator) -> LesionShapes:
    """Draw outline, spicules, satellites and calcifications of each patient."""
    n = len(factors)
    irregular = np.asarray(factors["irregular"])
    outline = 1 + _harmonics(rng, np.where(irregular, 0.16, 0.045), range(2, 5), falloff=1.0)
    outline[irregular] += _harmonics(
        rng, np.full(irregular.sum(), 0.045), range(5, 13), falloff=0.5
    )
    low, high = [0.0, 1.1, 0.15], [2 * np.pi, 2.2, 0.55]
    satellites = rng.uniform(low, high, (n, MOST_SATELLITES, 3))
    calcifications = rng.uniform([-0.6, -0.6, 8], [0.6, 0.6, 20], (n, MOST_CALCIFICATIONS, 3))
    # Between 3 and 8 of them: the others get no echo.
    calcifications[np.arange(MOST_CALCIFICATIONS) >= rng.integers(3, 9, (n, 1)), 2] = 0
    strengths = rng.uniform([4, 2, 0], [9, 7, 5], (n, 3))
    parts = (np.clip(outline, 0.4, 2.0), _spicules(rng, irregular), satellites)
    return LesionShapes(*(p.astype(np.float32) for p in (*parts, calcifications, strengths)))


def _harmonics(rng: Generator, amplitude: Doubles, orders: range, falloff: float) -> Doubles:
    """Random periodic curves over the angle, (N, 512)."""
    k = np.array(orders)
    size = rng.normal(0, amplitude[:, None] / (k - k[0] + 1) ** falloff)
    phase = rng.uniform(0, 2 * np.pi, size.shape)
    waves = np.cos(k[:, None] * ANGLES + phase[..., None])
    return np.asarray(np.einsum("nk,nka->na", size, waves))


def _spicules(rng: Generator, irregular: Mask) -> Doubles:
    """Thin rays at random angles for about half of the irregular lesions, (N, 512)."""
    rays = np.zeros((len(irregular), len(ANGLES)))
    rows = np.flatnonzero(irregular & (rng.random(len(irregular)) < 0.55))
    centres = rng.uniform(0, 2 * np.pi, (len(rows), 8, 1))
    widths = rng.uniform(0.03, 0.08, centres.shape)
    heights = rng.uniform(-0.5, 1, centres.shape)
    turn = (ANGLES - centres + np.pi) % (2 * np.pi) - np.pi
    rays[rows] = (heights * np.exp(-((turn / widths) ** 2))).max(1)
    return np.maximum(rays, 0)


def add_lesions(
    echo: Floats,
    factors: Factors,
    shapes: LesionShapes,
    textures: Textures,
) -> Floats:
    """Return the echo map in dB with lesions and the shadow or enhancement below them.

    Args:
        echo: (N, GRID, GRID) healthy tissue.
        factors: Columns, an element per image; images without a lesion leave their map as it is.
        shapes: Shapes of the same rows.
        textures: Textures of the same rows.
    """
    rows = np.flatnonzero(factors["lesion"])
    if not len(rows):
        return echo
    ill = {name: values[rows] for name, values in factors.items()}
    changed = echo.copy()
    changed[rows] = _with_lesion(echo[rows], ill, shapes.take(rows), textures.take(rows))
    return changed


def _with_lesion(
    echo: Floats, factors: Factors, shapes: LesionShapes, textures: Textures
) -> Floats:
    place = _locate(factors, shapes, textures)
    inside = step(-place.distance / column(factors["edge"]))
    inside = np.maximum(inside, _satellites(factors, shapes, place))
    echo = echo * (1 - inside) + inside * _interior(factors, textures)
    echo += _boundary(factors, shapes, place) + _calcifications(factors, shapes, place)
    return echo + _posterior(factors, inside) + _edge_shadows(factors, shapes, place)


def _locate(factors: Factors, shapes: LesionShapes, textures: Textures) -> Frame:
    """Turn image positions into positions relative to the lesion."""
    lateral = column(factors["lateral"])
    x = LATERAL - lateral
    z = DEPTH - column(factors["depth"]) - column(factors["curvature"]) * (LATERAL**2 - lateral**2)
    size, aspect, tilt = (column(factors[name]) for name in ("size", "aspect", "tilt"))
    u = (np.cos(tilt) * x + np.sin(tilt) * z) * np.sqrt(aspect) / size
    v = (np.cos(tilt) * z - np.sin(tilt) * x) / np.sqrt(aspect) / size
    angle = (np.arctan2(v, u) * (len(ANGLES) / (2 * np.pi))).astype(np.int64) % len(ANGLES)
    distance = (radius(u, v) / _at(shapes.outline, angle) - 1) * size
    irregular = column(factors["irregular"])
    distance += (0.002 + 0.006 * irregular) * textures.streaks
    distance += 0.016 * irregular * textures.lumps * np.minimum(1, size / 0.12)
    reach = 0.03 * np.exp(-np.maximum(distance, 0) / 0.04)
    return Frame(u, v, distance - reach * _at(shapes.spicules, angle), angle)


def _at(curves: Floats, angle: Angles) -> Floats:
    """Evaluate (N, 512) curves at (N, GRID, GRID) angles."""
    flat = np.take_along_axis(curves, angle.reshape(len(angle), -1), 1)
    return np.asarray(flat.reshape(angle.shape))


def _satellites(factors: Factors, shapes: LesionShapes, place: Frame) -> Floats:
    """Mask of small round lesions beside the main one."""
    mask = np.zeros_like(place.u)
    size, edge = column(factors["size"]), column(factors["edge"])
    for rows, (angle, away, reach) in one_by_one(shapes.satellites, factors["satellites"]):
        u, v = place.u[rows] - away * np.cos(angle), place.v[rows] - away * np.sin(angle)
        apart = (reach - radius(u, v)) * size[rows]
        mask[rows] = np.maximum(mask[rows], step(apart / edge[rows]))
    return mask


def _interior(factors: Factors, textures: Textures) -> Floats:
    """Echo inside the lesion in dB: fluid is even, solid tissue has texture."""
    solid = column(factors["echo"] != "anechoic")
    mixed = column(factors["heterogeneous"]) * (3.0 * textures.grains + 2.0 * textures.clouds)
    level = column(factors["gland_db"]) + column(factors["echo_db"])
    return np.asarray(level + 1.2 * solid * textures.streaks + (0.4 + 0.6 * solid) * mixed)


def _boundary(factors: Factors, shapes: LesionShapes, place: Frame) -> Floats:
    """Echogenic halo, or a thin capsule that is bright where the beam meets it squarely."""
    halo, capsule, _ = (column(v) for v in shapes.strengths.T)
    with_halo = factors["halo"]
    with_capsule = ~with_halo & ~factors["indistinct"]
    square = np.abs(place.v) / (radius(place.u, place.v) + 0.1)
    rim = column(with_capsule) * capsule * square * bump(place.distance / 0.007)
    return np.asarray(rim + column(with_halo) * halo * bump((place.distance - 0.03) / 0.025))


def _calcifications(factors: Factors, shapes: LesionShapes, place: Frame) -> Floats:
    """Bright dots inside the lesions that have them."""
    echo = np.zeros_like(place.u)
    size = column(factors["size"])
    most = MOST_CALCIFICATIONS * factors["calcifications"]
    for rows, (across, down, decibels) in one_by_one(shapes.calcifications, most):
        apart = radius(place.u[rows] - across, place.v[rows] - down) * size[rows]
        echo[rows] += decibels * bump(apart / 0.007)
    return echo


def _posterior(factors: Factors, inside: Floats) -> Floats:
    """Shadow (negative) or enhancement (positive) behind the lesion, in dB."""
    path = scipy.ndimage.gaussian_filter1d(inside, 2.5, axis=2).cumsum(1)
    path /= path.max((1, 2), keepdims=True) + 1e-6
    fading = 1 - 0.4 * np.clip(DEPTH - column(factors["depth"]), 0, 1)
    return np.asarray(column(factors["posterior_db"]) * path * fading)


def _edge_shadows(factors: Factors, shapes: LesionShapes, place: Frame) -> Floats:
    """Thin shadows below the sides of smooth lesions, where the beam is refracted."""
    smooth = ~factors["irregular"] & (factors["echo"] != "isoechoic")
    width = column(factors["size"] / np.sqrt(factors["aspect"]))
    away = (np.abs(place.u) - 1) * width
    strength = column(smooth * shapes.strengths[:, 2])
    return np.asarray(-strength * bump(away / 0.018) * step(place.v / 0.15))
