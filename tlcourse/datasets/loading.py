"""Load images by name or path: real BreastMNIST, the simulated set, or a learner's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from tlcourse.datasets.base import DEFAULT_SIZE, ImageSet
from tlcourse.datasets.duplicates import THRESHOLD
from tlcourse.datasets.folder import read_folder
from tlcourse.datasets.medmnist import DatasetUnavailable, check_size, load_breastmnist
from tlcourse.datasets.npz import read_npz
from tlcourse.datasets.simulated import announce, simulated_set
from tlcourse.datasets.splits import SPLITS, Provenance, split_images
from tlcourse.simulation.scanner import Shift


def load_images(
    name_or_path: str | Path = "breast",
    *,
    size: int | None = None,
    split: str | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    threshold: float = THRESHOLD,
    skip_bad: bool = False,
    n: int = 780,
    shift: str | Shift | None = None,
    shift_test: str | Shift | None = None,
    progress: bool = True,
    **simulation: Any,
) -> ImageSet:
    """Load images, labels and their provenance, divided into train, val and test.

    "breast": the real BreastMNIST if it can be had, else simulated images and a line that says
    so. The environment variable `TLCOURSE_IMAGES` overrules: "simulated" never looks for the real
    ones, "real" makes their absence an error. `TLCOURSE_OFFLINE=1` forbids the network.
    "breastmnist": the real set or `DatasetUnavailable`. "phantom": simulated, see
    `phantom.simulate`. A path: an .npz in MedMNIST's layout (`npz.read_npz`) or a folder of images
    per class (`folder.read_folder`).

    Args:
        name_or_path: One of the names above, or where the images lie.
        size: Side in pixels: 28, 64, 128 or 224 of BreastMNIST, whether real or simulated images
            stand for it; 16 to 224 of "phantom" (`simulated.simulated_set` says which are
            enlarged). None: 64, but an .npz given by path keeps its own.
        split: "grouped": dealt out 70/10/20, stratified, near copies on one side, because
            published parts leak (BreastMNIST's do: data/README.md). "official": the parts as they
            are published, to compare with published scores. None: "grouped", but a folder with
            train, val and test keeps these, as whoever made them may know the patients.
            Simulated images are always divided by patient.
        seed: What the dealing and the simulation start from.
        classes: Names of the labels of an .npz, or the order of the class folders.
        threshold: Correlation above which images are near copies and share a group.
        skip_bad: Whether to go on without the files of a folder that cannot be read; `skipped` of
            the set names them. Otherwise the first one is an error.
        n: Number of simulated images ("phantom" only, as all below but `progress`).
        shift: Another scanner for all images; a name in `SHIFTS` or a `Shift`.
        shift_test: Another scanner for the test images alone: the same patients.
        progress: Whether to show progress bars.
        **simulation: More for `phantom.simulate`: `views`, `contrast`, `mimic`, `malignant`,
            `shortcut`.

    Raises:
        DatasetUnavailable: If the real set was asked for by name and cannot be had.
        InvalidDataset: If images are broken, or half of a part stands in another part too and
            `split` does not ask to deal anew.
        FileNotFoundError: If there is nothing at the path.
        ValueError: If an argument is out of range or has no meaning for these images.

    Warns:
        LeakageWarning: If parts as published share copies, exact or near.

    >>> data = load_images("phantom", n=40, size=32, progress=False)
    >>> data.partition, len(data.train), data.classes
    ('patient', 28, ('malignant', 'normal or benign'))
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"expected split 'grouped' or 'official', got {split!r}")
    if size is not None and (isinstance(size, bool) or int(size) != size or size < 1):
        raise ValueError(f"expected size as a whole number of pixels from 1 up, got {size!r}")
    if isinstance(classes, str) or len(set(classes or ())) < len(classes or ()):
        raise ValueError(f"expected classes as a list of different names, got {classes!r}")
    options = {"split": split, "classes": classes and tuple(classes), "skip_bad": skip_bad or None}
    scene = {"n": None if n == 780 else n, "shift": shift, "shift_test": shift_test, **simulation}
    given = {name: value for name, value in (options | scene).items() if value is not None}
    source = SOURCES.get(name_or_path) if isinstance(name_or_path, str) else None
    source = source or _own_source(Path(name_or_path))
    for option, value in given.items():
        if option not in source.options:
            raise ValueError(f"{option}={value!r} has no meaning for {source.title}")
    return source.load(size=size, seed=seed, threshold=threshold, progress=progress, **given)


class ImageSource(NamedTuple):
    """Where images come from.

    Attributes:
        title: What messages call it.
        load: Returns the set; called with `size`, `seed`, `threshold`, `progress` as in
            `load_images`, and with those of the `options` that were given.
        options: What else of `load_images` has a meaning for these images.
    """

    title: str
    load: Callable[..., ImageSet]
    options: tuple[str, ...]


def _phantom(*, size: int | None, threshold: float, **options: Any) -> ImageSet:
    del threshold  # no two patients are copies
    return simulated_set(size=DEFAULT_SIZE if size is None else size, **options)


def _breast(*, size: int | None, split: str | None = None, **options: Any) -> ImageSet:
    """Load the real set or, after a notice, what stands in for it."""
    size = DEFAULT_SIZE if size is None else size
    wanted = os.environ.get("TLCOURSE_IMAGES") or "any"
    if wanted not in ("any", "real", "simulated"):
        raise ValueError(f"TLCOURSE_IMAGES is {wanted!r}: expected 'real', 'simulated' or unset")
    if wanted == "simulated":
        check_size(size)
        announce("TLCOURSE_IMAGES=simulated")
        return _phantom(size=size, **options)
    try:
        retry = wanted == "real"
        return load_breastmnist(size=size, split=split, retry=retry, stacklevel=5, **options)
    except DatasetUnavailable:
        if wanted == "real":
            raise
    announce("not on this machine and not to be downloaded; `tlcourse fetch` says why")
    return _phantom(size=size, **options)


# Another data set is a module beside this one, with a function that loads it, and a row here.
SOURCES: Final = {
    "breast": ImageSource("BreastMNIST", _breast, ("split",)),
    "breastmnist": ImageSource("BreastMNIST", load_breastmnist, ("split",)),
    "phantom": ImageSource(
        "simulated images",
        _phantom,
        ("n", "shift", "shift_test", "views", "contrast", "mimic", "malignant", "shortcut"),
    ),
}
"""What `load_images` knows by name."""
DATASET_NAMES: Final = tuple(SOURCES)


def _own_source(path: Path) -> ImageSource:
    """Say how the images at a learner's own path are loaded."""
    if path.is_dir():
        load: Callable[..., ImageSet] = partial(_own_folder, path)
        return ImageSource("a folder of images", load, ("split", "classes", "skip_bad"))
    if path.is_file():
        title = "an .npz, which is read whole or not at all"
        return ImageSource(title, partial(_own_npz, path), ("split", "classes"))
    raise FileNotFoundError(f"no file or folder at {str(path)!r}; names are {', '.join(SOURCES)}")


def _own_folder(
    path: Path,
    *,
    size: int | None,
    progress: bool,
    split: str | None = None,
    classes: tuple[str, ...] | None = None,
    skip_bad: bool = False,
    **splitting: Any,
) -> ImageSet:
    raw = read_folder(path, size=size, classes=classes, skip_bad=skip_bad, progress=progress)
    # Whoever made folders for the parts may know the patients.
    split = split or (None if raw.parts is None else "official")
    about = Provenance(path.stem, str(path))
    return split_images(raw, about, split=split, progress=progress, **splitting)


def _own_npz(
    path: Path, *, size: int | None, classes: tuple[str, ...] | None = None, **splitting: Any
) -> ImageSet:
    raw = read_npz(path, size=size, classes=classes)
    return split_images(raw, Provenance(path.stem, str(path)), **splitting)
