"""Compare images with each other: which correlate, which are equal, what hangs together."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

THRESHOLD = 0.95
"""Correlation above which two images are taken for one lesion filmed again.

At .95 pairs of BreastMNIST laid side by side plainly show one lesion (data/README.md; test images
linked to train or validation: 22 of 156 at .99, 39 at .97, 52 at .95, 59 at .92).
"""

BLOCK_BYTES = 64 * 2**20
"""Memory for one block of images, as float32; three such blocks are held at a time."""

COMPARING = "comparing images"

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def similar_pairs(
    images: NDArray[np.uint8], threshold: float = THRESHOLD, *, progress: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
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
    for i, j in tqdm(tasks, disable=not progress, leave=False, delay=1, desc=COMPARING):
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
