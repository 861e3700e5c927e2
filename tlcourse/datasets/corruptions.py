"""Spoil images as bad machines and bad storage do, in five severities.

The idea, and most of the names, are those of MedMNIST-C (Di Salvo, Doerrich and Ledig 2024,
*MedMNIST-C: Comprehensive benchmark and improved classifier robustness by simulating realistic
image corruptions*), which follows ImageNet-C (Hendrycks and Dietterich 2019). **The severities
are this package's own**: they are meant for ultrasound at 28 to 224 pixels, and a score under
them is not one that MedMNIST-C tabulates.

The work is done by scikit-image and Pillow. Bits of `jpeg` depend on the JPEG library inside
Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from skimage.exposure import adjust_gamma
from skimage.filters import gaussian
from skimage.util import img_as_ubyte, random_noise

Picture = NDArray[np.uint8]
SEVERITIES: Final = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One way to spoil an image.

    Attributes:
        spoil: A function of an image `(H, W)`, an amount and a random generator.
        amounts: The amount at severity 1 to 5.
        meaning: What the amount says.

    >>> CORRUPTIONS["jpeg"].amounts, CORRUPTIONS["jpeg"].meaning
    ((50, 30, 18, 10, 5), 'quality of the JPEG file, of 100')
    """

    spoil: Callable[[Picture, float, np.random.Generator], NDArray[Any]]
    amounts: tuple[float, float, float, float, float]
    meaning: str


def corrupt(images: NDArray[np.uint8], name: str, severity: int, seed: int) -> NDArray[np.uint8]:
    """Return a corrupted copy of `images`; a higher severity changes them more.

    The noise of an image depends on `seed` and its place alone, so the first ten of a thousand
    come out as ten given alone do, and all severities scale the same draw.

    Args:
        images: uint8 `(N, H, W)`.
        name: A key of `CORRUPTIONS`.
        severity: 1 (mild) to 5 (hardly usable).
        seed: Seed of the noise; corruptions without chance do not read it.

    Returns:
        uint8 `(N, H, W)`.

    Raises:
        ValueError: If images have another shape or type, or name or severity is unknown.

    >>> images = np.full((2, 32, 32), 100, np.uint8)
    >>> corrupt(images, "brightness_up", severity=2, seed=0)[0, 0, 0].item()
    140
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(f"expected uint8 images (N, H, W), got {images.dtype} {images.shape}")
    if name not in CORRUPTIONS:
        raise ValueError(f"name must be one of {', '.join(CORRUPTIONS)}; got {name!r}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of 1 to 5, got {severity!r}")
    kind = CORRUPTIONS[name]
    amount = kind.amounts[int(severity) - 1]
    # One image at a time: scikit-image works in float64, eight times the size of the whole set.
    spoiled = np.empty_like(images)
    for i, image in enumerate(images):
        spoiled[i] = kind.spoil(image, amount, np.random.default_rng([seed, i]))
    return spoiled


def _noise(mode: str, image: Picture, amount: float, rng: np.random.Generator) -> NDArray[Any]:
    return _as_bytes(random_noise(image, mode, rng=rng, var=amount**2))


def _blur(image: Picture, amount: float, _rng: np.random.Generator) -> NDArray[Any]:
    return _as_bytes(gaussian(image, sigma=amount * min(image.shape)))


def _jpeg(image: Picture, amount: float, _rng: np.random.Generator) -> NDArray[Any]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=int(amount))
    with Image.open(file) as read:
        return np.asarray(read)


def _enhanced(
    kind: Callable[[Image.Image], Any], image: Picture, amount: float, _rng: np.random.Generator
) -> NDArray[Any]:
    return np.asarray(kind(Image.fromarray(image)).enhance(amount))


def _gamma(image: Picture, amount: float, _rng: np.random.Generator) -> NDArray[Any]:
    return np.asarray(adjust_gamma(image, amount))


def _pixelate(image: Picture, amount: float, _rng: np.random.Generator) -> NDArray[Any]:
    height, width = image.shape
    few = max(1, round(amount * width)), max(1, round(amount * height))
    small = Image.fromarray(image).resize(few, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def _as_bytes(image: NDArray[np.float64]) -> NDArray[Any]:
    return np.asarray(img_as_ubyte(np.clip(image, 0, 1)))


_brighter = partial(_enhanced, ImageEnhance.Brightness)

CORRUPTIONS: Final[dict[str, Corruption]] = {
    "gaussian_noise": Corruption(
        partial(_noise, "gaussian"),
        (0.03, 0.06, 0.1, 0.15, 0.22),
        "deviation of what is added to each pixel, of the range from black to white",
    ),
    "speckle_noise": Corruption(
        partial(_noise, "speckle"),
        (0.1, 0.2, 0.35, 0.5, 0.75),
        "deviation of what is added to each pixel, of the pixel's own value",
    ),
    "blur": Corruption(
        _blur,
        (0.016, 0.024, 0.034, 0.046, 0.06),
        "deviation of the Gaussian that blurs, of the shorter side",
    ),
    "jpeg": Corruption(_jpeg, (50, 30, 18, 10, 5), "quality of the JPEG file, of 100"),
    "brightness_up": Corruption(_brighter, (1.2, 1.4, 1.65, 1.95, 2.4), "factor on each pixel"),
    "brightness_down": Corruption(_brighter, (0.8, 0.65, 0.5, 0.37, 0.25), "factor on each pixel"),
    "contrast_down": Corruption(
        partial(_enhanced, ImageEnhance.Contrast),
        (0.8, 0.62, 0.46, 0.32, 0.2),
        "factor on each pixel's distance from the image's mean",
    ),
    "gamma": Corruption(
        _gamma,
        (1.2, 1.45, 1.8, 2.3, 3.0),
        "exponent of each pixel from 0 to 1: above 1 the middle tones darken",
    ),
    "pixelate": Corruption(
        _pixelate,
        (0.6, 0.45, 0.33, 0.24, 0.16),
        "side of the coarse image, of the side of the given one",
    ),
}
"""Name to corruption."""
