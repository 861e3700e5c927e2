"""Divide images into parts or folds; what belongs together stays together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlcourse.datasets.base import (
    PARTS,
    ImageSet,
    InvalidDataset,
    LeakageWarning,
    RawImages,
    Split,
    apportion,
    join,
)
from tlcourse.datasets.duplicates import leakage, near_groups, near_leakage

FRACTIONS = (0.7, 0.1, 0.2)
"""Shares of train, val and test: BreastMNIST's own (546, 78 and 156 of 780)."""


def grouped_split(
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    fractions: tuple[float, ...] = FRACTIONS,
    seed: int = 0,
) -> list[NDArray[np.int64]]:
    """Deal images into parts so that no group is parted and every part has its share of a class.

    Big groups go first, each to a part drawn by the room it has left for the group's labels;
    single images come last and fill the parts up, so the sizes are exact where enough of them
    exist. A group that fits nowhere goes where it overflows least.

    Args:
        labels: int64 `(N,)`.
        groups: int64 `(N,)`: what belongs together.
        fractions: Share of each part; they sum to 1.
        seed: What the dealing starts from.

    Returns:
        Ascending indices, an array per part.

    Raises:
        ValueError: If a part would be left without a class: too few images or groups of it.

    >>> parts = grouped_split(np.arange(20) % 2, np.arange(20) // 2)
    >>> [len(part) for part in parts]
    [14, 2, 4]
    """
    rng = np.random.default_rng(seed)
    _, owner, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    classes, codes = np.unique(labels, return_inverse=True)
    content = np.zeros((len(sizes), len(classes)), np.int64)
    np.add.at(content, (owner, codes), 1)
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    part_of = _assign_groups(content, order, np.asarray(fractions), rng)
    parts = [np.flatnonzero(part_of[owner] == part) for part in range(len(fractions))]
    _check_every_class(parts, labels)
    return parts


def _assign_groups(
    content: NDArray[np.int64],
    order: NDArray[np.int64],
    fractions: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The part of each group, given its images of each class `(groups, classes)`."""
    room = _rooms(content.sum(0), fractions)
    lacking = np.ones(room.shape, bool)
    left = (content > 0).sum(0)
    part_of = np.empty(len(content), np.int64)
    for group in order:
        mine = content[group] > 0
        # Once as many groups of a class are left as parts lack it, each goes to one of those.
        scarce = lacking & mine & (lacking.sum(0) >= left)
        allowed = scarce.any(1) if scarce.any() else np.ones(len(room), bool)
        part = part_of[group] = _place(content[group], room, allowed, rng)
        room[part] -= content[group]
        lacking[part] &= ~mine
        left = left - mine
    return part_of


def _rooms(counts: NDArray[np.int64], fractions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole images `(parts, classes)`: sums over parts and over classes are both exact."""
    per_part = apportion(int(counts.sum()), fractions)
    ideal = fractions[:, None] * counts[None, :] / fractions.sum()
    # One image at least where a class has enough, so that a rare class reaches every part.
    least = counts >= len(fractions)
    rooms: NDArray[np.int64] = np.maximum(np.floor(ideal + 1e-9), least).astype(np.int64)
    while (rooms.sum(0) > counts).any():
        over = np.flatnonzero(rooms.sum(0) > counts)[0]
        rooms[np.argmax(rooms[:, over] - ideal[:, over]), over] -= 1
    while (short := counts - rooms.sum(0)).any():
        free = (per_part - rooms.sum(1))[:, None] > 0
        want = np.where(free & (short > 0)[None, :], ideal - rooms, -np.inf)
        if np.isneginf(want).all():  # minima overfilled a part: the next best takes the rest
            want = np.where((short > 0)[None, :], ideal - rooms, -np.inf)
        rooms[np.unravel_index(np.argmax(want), want.shape)] += 1
    return rooms


def _place(
    content: NDArray[np.int64],
    room: NDArray[np.int64],
    allowed: NDArray[np.bool_],
    rng: np.random.Generator,
) -> int:
    """Draw a part with room for the group, or take that which overflows least."""
    fits = allowed & (room >= content).all(1)
    if not fits.any():
        overflow = np.maximum(content - room, 0).sum(1)
        return int(np.argmin(np.where(allowed, overflow, overflow.max() + 1)))
    weights = np.where(fits, room[:, content > 0].sum(1), 0)
    return int(rng.choice(len(room), p=weights / weights.sum()))


def _check_every_class(parts: list[NDArray[np.int64]], labels: NDArray[np.int64]) -> None:
    for number, part in enumerate(parts):
        missing = sorted(set(np.unique(labels).tolist()) - set(labels[part].tolist()))
        if missing:
            raise ValueError(
                f"part {number + 1} of {len(parts)} would hold no image with label {missing[0]}: "
                "too few images, or too few independent groups of them, to deal out"
            )


Fold = tuple[NDArray[np.int64], NDArray[np.int64]]


def grouped_folds(part: Split, folds: int = 5, *, seed: int = 0) -> list[Fold]:
    """Return `folds` pairs of indices (to train on, to judge on), stratified by label.

    Images of one group are always on the same side, so that no patient or near copy is judged by
    a network that trained on it. Every image is judged in exactly one fold.

    Args:
        part: Images with labels and groups.
        folds: Number of folds, at least 2.
        seed: What the dealing starts from.

    Raises:
        ValueError: If `folds` is below 2 or a class has fewer groups than there are folds.

    >>> part = Split(np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2, np.arange(20) // 2 * 3)
    >>> [(len(train), len(held_out)) for train, held_out in grouped_folds(part, 5)]
    [(16, 4), (16, 4), (16, 4), (16, 4), (16, 4)]
    """
    if folds < 2:
        raise ValueError(f"expected at least 2 folds, got {folds}")
    for label in np.unique(part.labels):
        groups = len(np.unique(part.groups[part.labels == label]))
        if groups < folds:
            raise ValueError(
                f"{folds} folds need {folds} independent groups of each class; "
                f"label {label} has {groups}: ask for fewer folds"
            )
    # Here and not above: it takes as long to import as all else that reads and divides images.
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(part.labels, part.labels, part.groups))


SPLITS = ("grouped", "official")


class Provenance(NamedTuple):
    """Where images come from: what `ImageSet` says under the same names."""

    name: str
    source: str
    license: str = "the owner's"
    citation: str = "the owner's"


def split_images(
    raw: RawImages,
    about: Provenance,
    *,
    split: str | None = None,
    threshold: float,
    seed: int = 0,
    progress: bool = False,
    known_leak: bool = False,
    stacklevel: int = 4,
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
        InvalidDataset: If a class has no image (in a part), labels go beyond the classes, half of
            a part stands in another one, or the images do not suffice (too few, or too many
            alike) to be dealt out.

    Warns:
        LeakageWarning: If published parts share copies, exact or near.
    """
    if raw.parts is None and split == "official":
        raise ValueError(f"{about.source} has no train, val and test: use split='grouped'")
    _check_classes(about.source, raw)
    groups = near_groups(raw.images, threshold, progress=progress)
    pooled = Split(raw.images, raw.labels, groups)
    if raw.parts is not None:
        rows = [np.flatnonzero(raw.parts == part) for part in PARTS]
        published = _assemble(pooled, rows, raw, about, "official")
        leak = leakage(published, fatal=split != "grouped") or near_leakage(published)
        if leak and (split == "official" or not known_leak):
            remedy = "" if split == "official" else ". Here they were dealt anew, copies together"
            warnings.warn(leak + remedy, LeakageWarning, stacklevel=stacklevel)
        if split == "official":
            return published
    rows = split_rows(raw.labels, groups, seed=seed, where=about.source)
    return _assemble(pooled, rows, raw, about, "grouped")


def _check_classes(where: str, raw: RawImages) -> None:
    """Raise unless there are two classes or more and each has an image in every part."""
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


def split_rows(
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

    >>> [len(rows) for rows in split_rows(np.arange(20) % 2, np.arange(20), where="numbers")]
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
    for part, share, members in zip(PARTS, FRACTIONS, rows, strict=True):
        if len(members) < share * len(labels) / 2:
            found = (
                f"{largest} of {len(labels)} images alike, which leaves {len(members)} for {part}"
            )
            raise InvalidDataset(where, expected, found, remedy)
    return rows


def split_by_image(data: ImageSet, *, seed: int = 0) -> ImageSet:
    """Deal all images of a set anew as if none belonged together: the mistake that leaks.

    For audits: groups are kept, so that what the mistake parted can be counted.

    Args:
        data: A set, whatever its partition.
        seed: What the dealing starts from.

    Raises:
        InvalidDataset: If there are too few images to be dealt out.

    >>> part = Split(np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2, np.arange(20) // 4)
    >>> data = split_by_image(ImageSet("tiny", part, part, part, ("even", "odd")))
    >>> data.partition, bool(set(data.train.groups) & set(data.test.groups))
    ('image', True)
    """
    pooled = join(data.development, data.test)
    alone = np.arange(len(pooled))
    rows = split_rows(pooled.labels, alone, where=data.name, seed=seed)
    train, val, test = (pooled.select(part) for part in rows)
    return replace(data, train=train, val=val, test=test, partition="image")


def _assemble(
    pooled: Split,
    rows: Sequence[NDArray[np.int64]],
    raw: RawImages,
    about: Provenance,
    partition: str,
) -> ImageSet:
    parts: dict[str, Any] = dict(zip(PARTS, map(pooled.select, rows), strict=True))
    stated = about._asdict() | {"partition": partition, "skipped": raw.skipped}
    return ImageSet(classes=raw.classes, **parts, **stated)
