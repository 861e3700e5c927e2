"""Load images by name or path: real BreastMNIST, the simulated set, or a learner's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlcourse.datasets import medmnist as breastmnist
from tlcourse.datasets.base import ImageSet
from tlcourse.datasets.duplicates import THRESHOLD
from tlcourse.datasets.folder import read_folder
from tlcourse.datasets.medmnist import DatasetUnavailable, fetch_breastmnist
from tlcourse.datasets.npz import read_npz
from tlcourse.datasets.simulated import announce, simulated_set
from tlcourse.datasets.splits import SPLITS, Provenance, split_images
from tlcourse.simulation.scanner import Shift

DATASET_NAMES = ("breast", "breastmnist", "phantom")
SIMULATED_SIZE = 64
BREASTMNIST = Provenance(
    "breastmnist", breastmnist.SOURCE, breastmnist.LICENSE, breastmnist.CITATION
)


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
    `phantom.simulate`. A path: an .npz in MedMNIST's layout (`archives.read_npz`) or a folder of
    images per class (`folders.read_folder`).

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
    scene = {"shift": shift, "shift_test": shift_test, **simulation}
    side = SIMULATED_SIZE if size is None else size
    bad = skip_bad or None
    if name_or_path == "phantom":
        _refuse("simulated images", split=split, classes=classes, skip_bad=bad)
        return simulated_set(n, size=side, seed=seed, progress=progress, **scene)
    _refuse("any images but 'phantom'", n=None if n == 780 else n, **scene)
    splitting: dict[str, Any] = {"threshold": threshold, "seed": seed, "progress": progress}
    if name_or_path not in DATASET_NAMES:
        reading: dict[str, Any] = {"size": size, "classes": classes, "skip_bad": skip_bad}
        return _own(Path(name_or_path), split=split, **reading, **splitting)
    _refuse("BreastMNIST", classes=classes, skip_bad=bad)
    breastmnist.check_size(side)
    path = _breastmnist(str(name_or_path), side, progress)
    if path is None:
        return simulated_set(n, size=side, seed=seed, progress=progress)
    raw = read_npz(path, classes=breastmnist.CLASSES)
    split = split or "grouped"
    return split_images(raw, BREASTMNIST, split=split, known_leak=True, stacklevel=2, **splitting)


def _refuse(what: str, **options: object) -> None:
    """Raise for an option that would otherwise be ignored without a word."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise ValueError(f"{given[0]}={options[given[0]]!r} has no meaning for {what}")


def _breastmnist(name: str, size: int, progress: bool) -> Path | None:
    """The file of the real set; None, after a notice, where "breast" goes on without it."""
    wanted = os.environ.get("TLCOURSE_IMAGES") or "any"
    if wanted not in ("any", "real", "simulated"):
        raise ValueError(f"TLCOURSE_IMAGES is {wanted!r}: expected 'real', 'simulated' or unset")
    if name == "breastmnist" or wanted == "real":
        return fetch_breastmnist(size, progress=progress)
    if wanted == "simulated":
        announce("TLCOURSE_IMAGES=simulated")
        return None
    try:
        return fetch_breastmnist(size, retry=False, progress=progress)
    except DatasetUnavailable:
        announce("not on this machine and not to be downloaded; `tlcourse fetch` says why")
        return None


def _own(
    path: Path,
    *,
    split: str | None,
    size: int | None,
    classes: Sequence[str] | None,
    skip_bad: bool,
    **splitting: Any,
) -> ImageSet:
    """Read and divide what lies at a learner's path."""
    names = None if classes is None else tuple(classes)
    if path.is_dir():
        progress = splitting["progress"]
        raw = read_folder(path, size=size, classes=names, skip_bad=skip_bad, progress=progress)
    elif path.is_file():
        _refuse("an .npz, which is read whole or not at all", skip_bad=skip_bad or None)
        raw = read_npz(path, size=size, classes=names)
    else:
        raise FileNotFoundError(
            f"no file or folder at {str(path)!r}; names are {', '.join(DATASET_NAMES)}"
        )
    if split is None and raw.parts is not None and path.is_dir():
        split = "official"
    about = Provenance(path.stem, str(path))
    return replace(
        split_images(raw, about, split=split, stacklevel=3, **splitting), skipped=raw.skipped
    )
