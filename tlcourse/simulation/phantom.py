"""Simulated breast ultrasound for lessons: two classes, known causes, no patient.

Not a medical phantom and no source of medical knowledge: the BI-RADS words are real, their
probabilities are invented (see `descriptors`). The image is formed as a B-mode image
is: scatterers weighted by tissue echo and attenuation are blurred by the point spread function
of the probe; its envelope is compressed to decibels and shown over the dynamic range.

Top of five modules: `descriptors` < `anatomy` < `lesions` < `phantom`, and
`anatomy` < `scanner` < `phantom`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from tlcourse.simulation.anatomy import (
    Factors,
    Generator,
    TissueShapes,
    View,
    bend,
    column,
    draw_textures,
    draw_tissue_shapes,
    nuisance_shadows,
    tissue_echo,
)
from tlcourse.simulation.descriptors import draw_patients
from tlcourse.simulation.lesions import LesionShapes, add_lesions, draw_lesion_shapes
from tlcourse.simulation.scanner import (
    LARGEST_SIZE,
    SHIFTS,
    SMALLEST_SIZE,
    Shift,
    acquire,
    check_probability,
    draw_calipers,
    draw_text,
    shrink,
)

# One draw per purpose, so that asking for another shift or more markers changes nothing else.
PHANTOM_STREAMS: Final = ("labels", "factors", "tissue", "lesions", "views", "marked")
TEXTURE_STREAM, SPECKLE_STREAM, MARKER_STREAM = range(
    len(PHANTOM_STREAMS), len(PHANTOM_STREAMS) + 3
)
VIEW_COLUMNS: Final = ("shift_x", "shift_z", "curvature")
PHANTOM_BATCH: Final = 4  # images rendered together: their maps stay within a core's cache


@dataclass(frozen=True)
class Phantom:
    """Simulated images with all that they were made from.

    Attributes:
        images: uint8 (N, size, size), rows are depth.
        labels: int64 (N,), 0 malignant, 1 normal or benign.
        patients: int64 (N,), the images of one patient share their anatomy.
        factors: One row per image. The descriptors `lesion`, `irregular`, `indistinct`,
            `taller_than_wide`, `heterogeneous`, `halo`, `calcifications` (booleans), `posterior`
            and `echo` (words; "absent" without a lesion); the lesion's numbers (NaN without one);
            tissue; machine (`gain` and `attenuation` in dB, ...); view (`shift_x`, `shift_z`,
            `calipers`, `text`); `mimic`; and `log_odds` of malignancy, which is what an oracle
            says that is told all descriptors (but not the size).
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]
    factors: pd.DataFrame

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


# The products are small: BLAS threads would only wait for each other, on a busy machine long.
@threadpool_limits.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
def simulate(
    n: int = 780,
    *,
    seed: int = 0,
    views: int = 1,
    size: int = 64,
    malignant: float = 0.27,
    shift: str | Shift | None = None,
    contrast: float = 1.5,
    mimic: float = 0.0,
    shortcut: tuple[float, float] | None = None,
    progress: bool = False,
) -> Phantom:
    """Simulate breast ultrasound images of patients with and without a malignant lesion.

    The same seed gives the same patients whatever `shift`, `shortcut` and `size` are; a larger
    `n` gives other patients. Nothing is drawn from a global generator.

    Args:
        n: Number of images, at least 2.
        seed: Non-negative.
        views: Images per patient (the last patient may have fewer), in consecutive rows.
        size: Height and width in pixels, 16 to 128.
        malignant: Share of malignant patients, between 0 and 1; met exactly but for rounding,
            and at least one patient is of each class.
        shift: Another scanner: a name in `SHIFTS` or a `Shift`; None is "none".
        contrast: Factor on the decibels by which lesions and what lies behind them stand out:
            higher is easier.
        mimic: Probability that a lesion looks as the other class does, 0 to 1: no network can
            learn these.
        shortcut: Probabilities that an image of a malignant and of a normal or benign patient
            carries calipers. None: calipers or text in a few images of every class.
        progress: Show a progress bar.

    Raises:
        ValueError: If an argument is out of its range or a shift has no such name.

    >>> phantom = simulate(4, seed=1)
    >>> phantom.images.shape, phantom.labels.tolist().count(0)
    ((4, 64, 64), 1)
    """
    shift = _as_shift(shift)
    _check_arguments(n, seed, views, size, malignant, contrast)
    check_probability("mimic", mimic)
    _check_shortcut(shortcut)
    rngs = {name: np.random.default_rng([seed, at]) for at, name in enumerate(PHANTOM_STREAMS)}
    labels = _draw_labels(-(-n // views), malignant, rngs["labels"])
    factors = draw_patients(
        labels, rngs["factors"], malignant=malignant, contrast=contrast, mimic=mimic
    )
    shapes = (
        draw_tissue_shapes(len(labels), rngs["tissue"]),
        draw_lesion_shapes(factors, rngs["lesions"]),
    )
    patients = np.arange(n) // views
    factors = factors.iloc[patients].reset_index(drop=True)
    _move_probe(factors, rngs["views"])
    _choose_markers(factors, labels[patients], shift, shortcut, rngs["marked"])
    columns = {str(name): factors[name].to_numpy() for name in factors}
    images = np.empty((n, size, size), np.uint8)
    batches = range(0, n, PHANTOM_BATCH)
    for start in tqdm(batches, disable=not progress, leave=False, desc="simulating"):
        rows = np.arange(start, min(start + PHANTOM_BATCH, n))
        part = {name: values[rows] for name, values in columns.items()}
        images[rows] = _render(rows, patients[rows], part, shapes, shift, seed, size)
    _draw_markers(images, factors, seed)
    return Phantom(images, labels[patients], patients, factors)


def _render(
    rows: NDArray[np.int64],
    patients: NDArray[np.int64],
    factors: Factors,
    shapes: tuple[TissueShapes, LesionShapes],
    shift: Shift,
    seed: int,
    size: int,
) -> NDArray[np.uint8]:
    """Render these images without markers, (N, size, size)."""
    people, first, of_image = np.unique(patients, return_index=True, return_inverse=True)
    texture_rngs = [np.random.default_rng([seed, TEXTURE_STREAM, person]) for person in people]
    shared = {name: values[first] for name, values in factors.items()}
    still = draw_textures(shared, texture_rngs).take(of_image)
    view = View(*(factors[name].astype(np.float32) for name in VIEW_COLUMNS))
    tissue, lesion = shapes[0].take(patients), shapes[1].take(patients)
    textures = bend(still, tissue, view)
    echo = tissue_echo(factors, tissue, textures, view)
    echo = add_lesions(echo, factors, lesion, textures)
    echo += nuisance_shadows(factors, tissue, view)
    speckle_rngs = [np.random.default_rng([seed, SPECKLE_STREAM, row]) for row in rows]
    shown = acquire(echo, factors, shift, speckle_rngs)
    return shrink(np.where(view.z() < -column(view.depth), 0, shown), size)


def _draw_labels(patients: int, malignant: float, rng: Generator) -> NDArray[np.int64]:
    count = int(np.clip(round(malignant * patients), 1, patients - 1))
    return np.asarray(rng.permutation(patients) >= count, np.int64)


def _move_probe(factors: pd.DataFrame, rng: Generator) -> None:
    """Vary what differs between the views of one patient; the lesion moves with the tissue."""
    n = len(factors)
    factors["shift_x"], factors["shift_z"] = rng.normal(0, 0.06, n), rng.normal(0, 0.015, n)
    factors["lateral"] -= factors["shift_x"]
    factors["depth"] += factors["shift_z"]
    factors["size"] *= np.exp(rng.normal(0, 0.06, n))
    factors["aspect"] *= np.exp(rng.normal(0, 0.10, n))
    factors["tilt"] += rng.normal(0, 0.12, n)
    factors["gain"] += rng.normal(0, 1, n)


def _choose_markers(
    factors: pd.DataFrame,
    labels: NDArray[np.int64],
    shift: Shift,
    shortcut: tuple[float, float] | None,
    rng: Generator,
) -> None:
    """Decide which images carry calipers and which text."""
    marked, kind = rng.random((2, len(labels)))
    if shortcut is None:
        calipers = (marked < shift.markers) & (kind < 0.6) & factors["lesion"]
        factors["text"] = (marked < shift.markers) & ~calipers
    else:
        calipers = marked < np.where(labels == 0, *shortcut)
        factors["text"] = False
    factors["calipers"] = calipers


def _draw_markers(images: NDArray[np.uint8], factors: pd.DataFrame, seed: int) -> None:
    """Write calipers and text into the images, in place."""
    for row in np.flatnonzero(factors["calipers"] | factors["text"]).tolist():
        rng = np.random.default_rng([seed, MARKER_STREAM, row])
        if factors["calipers"].iat[row]:
            draw_calipers(images[row], factors.iloc[row], rng)
        else:
            draw_text(images[row], rng)


def _as_shift(shift: str | Shift | None) -> Shift:
    if isinstance(shift, Shift):
        return shift
    if shift is None:
        return SHIFTS["none"]
    if shift not in SHIFTS:
        raise ValueError(f"expected a Shift or one of {', '.join(SHIFTS)} as shift, got {shift!r}")
    return SHIFTS[shift]


def _check_arguments(
    n: int, seed: int, views: int, size: int, malignant: float, contrast: float
) -> None:
    if views < 1:
        raise ValueError(f"expected at least 1 view per patient, got views={views}")
    if n <= views:
        raise ValueError(
            f"expected more images than views of one patient, so that both classes have a "
            f"patient; got n={n}, views={views}: ask for at least {views + 1} images"
        )
    if seed < 0:
        raise ValueError(f"expected a seed of 0 or more, got {seed}")
    if not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise ValueError(
            f"expected a size from {SMALLEST_SIZE} to {LARGEST_SIZE} pixels, got {size}"
        )
    if not 0 < malignant < 1:
        raise ValueError(f"expected malignant above 0 and below 1, got {malignant}")
    if contrast <= 0:
        raise ValueError(f"expected contrast above 0 (1.5 is the default), got {contrast}")


def _check_shortcut(shortcut: tuple[float, float] | None) -> None:
    if shortcut is None:
        return
    if len(shortcut) != 2:
        raise ValueError(
            f"expected two probabilities as shortcut (malignant, normal or benign), got {shortcut}"
        )
    for probability in shortcut:
        check_probability("shortcut", probability)
