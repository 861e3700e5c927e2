"""Healthy breast tissue on a grid: textures, layers, fat lobules and nuisance shadows.

Second of the five modules behind the simulated ultrasound (above `descriptors`). All maps are
float32 (N, GRID, GRID) in decibels, rows are depth; lengths are in image heights unless a name
says pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

GRID: Final = 128
DEPTH: Final = ((np.arange(GRID, dtype=np.float32) + 0.5) / GRID)[:, None]
LATERAL: Final = (DEPTH.T - 0.5).astype(np.float32)
FREQUENCY: Final = scipy.fft.fftfreq(GRID).astype(np.float32)
LOW: Final = np.flatnonzero(np.abs(FREQUENCY) < 0.25)
MOST_LOBULES: Final = 3
MOST_SHADOWS: Final = 2
Floats = NDArray[np.float32]

# The columns of `Phantom.factors` for some images, as plain arrays: reading them from a DataFrame
# for each small batch would take a fifth of the whole time.
Factors = Mapping[str, NDArray[Any]]
Complexes = NDArray[np.complex64]
Generator = np.random.Generator


@dataclass(frozen=True)
class Batch:
    """Arrays that share their first axis: patients or images."""

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return these rows of every array, in this order."""
        chosen = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        return replace(self, **chosen)


@dataclass(frozen=True)
class TissueShapes(Batch):
    """The places of tissue parts.

    Attributes:
        curves: (N, 5, 4) amplitudes and phases of smooth curves over the lateral axis.
        lobules: (N, 3, 5) lateral, depth, half width, half height, decibels.
        shadows: (N, 2, 5) lateral, half width, top, softness of the top, decibels.
    """

    curves: Floats
    lobules: Floats
    shadows: Floats


@dataclass(frozen=True)
class Textures(Batch):
    """Random fields of unit variance, (N, GRID, GRID) each.

    Attributes:
        streaks: Fine, drawn out sideways and bent like the layers.
        sheets: Coarser and longer; where it is zero run the bright lines of connective tissue.
        ligaments: As `sheets`, independent; their lines are bright where the others fade.
        clouds: Slow changes of brightness.
        fading: Slow changes of how bright the connective tissue is.
        lumps: Without direction, middle scale.
        grains: Without direction, middle scale, independent of `lumps`.
    """

    streaks: Floats
    sheets: Floats
    ligaments: Floats
    clouds: Floats
    fading: Floats
    lumps: Floats
    grains: Floats


@dataclass(frozen=True)
class View(Batch):
    """How the probe was held for each image.

    Attributes:
        lateral: (N,) shift sideways, in image heights.
        depth: (N,) shift downwards, in image heights.
        curvature: (N,) how far the top of the image bends down, see `descriptors`.
    """

    lateral: Floats
    depth: Floats
    curvature: Floats

    def x(self) -> Floats:
        """Lateral position in the patient, (N, 1, GRID)."""
        return LATERAL + column(self.lateral)

    def z(self) -> Floats:
        """Depth below the skin, (N, GRID, GRID)."""
        return DEPTH - column(self.curvature) * LATERAL**2 - column(self.depth)


def column(values: ArrayLike) -> Floats:
    """Return (N,) numbers as float32 (N, 1, 1), ready to meet maps."""
    return np.asarray(values, dtype=np.float32)[:, None, None]


def one_by_one(
    parts: Floats, counts: ArrayLike
) -> Iterator[tuple[NDArray[np.int64], list[Floats]]]:
    """Yield the first, second, ... part with the images that have it.

    Args:
        parts: (N, K, P): P numbers of each of the most parts an image may have.
        counts: (N,) parts of each image.

    Yields:
        Rows of the images, and their part's P numbers as columns.
    """
    for number in range(parts.shape[1]):
        rows = np.flatnonzero(np.asarray(counts) > number)
        yield rows, [column(values) for values in parts[rows, number].T]


def step(x: NDArray[np.floating]) -> Floats:
    """Rise smoothly from 0 to 1 around 0 (logistic function, safe for large input)."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), np.float32)


def bump(x: NDArray[np.floating]) -> Floats:
    """Gaussian bell of height 1 and scale 1."""
    return np.asarray(np.exp(-x * x), np.float32)


def radius(x: Floats, z: Floats) -> Floats:
    """Distance from the origin (numpy's `hypot` takes three times as long)."""
    return np.asarray(np.sqrt(x * x + z * z))


def gaussian_transfer(height: ArrayLike, width: ArrayLike) -> Floats:
    """Transfer function of a Gaussian blur, unit power, (N, GRID, GRID).

    Args:
        height: (N,) standard deviation along depth, in grid pixels.
        width: (N,) standard deviation along the lateral axis, in grid pixels.

    >>> gaussian_transfer([1.0], [2.0]).shape
    (1, 128, 128)
    """
    rows = np.exp(-2 * (np.pi * column(height) * FREQUENCY[:, None]) ** 2)
    columns = np.exp(-2 * (np.pi * column(width) * FREQUENCY) ** 2)
    power = np.sqrt((rows**2).mean((1, 2)) * (columns**2).mean((1, 2)))
    return np.asarray(rows * columns / column(power))


def complex_noise(rngs: Sequence[Generator], size: int = GRID) -> Complexes:
    """White complex noise, (N, size, size), one generator per map."""
    noise = [rng.standard_normal((size, size, 2), dtype=np.float32) for rng in rngs]
    return np.stack(noise).view(np.complex64)[..., 0]


def draw_textures(factors: Factors, rngs: Sequence[Generator]) -> Textures:
    """Draw the random fields of each patient, from a generator per patient."""
    n = len(rngs)
    height, width = factors["streak_height"], factors["streak_width"]
    fine = gaussian_transfer(height, width)
    fine += 0.7 * gaussian_transfer(0.4 * height, 0.4 * width)
    streaks, _ = _two_fields(complex_noise(rngs) * fine)
    sheets, ligaments = _coarse_fields(rngs, 1.4 * height, 1.8 * width)
    clouds, fading = _coarse_fields(rngs, np.full(n, 10), np.full(n, 20))
    lumps, grains = _coarse_fields(rngs, np.full(n, 3.2), np.full(n, 4))
    return Textures(streaks, sheets, ligaments, clouds, fading, lumps, grains)


def _coarse_fields(
    rngs: Sequence[Generator], height: ArrayLike, width: ArrayLike
) -> tuple[Floats, Floats]:
    """Draw two fields that have no power in the upper half of the frequencies."""
    low = np.ix_(np.arange(len(rngs)), LOW, LOW)
    spectrum = np.zeros((len(rngs), GRID, GRID), np.complex64)
    spectrum[low] = complex_noise(rngs, len(LOW)) * gaussian_transfer(height, width)[low]
    return _two_fields(spectrum)


def _two_fields(spectrum: Complexes) -> tuple[Floats, Floats]:
    # White noise is white before and after a Fourier transform, so one inverse transform is
    # enough; its real and imaginary parts are independent.
    field = scipy.fft.ifft2(spectrum)
    return _standardised(field.real), _standardised(field.imag)


def _standardised(field: Floats) -> Floats:
    return np.asarray(field / field.std((1, 2), keepdims=True))


def draw_tissue_shapes(patients: int, rng: Generator) -> TissueShapes:
    """Draw curves, lobules and shadows for a number of patients."""
    curves = np.concatenate(
        [rng.normal(0, 1, (patients, 5, 2)), rng.uniform(0, 2 * np.pi, (patients, 5, 2))], 2
    )
    low = [-0.45, 0.10, 0.06, 0.025, -9.0]
    high = [0.45, 0.60, 0.18, 0.075, -2.0]
    lobules = rng.uniform(low, high, (patients, MOST_LOBULES, 5))
    low = [-0.6, 0.03, -0.1, 0.04, -12.0]
    high = [0.6, 0.16, 0.6, 0.12, -3.0]
    shadows = rng.uniform(low, high, (patients, MOST_SHADOWS, 5))
    return TissueShapes(*(part.astype(np.float32) for part in (curves, lobules, shadows)))


def curve(shapes: TissueShapes, number: int, amplitude: float) -> Floats:
    """Evaluate a smooth random curve over the lateral axis, (N, 1, GRID)."""
    first, second, *phases = (column(part) for part in shapes.curves[:, number].T)
    slow = first * np.sin(2.8 * LATERAL + phases[0])
    return np.asarray(amplitude * (slow + 0.5 * second * np.sin(5.6 * LATERAL + phases[1])))


def bend(textures: Textures, shapes: TissueShapes, view: View) -> Textures:
    """Bend streaks and sheets along the layers and move everything with the probe."""
    tilt = column(shapes.curves[:, 2, 0]) * 0.08 * GRID * LATERAL
    sag = curve(shapes, 2, 4.0) * (1 - DEPTH) + curve(shapes, 3, 5.0) * DEPTH + tilt
    sag = sag - GRID * (column(view.depth) + column(view.curvature) * LATERAL**2)
    rows = (np.arange(GRID)[:, None] + np.rint(sag).astype(np.int64)) % GRID
    shift = np.rint(GRID * view.lateral).astype(np.int64)[:, None, None]
    columns = (np.arange(GRID)[None, None] + shift) % GRID
    # One flat index for all fields: numpy gathers along it several times faster.
    here = (np.arange(len(rows))[:, None, None] * GRID + rows) * GRID + columns
    moved = {field.name: getattr(textures, field.name) for field in fields(textures)}
    return Textures(**{name: maps.ravel()[here] for name, maps in moved.items()})


def tissue_echo(factors: Factors, shapes: TissueShapes, textures: Textures, view: View) -> Floats:
    """Echo of the healthy breast before attenuation, in dB, (N, GRID, GRID)."""
    z = view.z()
    fat_edge = column(factors["fat_depth"]) + curve(shapes, 0, 0.035) - z
    muscle_edge = z - column(factors["muscle_depth"]) - curve(shapes, 1, 0.04)
    fat, muscle = step(fat_edge / 0.012), step(muscle_edge / 0.012)
    gland = (1 - fat) * (1 - muscle)
    echo = column(factors["gland_db"]) * gland
    echo += column(factors["fat_db"]) * (fat + muscle) + 2 * muscle + 2.2 * textures.clouds
    echo += column(factors["streak_db"]) * textures.streaks * (1 - 0.5 * fat)
    lines = bump(textures.sheets / 0.17) * np.clip(0.5 + 0.6 * textures.fading, 0, 1.5)
    lines += bump(textures.ligaments / 0.13) * np.clip(0.3 - 0.6 * textures.fading, 0, 1.2)
    echo += column(factors["septa_db"]) * lines
    echo += 5 * bump(fat_edge / 0.009) + 8 * bump(muscle_edge / 0.010)
    below_skin = z - column(factors["skin"])
    echo += 11 * bump(below_skin / 0.010) + 6 * step(-below_skin / 0.006)
    return echo + _lobules(factors, shapes, view)


def _lobules(factors: Factors, shapes: TissueShapes, view: View) -> Floats:
    """Dark lens-shaped fat lobules with a thin bright capsule, the same in every class."""
    x, z = view.x(), view.z()
    echo = np.zeros_like(z)
    for rows, lobule in one_by_one(shapes.lobules, factors["fat_lobules"]):
        place, depth, width, height, decibels = lobule
        edge = 1 - radius((x[rows] - place) / width, (z[rows] - depth) / height)
        echo[rows] += decibels * step(edge / 0.12) + 2 * bump(edge / 0.15)
    return echo


def nuisance_shadows(factors: Factors, shapes: TissueShapes, view: View) -> Floats:
    """Attenuation that has nothing to do with a lesion, in dB: poor contact, ribs, far field."""
    x, z = view.x(), view.z()
    loss = np.zeros_like(z)
    for rows, shadow in one_by_one(shapes.shadows, factors["rib_shadows"]):
        place, width, top, softness, decibels = shadow
        beam = bump((x[rows] - place) / width)
        loss[rows] += decibels * beam * step((z[rows] - top) / softness)
    far = z - 0.7 - curve(shapes, 4, 0.08)
    return loss - column(factors["dark_below"]) * step(far / 0.05)
