"""Draw and deal images: stratified by label, groups kept whole, the same for the same seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FRACTIONS = (0.7, 0.1, 0.2)
"""Shares of train, val and test: BreastMNIST's own (546, 78 and 156 of 780)."""


def apportion(total: int, weights: NDArray[np.float64], minimum: int = 0) -> NDArray[np.int64]:
    """Share `total` out in proportion to `weights`, in whole numbers that sum to it exactly.

    Largest remainders (Hamilton's method), after each place got its `minimum`.

    Args:
        total: At least `minimum` times the number of places.
        weights: Non-negative `(P,)`, not all zero.
        minimum: What every place gets at least.

    >>> apportion(780, np.array([0.7, 0.1, 0.2])).tolist()
    [546, 78, 156]
    >>> apportion(10, np.array([99.0, 1.0]), minimum=1).tolist()
    [9, 1]
    """
    ideal = total * weights / weights.sum()
    shares: NDArray[np.int64] = np.maximum(np.floor(ideal + 1e-9).astype(np.int64), minimum)
    while shares.sum() != total:
        step = 1 if shares.sum() < total else -1
        # The place farthest from its ideal moves; one at its minimum cannot give.
        want = step * (ideal - shares)
        want[(step < 0) & (shares <= minimum)] = -np.inf
        shares[np.argmax(want)] += step
    return shares


def stratified_choice(labels: NDArray[np.int64], n: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Draw `n` indices without repeats, every class with its share and at least one image.

    With one seed and two classes, the drawing of a smaller `n` is part of that of a larger one.

    Args:
        labels: int64 `(N,)`.
        n: From the number of classes present to N.
        seed: What the drawing starts from.

    Returns:
        int64 `(n,)`, in ascending order.

    Raises:
        ValueError: If `n` is out of range.

    >>> stratified_choice(np.array([0, 0, 0, 0, 1, 1]), 3).shape
    (3,)
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not len(classes) <= n <= len(labels):
        raise ValueError(
            f"expected n from {len(classes)} (one of each class) to {len(labels)} (all images), "
            f"got {n}"
        )
    rng = np.random.default_rng(seed)
    shares = apportion(n, counts.astype(np.float64), minimum=1)
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


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
    part_of = _deal_groups(content, order, np.asarray(fractions), rng)
    parts = [np.flatnonzero(part_of[owner] == part) for part in range(len(fractions))]
    _check_every_class(parts, labels)
    return parts


def _deal_groups(
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
