"""Hold images as they were read, before they are divided; see that every class is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlcourse.datasets.imagesets import PARTS, InvalidDataset, Skipped


@dataclass(frozen=True)
class RawImages:
    """Images and labels as they lie in a file, all parts behind one another.

    Attributes:
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`.
        labels: int64 `(N,)`, 0 to C - 1.
        parts: `(N,)` names "train", "val", "test"; None where nothing is divided yet.
        classes: Names of the C labels.
        skipped: Files that were left out, because they cannot be read and this was asked for.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    parts: NDArray[np.str_] | None
    classes: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


def check_classes(where: object, raw: RawImages) -> None:
    """Raise unless there are two classes or more and each has an image in every part.

    Args:
        where: What the message names.
        raw: Images with labels.

    Raises:
        InvalidDataset: If not.
    """
    count = len(raw.classes)
    parts = np.full(len(raw.labels), "") if raw.parts is None else raw.parts
    if raw.labels.size and (raw.labels.min() < 0 or raw.labels.max() >= count):
        found = f"labels {raw.labels.min()} to {raw.labels.max()}"
        raise InvalidDataset(where, f"labels 0 to {count - 1} for {count} classes", found)
    if len(np.unique(raw.labels)) < 2:
        found = f"one: {raw.classes[0]!r}" if raw.labels.size else "no images at all"
        raise InvalidDataset(where, "images of two classes or more", found)
    for part in [""] if raw.parts is None else PARTS:
        have = np.bincount(raw.labels[parts == part], minlength=count)
        if (have == 0).any():
            missing = raw.classes[int(np.argmin(have))]
            place = f" in {part}" if part else ""
            expected = f"images of every class{place}, labels 0 to {count - 1} without a gap"
            raise InvalidDataset(where, expected, f"none of {missing!r} ({have.tolist()})")
