"""Divide images into train, val and test: as published, or anew with near copies together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcourse.datasets.duplicates import leakage, near_leakage
from tlcourse.datasets.imagesets import (
    PARTS,
    ImageSet,
    InvalidDataset,
    LeakageWarning,
    Split,
    join,
)
from tlcourse.datasets.likeness import near_groups
from tlcourse.datasets.rawimages import RawImages
from tlcourse.datasets.splitting import FRACTIONS, grouped_split

SPLITS = ("grouped", "official")


class Provenance(NamedTuple):
    """Where images come from: what `ImageSet` says under the same names."""

    name: str
    source: str
    license: str = "the owner's"
    citation: str = "the owner's"


def divide(
    raw: RawImages,
    about: Provenance,
    *,
    split: str | None,
    threshold: float,
    seed: int = 0,
    progress: bool = False,
    known_leak: bool = False,
    stacklevel: int = 2,
) -> ImageSet:
    """Divide images as `load_images` describes under `split`.

    Args:
        raw: Images, labels and, where there are any, the published parts.
        about: What the set says of itself.
        split: "grouped", "official", or None, which is "grouped" and refuses a file whose
            published parts share half or more of their images.
        threshold: Correlation above which images are near copies and share a group.
        seed: What the dealing starts from.
        progress: Whether to show a progress bar.
        known_leak: Whether the leak of the published parts is on record, so that dealing them
            anew needs no warning.
        stacklevel: Where a warning points, as for `warnings.warn`.

    Raises:
        InvalidDataset: If half of a part stands in another one, or the images do not suffice
            (too few, or too many alike) to be dealt out.

    Warns:
        LeakageWarning: If published parts share copies, exact or near.
    """
    if raw.parts is None and split == "official":
        raise ValueError(f"{about.source} has no train, val and test: use split='grouped'")
    groups = near_groups(raw.images, threshold, progress=progress)
    pooled = Split(raw.images, raw.labels, groups)
    if raw.parts is not None:
        rows = [np.flatnonzero(raw.parts == part) for part in PARTS]
        published = _assemble(pooled, rows, raw.classes, about, "official")
        leak = leakage(published, fatal=split != "grouped") or near_leakage(
            published, groups, raw.parts
        )
        if leak and (split == "official" or not known_leak):
            remedy = "" if split == "official" else ". Here they were dealt anew, copies together"
            warnings.warn(leak + remedy, LeakageWarning, stacklevel=stacklevel + 1)
        if split == "official":
            return published
    rows = deal(raw.labels, groups, seed=seed, where=about.source)
    return _assemble(pooled, rows, raw.classes, about, "grouped")


def deal(
    labels: NDArray[np.int64], groups: NDArray[np.int64], *, where: str, seed: int = 0
) -> list[NDArray[np.int64]]:
    """Deal images 70/10/20 by `grouped_split`; see that no part comes out starved.

    Args:
        labels: int64 `(N,)`.
        groups: int64 `(N,)`.
        where: What the message names.
        seed: What the dealing starts from.

    Raises:
        InvalidDataset: If a part lacks a class, or gets less than half of what it should.

    >>> [len(rows) for rows in deal(np.arange(20) % 2, np.arange(20), where="numbers")]
    [14, 2, 4]
    """
    expected = "enough independent images of every class for train, val and test"
    largest = int(np.unique(groups, return_counts=True)[1].max(initial=0))
    remedy = (
        "Add images; or, if images are alike without being copies (X-rays are), use a threshold "
        "nearer to 1 or split='official'"
    )
    try:
        rows = grouped_split(labels, groups, seed=seed)
    except ValueError as error:
        found = f"{len(labels)} images, the largest group of near copies {largest}: {error}"
        raise InvalidDataset(where, expected, found, remedy) from error
    for part, share, dealt in zip(PARTS, FRACTIONS, rows, strict=True):
        if len(dealt) < share * len(labels) / 2:
            found = f"{largest} of {len(labels)} images alike, which leaves {len(dealt)} for {part}"
            raise InvalidDataset(where, expected, found, remedy)
    return rows


def dealt_by_image(data: ImageSet, *, seed: int = 0) -> ImageSet:
    """Deal all images of a set anew as if none belonged together: the mistake that leaks.

    For audits: groups are kept, so that what the mistake parted can be counted.

    Args:
        data: A set, whatever its partition.
        seed: What the dealing starts from.

    Raises:
        InvalidDataset: If there are too few images to be dealt out.

    >>> part = Split(np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2, np.arange(20) // 4)
    >>> data = dealt_by_image(ImageSet("tiny", part, part, part, ("even", "odd")))
    >>> data.partition, bool(set(data.train.groups) & set(data.test.groups))
    ('image', True)
    """
    pooled = join(data.development, data.test)
    alone = np.arange(len(pooled))
    rows = deal(pooled.labels, alone, where=data.name, seed=seed)
    train, val, test = (pooled.select(part) for part in rows)
    return replace(data, train=train, val=val, test=test, partition="image")


def _assemble(
    pooled: Split,
    rows: Sequence[NDArray[np.int64]],
    classes: tuple[str, ...],
    about: Provenance,
    partition: str,
) -> ImageSet:
    train, val, test = (pooled.select(part) for part in rows)
    return ImageSet(
        name=about.name,
        train=train,
        val=val,
        test=test,
        classes=classes,
        source=about.source,
        license=about.license,
        citation=about.citation,
        partition=partition,
    )
