"""Draw what a simulated patient looks like: BI-RADS descriptors, tissue, machine.

Lowest of the five modules behind the simulated ultrasound: `descriptors` draws numbers,
`anatomy` turns them into tissue, `lesions` adds the lesion, `scanner` takes
the image and `phantom` is what the course calls.

The words are those of the ultrasound lexicon of ACR BI-RADS (American College of Radiology,
Breast Imaging Reporting and Data System, 5th edition 2013; the echogenic halo is from the
4th edition, 2003). THE PROBABILITIES ARE INVENTED: they are set so that the simulated task is
about as hard for a network as BreastMNIST. They are no clinical frequencies, and nothing about
patients may be learned from them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Invented for difficulty, not clinical: P(descriptor | malignant), P(descriptor | benign lesion).
YES_NO: Final[dict[str, tuple[float, float]]] = {
    "irregular": (0.88, 0.10),  # shape: irregular, else oval or round
    "indistinct": (0.78, 0.14),  # margin: indistinct, else circumscribed
    "taller_than_wide": (0.55, 0.12),  # orientation: not parallel, else parallel
    "heterogeneous": (0.60, 0.25),  # echo pattern: heterogeneous, else even
    "halo": (0.50, 0.08),  # lesion boundary: echogenic halo, else abrupt interface
    "calcifications": (0.35, 0.10),  # calcifications in the mass
}


# Invented as well; the columns of each table add up to 1.
ONE_OF: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "posterior": {
        "shadowing": (0.67, 0.09),
        "unchanged": (0.24, 0.43),
        "enhancement": (0.09, 0.48),
    },
    "echo": {
        "anechoic": (0.04, 0.28),
        "hypoechoic": (0.85, 0.54),
        "isoechoic": (0.11, 0.18),
    },
}


# BUSI, the source of BreastMNIST, has 133 normal images among 570 normal or benign ones
# (Al-Dhabyani et al. 2020, doi:10.1016/j.dib.2019.104863).
NORMAL_SHARE: Final = 0.23

# Median lesion radius in image heights: malignant, benign. Invented.
MEDIAN_SIZE: Final = (0.170, 0.128)

# What the oracle says of a patient without a lesion, who is never malignant here.
NO_LESION_LOG_ODDS: Final = -20.0
ABSENT: Final = "absent"
Booleans = NDArray[np.bool_]
Generator = np.random.Generator


def draw_patients(
    labels: NDArray[np.int64],
    rng: Generator,
    *,
    malignant: float,
    contrast: float,
    mimic: float,
) -> pd.DataFrame:
    """Draw every factor of each patient: a row per patient, in the order of `labels`.

    Args:
        labels: (N,) 0 malignant, 1 normal or benign.
        rng: Generator that is drawn from.
        malignant: Prior probability of the malignant class, for `log_odds`.
        contrast: Factor on how far lesions and their shadows stand out (in decibels).
        mimic: Probability that a lesion looks as the other class does.

    Returns:
        Columns as in `Phantom.factors` (see `tlcourse.simulation.phantom`) but for those of a view.

    >>> frame = draw_patients(
    ...     np.array([0, 1]), np.random.default_rng(0), malignant=0.5, contrast=1.0, mimic=0.0
    ... )
    >>> bool(frame.lesion[0])
    True
    """
    lesion = (labels == 0) | (rng.random(len(labels)) > NORMAL_SHARE)
    swapped = rng.random(len(labels)) < mimic
    looks_malignant = (labels == 0) ^ swapped
    frame = pd.DataFrame({"lesion": lesion, "mimic": lesion & swapped})
    ratio = _add_descriptors(frame, looks_malignant, rng)
    frame["log_odds"] = np.where(lesion, _log_odds(ratio, malignant, mimic), NO_LESION_LOG_ODDS)
    _add_lesion_numbers(frame, looks_malignant, contrast, rng)
    _blank_without_lesion(frame)
    _add_tissue(frame, rng)
    _add_machine(frame, rng)
    return frame


def _add_descriptors(
    frame: pd.DataFrame, malignant: Booleans, rng: Generator
) -> NDArray[np.float64]:
    """Draw the descriptors; return log P(all of them | malignant) / P(... | benign)."""
    ratio = np.zeros(len(frame))
    for name, (p_malignant, p_benign) in YES_NO.items():
        present = rng.random(len(frame)) < np.where(malignant, p_malignant, p_benign)
        frame[name] = present
        absent_ratio = np.log((1 - p_malignant) / (1 - p_benign))
        ratio += np.where(present, np.log(p_malignant / p_benign), absent_ratio)
    for name, table in ONE_OF.items():
        chances = np.array(list(table.values()))  # (levels, 2)
        of_patient = np.where(malignant[:, None], chances[:, 0], chances[:, 1])
        uniform = rng.random((len(frame), 1))
        level = (uniform > of_patient.cumsum(1)[:, :-1]).sum(1)
        frame[name] = np.array(list(table))[level]
        ratio += np.log(chances[level, 0] / chances[level, 1])
    return ratio


def _log_odds(ratio: NDArray[np.float64], malignant: float, mimic: float) -> NDArray[np.float64]:
    """Weigh the likelihood ratio by how often lesions mimic and how common each class is."""
    likelihood = np.exp(ratio)
    mixed = ((1 - mimic) * likelihood + mimic) / (1 - mimic + mimic * likelihood)
    prior = malignant / ((1 - malignant) * (1 - NORMAL_SHARE))
    return np.asarray(np.log(mixed * prior))


def _add_lesion_numbers(
    frame: pd.DataFrame, malignant: Booleans, contrast: float, rng: Generator
) -> None:
    """Draw size, place and strength of the lesion; lengths in image heights."""
    n = len(frame)
    median = np.where(malignant, *MEDIAN_SIZE)
    tall, fuzzy = frame["taller_than_wide"], frame["indistinct"]
    frame["size"] = np.clip(median * np.exp(rng.normal(0, 0.36, n)), 0.055, 0.32)
    parallel, upright = rng.normal(0.62, 0.12, n), rng.normal(1.15, 0.15, n)
    frame["aspect"] = np.clip(np.where(tall, upright, parallel), 0.35, 1.5)
    frame["tilt"] = rng.normal(0, 0.25, n)
    frame["depth"] = rng.uniform(0.20, 0.52, n)
    frame["lateral"] = np.clip(rng.normal(0, 0.13, n), -0.38, 0.38)
    frame["edge"] = np.where(fuzzy, rng.uniform(0.012, 0.032, n), rng.uniform(0.003, 0.008, n))
    echo_db = {
        "anechoic": rng.uniform(20, 30, n),
        "hypoechoic": rng.uniform(9, 19, n),
        "isoechoic": rng.uniform(3, 8, n),
    }
    posterior_db = {
        "shadowing": -rng.uniform(8, 22, n),
        "unchanged": rng.normal(0, 2, n),
        "enhancement": rng.uniform(4, 12, n),
    }
    frame["echo_db"] = -contrast * _pick(frame["echo"], echo_db)
    frame["posterior_db"] = contrast * _pick(frame["posterior"], posterior_db)
    frame["satellites"] = np.where(rng.random(n) < 0.12, rng.integers(1, 3, n), 0)


def _pick(levels: pd.Series[str], values: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.asarray(np.select([levels == name for name in values], list(values.values())))


def _blank_without_lesion(frame: pd.DataFrame) -> None:
    """Say nothing of a lesion that is not there: False, 0, NaN or "absent"."""
    none = ~frame["lesion"]
    frame.loc[none, list(YES_NO)] = False
    frame.loc[none, list(ONE_OF)] = ABSENT
    frame.loc[none, "satellites"] = 0
    numbers = ["size", "aspect", "tilt", "depth", "lateral", "edge", "echo_db", "posterior_db"]
    frame.loc[none, numbers] = np.nan


def _add_tissue(frame: pd.DataFrame, rng: Generator) -> None:
    """Draw the healthy breast: depths in image heights, scales in grid pixels, echo in dB."""
    n = len(frame)
    frame["skin"] = rng.uniform(0.015, 0.04, n)
    frame["fat_depth"] = rng.uniform(0.10, 0.40, n)
    frame["muscle_depth"] = rng.uniform(0.60, 1.15, n)
    frame["gland_db"] = rng.normal(2, 3, n)
    frame["fat_db"] = rng.normal(-6, 2.5, n)
    frame["streak_db"] = rng.uniform(2.0, 4.5, n)
    frame["septa_db"] = rng.uniform(8, 17, n)
    frame["streak_height"] = rng.uniform(1.6, 3.6, n)
    frame["streak_width"] = rng.uniform(7, 20, n)
    frame["fat_lobules"] = rng.integers(0, 4, n)
    frame["rib_shadows"] = np.where(rng.random(n) < 0.5, rng.integers(1, 3, n), 0)
    frame["dark_below"] = np.where(rng.random(n) < 0.3, rng.uniform(6, 20, n), 0.0)


def _add_machine(frame: pd.DataFrame, rng: Generator) -> None:
    """Draw how the scanner was set for this patient."""
    n = len(frame)
    frame["gain"] = rng.normal(0, 3.0, n)
    frame["attenuation"] = rng.normal(25, 6.0, n)  # dB lost from top to bottom of the image
    frame["dynamic_range"] = rng.uniform(48, 64, n)
    frame["resolution"] = rng.uniform(0.8, 1.35, n)
    frame["focus"] = rng.uniform(0.25, 0.6, n)
    # A curved probe sees a fan: the top of the image bends down to the sides.
    frame["curvature"] = np.where(rng.random(n) < 0.05, rng.uniform(0.2, 0.5, n), 0.0)
