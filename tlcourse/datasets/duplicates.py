"""Report near-duplicates: images of one thing, what of them crosses from part to part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlcourse.datasets.imagesets import ImageSet, InvalidDataset, Split
from tlcourse.datasets.likeness import THRESHOLD, exact_copies, linked_groups, similar_pairs


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

        Groups count, not pairs alone: of BreastMNIST's 156 test images, 51 have a twin in train
        or validation themselves and one more through another test image.
        """
        reach = pd.Series(self.parts).groupby(self.groups).nunique().to_numpy()[self.groups]
        names = pd.unique(self.parts)
        return {str(part): int((reach[self.parts == part] > 1).sum()) for part in names}

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
    names = np.repeat(list(parts), [len(split) for split in parts.values()])
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
    names = np.repeat(list(data.parts), [len(split) for split in data.parts.values()])
    seen_in = pd.Series(names).groupby(copies).nunique()
    crossing = seen_in.to_numpy()[copies] > 1
    return {part: int(crossing[names == part].sum()) for part in data.parts}


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
    counts = ", ".join(f"{n} of {len(data.parts[p])} in {p}" for p, n in shared.items())
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


def near_leakage(data: ImageSet, groups: NDArray[np.int64], parts: NDArray[np.str_]) -> str | None:
    """Say how many images have a near copy in another part; None if none have.

    Args:
        data: A set, for its name.
        groups: `(N,)`: near copies share a number.
        parts: `(N,)` the part of each image.
    """
    reach = pd.Series(parts).groupby(groups).nunique().to_numpy()[groups]
    crossing = {part: int((reach[parts == part] > 1).sum()) for part in data.parts}
    if not any(crossing.values()):
        return None
    counts = ", ".join(f"{n} of {len(data.parts[p])} in {p}" for p, n in crossing.items())
    return (
        f"{data.name}: near copies of images across train, val and test: {counts}. If they show "
        "one thing twice, scores on them flatter a model; near_duplicates shows them, "
        "split='grouped' keeps them together"
    )
