"""Checks of lesson 07, Find where transfer fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from tlcourse.checks.core import CheckFailed, call, check, compare, numbers, require

PublishedScore = tuple[float, int, int]
"""Accuracy in points, images of the largest class, images in all."""


@check("compare every pair (i, j) with i < j: np.array_equal on the images, != on the labels")
def check_two_labels(
    function: Callable[[NDArray[np.uint8], NDArray[np.int64]], Iterable[tuple[int, int]]],
) -> str:
    """Check a search for pairs of equal images with different labels."""
    images, labels = _planted()
    _check_pairs(_as_pairs(call(function, images, labels)))
    return "asked about both images of such a pair, any program gets one wrong"


def _as_pairs(answer: object) -> list[tuple[int, int]]:
    try:
        return [(int(i), int(j)) for i, j in cast(Iterable[tuple[int, int]], answer)]
    except (TypeError, ValueError):
        found = type(answer).__name__
        raise CheckFailed(f"expected a list of pairs such as [(0, 3)], got {found}") from None


def _planted() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images whose pairs (1, 4) and (3, 7) are equal under two labels; (2, 5) agree."""
    images = np.random.default_rng(0).integers(20, 120, (9, 6, 6), np.uint8)
    images[4], images[7], images[5] = images[1], images[3], images[2]
    images[6] = images[0] + 40  # the same lesion, brighter: no copy
    images[8] = np.roll(images[0], 1, axis=1)  # the same numbers, elsewhere
    return images, np.array([0, 0, 1, 1, 1, 1, 1, 0, 1])


def _check_pairs(pairs: list[tuple[int, int]]) -> None:
    right, found = {(1, 4), (3, 7)}, {tuple(sorted(pair)) for pair in pairs}
    require(pairs, "no pair was found, but two were planted: compare all pixels of two images")
    require(all(i != j for i, j in pairs), "an image is paired with itself: take i < j only")
    require(len(pairs) == len(found), "pairs come twice, as (i, j) and as (j, i): take i < j only")
    require((2, 5) not in found, "a pair with the same label is listed: the labels must differ")
    require(
        (0, 6) not in found, "a brighter copy is listed: here every pixel must be equal, not alike"
    )
    require(
        (0, 8) not in found,
        "two images with the same numbers in other places are listed: compare pixel by pixel, "
        "not sums or means",
    )
    require(found <= right, f"the pair {min(found - right, default=None)} is not equal")
    require(found == right, f"only {len(found)} of 2 pairs was found: go on after the first")
    require(all(i < j for i, j in pairs), "give the smaller number first: i < j")


@check("mean over rows and the left columns, mean over rows and the right ones, side by side")
def check_by_halves(function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> str:
    """Check features that keep the side: means of the left and of the right half of each map."""
    maps = np.random.default_rng(0).normal(size=(3, 5, 4, 6)).astype(np.float32)
    answer = numbers(call(function, maps), "an array of features, a row per image")
    left, right = maps[..., :3].mean(axis=(2, 3)), maps[..., 3:].mean(axis=(2, 3))
    _check_half_shapes(answer, left)
    upper, lower = maps[:, :, :2].mean(axis=(2, 3)), maps[:, :, 2:].mean(axis=(2, 3))
    rows = "that halves the rows, so it tells above from below: the columns are the last axis"
    compare(
        answer,
        np.hstack([left, right]),
        "the numbers are not the means of the two halves: maps[..., :width // 2] is the left one, "
        "and the mean goes over the last two axes",
        (np.hstack([upper, lower]), rows),
        (
            np.hstack([right, left]),
            "the halves are exchanged: the left one, the first columns, comes first",
        ),
    )
    return "twice as many features, and left is no longer the same as right"


def _check_half_shapes(answer: NDArray[np.float64], half: NDArray[np.float32]) -> None:
    images, channels = half.shape
    shape, wanted = answer.shape, (images, 2 * channels)
    require(
        shape != (images, channels),
        f"a mean per channel, {shape}, is one number for both sides: two are needed",
    )
    require(
        shape not in {(2 * images, channels), (2, images, channels)},
        f"the halves lie below each other, {shape}: put the features of one image into one row, "
        "np.concatenate(..., axis=1)",
    )
    require(
        len(shape) == 2,
        f"expected one row per image, {wanted}, got {shape}: take the mean over rows and columns",
    )
    require(shape == wanted, f"expected two means per channel, {wanted}, got {shape}")


@check("round(100 * largest / images, 2) is what the majority answer scores: which rows equal it?")
def check_suspects(suspects: Iterable[str], rows: Mapping[str, PublishedScore]) -> str:
    """Check which published rows have exactly the accuracy of the majority answer.

    Args:
        suspects: Names of rows.
        rows: Accuracy in points (two decimals), images of the largest class, images in all.
    """
    require(
        not isinstance(suspects, str), "one name is not a list: write [...], even around one name"
    )
    named = set(suspects)
    unknown = sorted(map(str, named - set(rows)))
    require(not unknown, f"no row is called {', '.join(unknown)}; there are {', '.join(rows)}")
    right = {n for n, (points, most, images) in rows.items() if points == _points(most, images)}
    require(
        named or not right,
        "none was found: the table is in points with two decimals, so multiply by 100 and round",
    )
    near = {n for n in named - right if abs(rows[n][0] - _points(*rows[n][1:])) < 10}
    require(
        not near,
        f"{', '.join(sorted(near))}: near the majority's accuracy is not equal to it. One image "
        "more or less already shows in these decimals",
    )
    wrong = ", ".join(sorted(named - right))
    require(named <= right, f"{wrong}: far from the accuracy of the majority answer")
    require(named == right, f"{len(right - named)} more of the rows equal the majority's accuracy")
    return "equal to the second decimal: ask what such a model answers before you quote its score"


def _points(most: int, images: int) -> float:
    return round(100 * most / images, 2)
