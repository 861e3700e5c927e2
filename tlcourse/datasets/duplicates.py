"""Find near-duplicates: images of one lesion, and what of them crosses a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tlcourse.datasets.base import ImageSet, InvalidDataset, Split

# At .95 pairs of BreastMNIST laid side by side plainly show one lesion (data/README.md; test images
# linked to train or validation: 22 of 156 at .99, 39 at .97, 52 at .95, 59 at .92).
THRESHOLD = 0.95
"""Correlation above which two images are taken for one lesion filmed again."""

BLOCK_BYTES = 64 * 2**20
"""Memory for one block of images, as float32; three such blocks are held at a time."""
Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def similar_pairs(
    images: NDArray[np.uint8], threshold: float = THRESHOLD, *, progress: bool = False
) -> Pairs:
    """Return the pairs of images that correlate above `threshold`, and all exact copies.

    Args:
        images: uint8 `(N, ...)`.
        threshold: From 0 to 1, exclusive.
        progress: Whether to show a progress bar.

    Returns:
        First index, second index (larger) and correlation of each pair, `(P,)` each.

    Raises:
        ValueError: If `threshold` is out of range.

    >>> images = np.zeros((3, 2, 2), np.uint8)
    >>> images[0, 0], images[2, 0] = 10, 200
    >>> [found.tolist() for found in similar_pairs(images)]
    [[0], [2], [1.0]]
    """
    empty = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    firsts, seconds, values = zip(empty, *_matches(images, threshold, progress), strict=True)
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values)


def near_groups(
    images: NDArray[np.uint8], threshold: float = THRESHOLD, *, progress: bool = False
) -> NDArray[np.int64]:
    """Number images so that near copies, directly or through others, share a number.

    The groups of `near_duplicates`, without keeping the pairs, of which sets with many images
    alike (X-rays, say) have more than fit into memory.

    Args:
        images: uint8 `(N, ...)`.
        threshold: Correlation, from 0 to 1, exclusive.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If `threshold` is out of range.

    >>> images = np.random.default_rng(0).integers(0, 200, (3, 8, 8), np.uint8)
    >>> images[2] = images[0] + 40
    >>> near_groups(images).tolist()
    [0, 1, 0]
    """
    groups = np.arange(len(images))
    for first, second, _ in _matches(images, threshold, progress):
        groups = linked_groups(len(images), groups[first], groups[second])[groups]
    return groups


def _matches(images: NDArray[np.uint8], threshold: float, progress: bool) -> Iterator[Pairs]:
    """Compare block with block, so that memory stays at a few `BLOCK_BYTES`."""
    if not 0 < threshold < 1:
        raise ValueError(f"expected a threshold between 0 and 1, got {threshold}")
    rows, copies = _block_rows(images), exact_copies(images)
    starts = range(0, len(images), rows)
    tasks = [(i, j) for i in starts for j in starts if j >= i]
    for i, j in tqdm(tasks, disable=not progress, leave=False, delay=1, desc="comparing images"):
        if i == j:
            left = _standardised(images[i : i + rows])
        right = left if i == j else _standardised(images[j : j + rows])
        match = left @ right.T
        # Flat images have no correlation, yet their copies are copies.
        match[copies[i : i + rows, None] == copies[None, j : j + rows]] = 1.0
        first, second = np.nonzero(match > threshold)
        later = first + i < second + j
        first, second = first[later], second[later]
        yield first + i, second + j, np.minimum(match[first, second], np.float32(1))


def exact_copies(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number the images `(N, ...)` so that two have one number when every pixel is equal.

    >>> exact_copies(np.array([[7, 7], [1, 2], [7, 7]], np.uint8)).tolist()
    [0, 1, 0]
    """
    digests = [blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    return np.asarray(pd.factorize(np.array(digests, dtype=object))[0], np.int64)


def linked_groups(
    count: int, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number `count` things so that linked ones, directly or through others, share a number.

    >>> linked_groups(4, np.array([0, 1]), np.array([1, 3])).tolist()
    [0, 0, 1, 0]
    """
    # Here and not above: all else that reads images does without, and it takes long to import.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], np.int64)


def _block_rows(images: NDArray[np.uint8]) -> int:
    pixels = max(1, int(np.prod(images.shape[1:])))
    # Neither a block of images nor the square of correlations may pass BLOCK_BYTES.
    return int(np.clip(BLOCK_BYTES // (4 * pixels), 1, np.sqrt(BLOCK_BYTES / 4)))


def _standardised(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    # In float64 the mean of a flat image is exact, so that nothing but zeros is left of it.
    flat -= flat.mean(1, keepdims=True, dtype=np.float64)
    norms: NDArray[np.float32] = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, np.maximum(norms, np.finfo(np.float32).tiny), out=flat)


@dataclass(frozen=True, eq=False)
class DuplicateReport:
    """Which images are nearly the same.

    Attributes:
        threshold: Correlation above which two images are a pair.
        groups: int64 `(N,)`: images linked by pairs, directly or through others, share a number.
            N counts the images of train, then val, then test.
        labels: int64 `(N,)`.
        parts: `(N,)` part of each image.
        pairs: A row per pair, most alike first: `first`, `second` (0 to N - 1), their parts
            (`first_part`, `second_part`), `correlation`, `exact` (every pixel equal),
            `same_label`.
    """

    threshold: float
    groups: NDArray[np.int64]
    labels: NDArray[np.int64]
    parts: NDArray[np.str_]
    pairs: pd.DataFrame

    @property
    def num_groups(self) -> int:
        """Number of groups; an image without a twin is a group of its own."""
        return len(np.unique(self.groups))

    @property
    def largest(self) -> int:
        """Number of images in the largest group."""
        return int(np.bincount(self.groups).max(initial=0))

    @property
    def crossing(self) -> dict[str, int]:
        """Per part, the number of its images whose group reaches into another part.

        Groups count, not pairs alone: an image may have its twin in another part through a third.
        """
        return _crossing(self.groups, self.parts)

    @property
    def conflicting(self) -> NDArray[np.int64]:
        """Numbers of the groups whose images carry more than one label."""
        labels = pd.Series(self.labels).groupby(self.groups).nunique()
        return labels.index[labels > 1].to_numpy(dtype=np.int64)

    @property
    def exact_conflicts(self) -> int:
        """Number of pairs with every pixel equal and different labels."""
        return int((self.pairs["exact"] & ~self.pairs["same_label"]).sum())

    def __repr__(self) -> str:
        crossing = ", ".join(f"{part} {count}" for part, count in self.crossing.items())
        return (
            f"{len(self.groups)} images in {self.num_groups} groups above correlation "
            f"{self.threshold:g}, the largest of {self.largest}\n"
            f"images with near copies in another part: {crossing}\n"
            f"exact copies: {int(self.pairs['exact'].sum())} pairs, {self.exact_conflicts} of "
            f"them with two labels; groups with two labels: {len(self.conflicting)}"
        )


def near_duplicates(
    data: ImageSet | Split, threshold: float = THRESHOLD, *, progress: bool = False
) -> DuplicateReport:
    """Find images of one thing filmed again: pairs that correlate above a threshold.

    The correlation is that of the pixels, each image's mean removed, so a copy with another gain
    or contrast is found, one turned or shifted is not. Exact copies with different labels are
    kept and reported (`exact_conflicts`), not dropped: nobody knows which label is right, a set
    with images removed is no longer the published one, and inside one group they cannot be
    learned in one part and asked for in another.

    Args:
        data: A set, or one part of it (its name is then "all").
        threshold: From 0 to 1, exclusive.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If `threshold` is out of range.

    >>> images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    >>> images[5] = images[0]
    >>> report = near_duplicates(Split(images, np.array([0, 1, 0, 1, 0, 1])))
    >>> report.num_groups, report.exact_conflicts
    (5, 1)
    """
    parts = data.parts if isinstance(data, ImageSet) else {"all": data}
    images = np.concatenate([split.images for split in parts.values()])
    labels = np.concatenate([split.labels for split in parts.values()])
    names = _part_names(parts)
    first, second, correlation = similar_pairs(images, threshold, progress=progress)
    pairs = pd.DataFrame({"first": first, "second": second})
    pairs["first_part"], pairs["second_part"] = names[first], names[second]
    pairs["correlation"] = correlation
    copies = exact_copies(images)
    pairs["exact"] = copies[first] == copies[second]
    pairs["same_label"] = labels[first] == labels[second]
    pairs = pairs.sort_values(["correlation", "first", "second"], ascending=[False, True, True])
    groups = linked_groups(len(images), first, second)
    return DuplicateReport(threshold, groups, labels, names, pairs.reset_index(drop=True))


def shared_images(data: ImageSet) -> dict[str, int]:
    """Count, per part, the images that also stand in another part, pixel for pixel.

    >>> part = Split(np.arange(4, dtype=np.uint8).reshape(4, 1, 1), np.arange(4) % 2)
    >>> val, test = Split(part.images + 3, part.labels), part.select([0, 1])
    >>> shared_images(ImageSet("tiny", part, val, test, classes=("a", "b")))
    {'train': 3, 'val': 1, 'test': 2}
    """
    copies = exact_copies(np.concatenate([split.images for split in data.parts.values()]))
    return _crossing(copies, _part_names(data.parts))


def leakage(data: ImageSet, *, fatal: bool = True) -> str | None:
    """Say how many images are in more than one part; None if none are.

    Args:
        data: A set.
        fatal: Whether half of a part or more in another one is an error.

    Raises:
        InvalidDataset: If it is, and half or more is.
    """
    shared = shared_images(data)
    if not any(shared.values()):
        return None
    counts = _counted(shared, data)
    if fatal and any(2 * n >= len(data.parts[part]) for part, n in shared.items()):
        expected = "parts that share no images"
        remedy = "Divide the images anew (split='grouped' keeps copies on one side)"
        raise InvalidDataset(
            data.source or data.name, expected, f"copies across parts: {counts}", remedy
        )
    return (
        f"{data.name}: exact copies of images across train, val and test: {counts}. Scores on "
        "them flatter a model; near_duplicates shows them, split='grouped' keeps them together"
    )


def near_leakage(data: ImageSet) -> str | None:
    """Say how many images have a near copy in another part; None if none have.

    Args:
        data: A set whose groups are its near copies, across the parts.
    """
    groups = np.concatenate([split.groups for split in data.parts.values()])
    crossing = _crossing(groups, _part_names(data.parts))
    if not any(crossing.values()):
        return None
    counts = _counted(crossing, data)
    return (
        f"{data.name}: near copies of images across train, val and test: {counts}. If they show "
        "one thing twice, scores on them flatter a model; near_duplicates shows them, "
        "split='grouped' keeps them together"
    )


def _part_names(parts: dict[str, Split]) -> NDArray[np.str_]:
    """The part of each image, parts behind one another."""
    return np.repeat(list(parts), [len(split) for split in parts.values()])


def _crossing(groups: NDArray[np.int64], parts: NDArray[np.str_]) -> dict[str, int]:
    """Count, per part, the images whose group (0 to G - 1) reaches into another part."""
    reach = pd.Series(parts).groupby(groups).nunique().to_numpy()[groups]
    return {str(part): int((reach[parts == part] > 1).sum()) for part in pd.unique(parts)}


def _counted(crossing: dict[str, int], data: ImageSet) -> str:
    return ", ".join(f"{n} of {len(data.parts[p])} in {p}" for p, n in crossing.items())
