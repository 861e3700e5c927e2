"""Take the image: speckle, log compression, display, calipers and text.

Fourth of the five modules behind the simulated ultrasound (above `anatomy`, below `phantom`). The
image is formed as a B-mode image is: scatterers weighted by tissue echo and attenuation are
blurred by the point spread function of the probe; the envelope is compressed to decibels and
shown over the dynamic range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import scipy.fft
from numpy.typing import NDArray

from tlcourse.simulation.anatomy import (
    DEPTH,
    GRID,
    Factors,
    Floats,
    Generator,
    bump,
    column,
    complex_noise,
    gaussian_transfer,
)

# Share of the speckle's decibels that is kept: scanners smooth speckle before they show it.
SPECKLE_KEPT: Final = 0.36
NOISE_FLOOR_DB: Final = -52.0
MIDDLE: Final = 0.45  # depth at which attenuation changes nothing
BRIGHTNESS: Final = 0.36  # what 0 dB is shown as, 0 black to 1 white
TOE: Final = 0.06
MARKER_GREY: Final = 215

# Below, a lesion is a few pixels; above, the grid of the simulation has no more detail.
SMALLEST_SIZE: Final = 16
LARGEST_SIZE: Final = GRID


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless the value lies from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"expected {name} from 0 to 1, got {value}")


@dataclass(frozen=True)
class Shift:
    """What another scanner or operator changes in the image, the patients being the same.

    Attributes:
        gain: Decibels added to every echo.
        blur: Factor on the width of the point spread function (a lower frequency blurs).
        speckle: Factor on the amount of speckle.
        markers: Probability that an image carries calipers or text, whatever its class.

    Raises:
        ValueError: If a value means nothing, such as a blur of 0.

    >>> Shift(gain=-14, blur=1.5).markers
    0.15
    """

    gain: float = 0.0
    blur: float = 1.0
    speckle: float = 1.0
    markers: float = 0.15

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.blur <= 0 or self.speckle < 0:
            raise ValueError(
                "expected blur above 0 and speckle of at least 0 (1 leaves them as they are), "
                f"got blur={self.blur}, speckle={self.speckle}"
            )
        check_probability("markers", self.markers)


SHIFTS: Final[dict[str, Shift]] = {
    "none": Shift(),
    "gain+8": Shift(gain=8),
    "gain-8": Shift(gain=-8),
    "gain-14": Shift(gain=-14),
    "blur": Shift(blur=1.8),
    "speckle": Shift(speckle=2.2),
    "scanner": Shift(gain=6, blur=1.8, speckle=1.8),
}


def acquire(echo: Floats, factors: Factors, shift: Shift, rngs: Sequence[Generator]) -> Floats:
    """Turn echo in dB into what the screen shows, 0 to 1, (N, GRID, GRID)."""
    resolution = shift.blur * factors["resolution"]
    point_spread = gaussian_transfer(0.75 * resolution, 2.0 * resolution)
    focus = 2.5 * bump((DEPTH - column(factors["focus"])) / 0.12)
    loss = column(factors["attenuation"]) * (DEPTH - MIDDLE)
    echo = echo + focus - loss.astype(np.float32)
    scatterers = complex_noise(rngs) * np.power(np.float32(10), echo / 20)
    field = scipy.fft.ifft2(scipy.fft.fft2(scatterers) * point_spread)
    envelope = 20 * np.log10(np.abs(field) / 2**0.5 + 10 ** (NOISE_FLOOR_DB / 20))
    decibels = echo + SPECKLE_KEPT * shift.speckle * (envelope - echo)
    reach = column(factors["dynamic_range"])
    shown = (decibels + column(factors["gain"]) + shift.gain) / reach + BRIGHTNESS
    return _soft_limits(shown)


def _soft_limits(shown: Floats) -> Floats:
    """Bend values smoothly into 0 to 1: real shadows are dark grey and seldom black."""
    toe = TOE * np.log1p(np.exp(np.minimum(shown / TOE, 30)))  # 30 lies far above white
    return np.asarray(np.minimum(toe, 1), np.float32)


def shrink(shown: Floats, size: int) -> NDArray[np.uint8]:
    """Average over areas down to (N, size, size); 0 to 1 becomes 0 to 255."""
    edges = np.linspace(0, GRID, size + 1)
    inside = np.minimum(edges[1:, None], np.arange(1, GRID + 1)) - np.maximum(
        edges[:-1, None], np.arange(GRID)
    )
    weights = (np.clip(inside, 0, 1) * size / GRID).astype(np.float32)
    small = 255 * (weights @ shown @ weights.T)
    return np.asarray(np.rint(small), np.uint8)


def draw_calipers(image: NDArray[np.uint8], factors: pd.Series[float], rng: Generator) -> None:
    """Draw two crosses at the sides of the lesion, or anywhere where there is none."""
    if factors["lesion"]:
        x, z = factors["lateral"] + 0.5, factors["depth"]
        reach = factors["size"] / np.sqrt(factors["aspect"])
    else:
        x, z, reach = rng.uniform([0.3, 0.25, 0.06], [0.7, 0.6, 0.2])
    size, arm = len(image), max(1, round(len(image) / 64))
    for side in (-reach, reach):
        centre = np.array([z, x + side]) * size
        row, at = np.clip(centre.astype(int), 2 * arm, size - 1 - 2 * arm)
        image[row, at - arm : at + arm + 1] = MARKER_GREY
        image[row - arm : row + arm + 1, at] = MARKER_GREY


def draw_text(image: NDArray[np.uint8], rng: Generator) -> None:
    """Draw something like a word, too small to read, near the lower or the upper edge."""
    size, scale = len(image), max(1, round(len(image) / 64))
    letters = (rng.random((3, int(rng.integers(6, 17)))) < 0.5).repeat(scale, 0).repeat(scale, 1)
    height, width = letters.shape
    top = int(rng.integers(size * 3 // 4, size - height + 1)) if rng.random() < 0.8 else 2 * scale
    left = int(rng.integers(0, max(1, size - width)))
    area = image[top : top + height, left : left + width]
    area[letters[: area.shape[0], : area.shape[1]]] = MARKER_GREY
