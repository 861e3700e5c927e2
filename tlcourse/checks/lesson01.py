"""Checks of lesson 01, Reuse features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcourse.checks.core import call, check, close, number, numbers, require

Rows = NDArray[np.float64]


@check("mean and spread per column, axis=0, of train_rows; then use them on both")
def check_standardise(function: Callable[..., Any]) -> str:
    """Check a function that scales training and judged rows by the training rows alone."""
    rng = np.random.default_rng(0)
    train = rng.normal(5, 3, (40, 3)) * (1, 10, 100)
    held_out = rng.normal(9, 1, (20, 3)) * (1, 10, 100)
    answer = call(function, train.copy(), held_out.copy())
    require(
        isinstance(answer, tuple | list) and len(answer) == 2,
        "return two arrays, the training rows first: return scaled_train, scaled_held_out",
    )
    first, second = (
        numbers(rows, f"{count} rows of 3", (count, 3))
        for rows, count in zip(answer, (40, 20), strict=True)
    )
    both = np.concatenate([train, held_out])
    require(
        not _same(first, second, train, held_out, both),
        "leakage: mean and spread come from both parts, so the held-out images helped to prepare "
        "the training. Take them from train_rows alone",
    )
    require(
        not close(second, _scaled(held_out, held_out)),
        "the held-out rows are scaled by their own mean and spread: then a lone patient could not "
        "be judged. Use those of train_rows for both",
    )
    require(
        not close(first, (train - train.mean()) / train.std()),
        "one mean for all columns: give each feature its own, with axis=0",
    )
    require(
        _same(first, second, train, held_out, train)
        or _same(first, second, train, held_out, train, 1),
        "expected (rows - mean) / spread with mean and spread (standard deviation) per column of "
        "train_rows",
    )
    return "nothing of the held-out images went into the preparation"


@check("look along the values for pixels: which is the first size at least as high as the goal?")
def check_images_needed(answer: int, pixels: Mapping[int, float], goal: float) -> str:
    """Check the smallest size at which `pixels` (AUC by size) reaches `goal`; 0 for none."""
    value = number(answer, "the number of images")
    enough = sorted(size for size, score in pixels.items() if score >= goal)
    expected = enough[0] if enough else 0
    require(
        not enough or value != max(enough) or value == expected,
        "that is enough, but a smaller size is too: give the smallest",
    )
    require(
        value == 0 or value in pixels, f"give one of the sizes {sorted(pixels)}, or 0 if none will"
    )
    require(enough or value == 0, "even there pixels stay below the goal: the answer is 0")
    require(
        value == 0 or pixels[int(value)] >= goal,
        f"with {int(value)} images pixels are still below the goal of {goal:.3f}",
    )
    require(value == expected, f"pixels reach {goal:.3f} at a smaller size or at all: look again")
    if not enough:
        return "no size is enough here: fifty scans and ImageNet beat pixels with all of them"
    return f"pixels need {expected} images for what the ImageNet network gives with 50"


@check('"bare", "standardised" or "measured": which makes it hardest for the ImageNet network?')
def check_baseline(answer: str, scores: Mapping[str, float]) -> str:
    """Check the choice of the strongest version of a baseline among `scores` (AUC by name)."""
    choice = str(answer).strip().lower()
    require(choice in scores, f"expected one of {list(scores)}, got {answer!r}")
    require(
        choice != "bare",
        "bare, the learning block hardly moves, because the numbers are tiny: the score tells of "
        "the fit and not of the features",
    )
    best = max(scores, key=lambda name: scores[name])
    require(
        choice == best,
        f"{choice!r} scores {scores[choice]:.3f}, {best!r} scores {scores[best]:.3f}. Against the "
        "weaker baseline any method looks good: take the stronger",
    )
    return f"{best}: who claims a gain compares with the strongest version of the other side"


def _scaled(rows: Rows, by: Rows, ddof: int = 0) -> Rows:
    scaled: Rows = (rows - by.mean(axis=0)) / by.std(axis=0, ddof=ddof)
    return scaled


def _same(first: Rows, second: Rows, train: Rows, held_out: Rows, by: Rows, ddof: int = 0) -> bool:
    return close(first, _scaled(train, by, ddof)) and close(second, _scaled(held_out, by, ddof))
