"""Images with labels, their parts, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlcourse.files import Unusable

PARTS = ("train", "val", "test")
PARTITIONS = ("grouped", "official", "patient", "image")
DEFAULT_SIZE = 64
"""Side in pixels of images unless another is asked for; an .npz given by path keeps its own."""


class InvalidDataset(Unusable):
    """Images or labels that cannot be used; says where, what was expected and what came."""


class Skipped(NamedTuple):
    """A file that was left out of a set on request, and why it cannot be used.

    >>> print(Skipped("scans/7.png", "cut short"))
    scans/7.png: cut short
    """

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class LeakageWarning(UserWarning):
    """Parts of a set share images, so a score on one tells too much about the other."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels: one part of a set.

    Args:
        images: uint8 `(N, H, W)` grey or `(N, H, W, 3)` colour.
        labels: int64 `(N,)`, from 0 up.
        groups: int64 `(N,)`: images with one number belong together (one patient, or near copies)
            and must never be parted. Left out: every image stands for itself.
        factors: What simulated images were made from, a row per image; None for real ones.

    Raises:
        InvalidDataset: If types or shapes are not as above.

    >>> part = Split(np.zeros((10, 8, 8), np.uint8), np.arange(10) % 2)
    >>> len(part), part.subset(4, seed=0).labels.tolist().count(1)
    (10, 2)
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    factors: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        check_images("images", self.images)
        labels = check_labels("labels", self.labels, count=len(self.images))
        given = len(self.groups) > 0 or len(labels) == 0
        groups = np.asarray(self.groups) if given else np.arange(len(labels))
        groups = check_labels("groups", groups, count=len(self.images))
        if self.factors is not None and len(self.factors) != len(labels):
            raise InvalidDataset("factors", f"{len(labels)} rows", f"{len(self.factors)}")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "groups", groups)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.images.shape[1:]))
        return f"Split({len(self)} images of {shape}, {len(np.unique(self.groups))} groups)"

    def select(self, indices: NDArray[np.integer | np.bool_] | Sequence[int] | slice) -> Split:
        """Return the images at `indices` (integers, a mask or a slice), in that order."""
        rows = np.arange(len(self))[indices]
        factors = None if self.factors is None else self.factors.iloc[rows].reset_index(drop=True)
        return Split(self.images[rows], self.labels[rows], self.groups[rows], factors)

    def subset(self, n: int, seed: int = 0) -> Split:
        """Draw `n` images, none twice, with each class's share as near as can be to its share here.

        Args:
            n: Number of images; every class present keeps at least one.
            seed: One seed gives one drawing; with two classes, that of a smaller `n` is part of
                that of a larger one.

        Raises:
            ValueError: If there are not `n` images, or `n` is below the number of classes.

        >>> part = Split(np.zeros((100, 2, 2), np.uint8), np.arange(100) // 90)
        >>> np.bincount(part.subset(20).labels).tolist()
        [18, 2]
        """
        return self.select(stratified_choice(self.labels, n, seed=seed))


def join(first: Split, second: Split) -> Split:
    """Return the images of both parts, first then second; groups keep their numbers.

    >>> part = Split(np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2)
    >>> len(join(part, part))
    8
    """
    factors = None
    if first.factors is not None and second.factors is not None:
        factors = pd.concat([first.factors, second.factors], ignore_index=True)
    return Split(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.groups, second.groups]),
        factors,
    )


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images to train, validate and test on, with where they come from.

    Args:
        name: For titles and messages.
        train: What weights are fitted to.
        val: What choices (when to stop, which rate) are made on.
        test: What is looked at once, at the end.
        classes: Name of each label, in the order of the labels.
        source: Where the images come from.
        license: What may be done with them.
        citation: What to cite.
        partition: How the parts came about: "grouped" (near copies kept together), "patient",
            "official" (as published) or "image" (nothing kept together: `split_by_image`).
        simulated: Whether a program drew the images.
        skipped: Files of the source that are in no part, because they cannot be read.

    Raises:
        InvalidDataset: If parts are empty, differ in image shape, or hold labels without a class.

    >>> part = Split(np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2)
    >>> ImageSet("tiny", part, part, part, classes=("even", "odd")).num_classes
    2
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    source: str = "not stated"
    license: str = "not stated"
    citation: str = "not stated"
    partition: str = "official"
    simulated: bool = False
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if self.partition not in PARTITIONS:
            raise ValueError(f"expected partition in {PARTITIONS}, got {self.partition!r}")
        if self.num_classes < 2:
            raise InvalidDataset(self.name, "two classes or more", f"classes {self.classes}")
        for part, split in self.parts.items():
            self._check_part(part, split)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def parts(self) -> dict[str, Split]:
        """The parts by name: "train", "val", "test"."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def development(self) -> Split:
        """Training and validation images as one part: what choices may be made on.

        >>> part = Split(np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2)
        >>> len(ImageSet("tiny", part, part, part, classes=("even", "odd")).development)
        8
        """
        return join(self.train, self.val)

    def with_train(self, split: Split) -> ImageSet:
        """Return a copy that trains on `split`; validation and test images stay.

        >>> part = Split(np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2)
        >>> data = ImageSet("tiny", part, part, part, classes=("even", "odd"))
        >>> len(data.with_train(part.subset(2)).train)
        2
        """
        return replace(self, train=split)

    def counts(self) -> pd.DataFrame:
        """Count images: a row per part, a column per class.

        >>> part = Split(np.zeros((5, 8, 8), np.uint8), np.arange(5) % 2)
        >>> ImageSet("tiny", part, part, part, ("even", "odd")).counts().loc["val"].tolist()
        [3, 2]
        """
        rows = [np.bincount(s.labels, minlength=self.num_classes) for s in self.parts.values()]
        columns = pd.Index(self.classes, name="class")
        return pd.DataFrame(rows, index=pd.Index(self.parts, name="part"), columns=columns)

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self.counts()}"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self._headline())}</p>{self.counts().to_html()}"

    def _headline(self) -> str:
        kind = "simulated, " if self.simulated else ""
        shape = " x ".join(map(str, self.train.images.shape[1:]))
        left_out = f", {len(self.skipped)} unreadable left out" if self.skipped else ""
        split = f"{self.partition} split{left_out}"
        return f"{self.name}: {kind}{shape} uint8, {split}, {self.license}"

    def _check_part(self, part: str, split: Split) -> None:
        where, shape = f"{self.name}, {part}", self.train.images.shape[1:]
        if not len(split):
            raise InvalidDataset(where, "at least one image", "none")
        if split.images.shape[1:] != shape:
            raise InvalidDataset(where, f"images of {shape} as in train", f"{split.images.shape}")
        if split.labels.min() < 0 or split.labels.max() >= self.num_classes:
            found = f"{split.labels.min()} to {split.labels.max()}"
            raise InvalidDataset(where, f"labels 0 to {self.num_classes - 1}", found)


def check_images(where: object, images: object) -> NDArray[np.uint8]:
    """Return `images` if they are uint8 `(N, H, W)` or `(N, H, W, 3)`.

    Args:
        where: What the message names, such as a file and its key.
        images: Anything.

    Raises:
        InvalidDataset: If they are something else.
    """
    expected = "images of uint8, shape (N, H, W) or (N, H, W, 3)"
    if not isinstance(images, np.ndarray):
        raise InvalidDataset(where, expected, type(images).__name__)
    colour = images.ndim == 4 and images.shape[-1] == 3
    if images.dtype != np.uint8 or not (images.ndim == 3 or colour) or 0 in images.shape[1:]:
        raise InvalidDataset(where, expected, f"{images.dtype}, shape {images.shape}")
    return images


def check_labels(where: object, labels: object, *, count: int) -> NDArray[np.int64]:
    """Return `labels` as int64 `(N,)` if they are integers `(N,)` or, as in MedMNIST, `(N, 1)`.

    Args:
        where: What the message names, such as a file and its key.
        labels: Anything.
        count: N, the number of images.

    Raises:
        InvalidDataset: If they are something else, or not one per image.

    >>> check_labels("y", np.array([[1], [0]], np.uint8), count=2).tolist()
    [1, 0]
    """
    expected = f"integers, one per image, shape ({count},) or ({count}, 1)"
    if not isinstance(labels, np.ndarray):
        raise InvalidDataset(where, expected, type(labels).__name__)
    if labels.dtype.kind not in "iu" or labels.shape not in ((count,), (count, 1)):
        raise InvalidDataset(where, expected, f"{labels.dtype}, shape {labels.shape}")
    return labels.reshape(count).astype(np.int64)


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
