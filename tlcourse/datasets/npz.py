"""Read an .npz file in MedMNIST's layout, whoever it comes from."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcourse.datasets.base import (
    PARTS,
    InvalidDataset,
    RawImages,
    check_images,
    check_labels,
)

ARCHIVE = "a whole .npz archive"


def read_npz(
    path: Path, *, size: int | None = None, classes: tuple[str, ...] | None = None
) -> RawImages:
    """Read a file laid out as MedMNIST's: `train_images`, `train_labels`, the same for val, test.

    Nothing is ever unpickled, so a file from a stranger runs no code.

    Args:
        path: The file.
        size: Side in pixels to resize to; None keeps the images as they are.
        classes: Names of the labels; None names them "class 0", "class 1", ...

    Raises:
        InvalidDataset: If anything about the file is not as above.
    """
    arrays = _load_arrays(path)
    images, labels, parts = [], [], []
    for part in PARTS:
        pixels = check_images(f"{path}, {part}_images", arrays[f"{part}_images"])
        images.append(pixels if size is None else resize(pixels, size))
        where = f"{path}, {part}_labels"
        labels.append(check_labels(where, arrays[f"{part}_labels"], count=len(pixels)))
        parts += [part] * len(pixels)
    shapes = {pixels.shape[1:] for pixels in images}
    if len(shapes) > 1:
        raise InvalidDataset(path, "one image shape in all parts", str(sorted(shapes)))
    count = max((int(part.max(initial=0)) for part in labels), default=0) + 1
    names = classes or tuple(f"class {label}" for label in range(count))
    return RawImages(np.concatenate(images), np.concatenate(labels), np.array(parts), names)


def _load_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    wanted = [f"{part}_{kind}" for part in PARTS for kind in ("images", "labels")]
    try:
        return _open_archive(path, wanted)
    except InvalidDataset:
        raise
    # A damaged archive makes numpy, zipfile and zlib raise whatever they stumble on.
    except Exception as error:
        raise _broken_archive(path, error) from error


def _open_archive(path: Path, wanted: list[str]) -> dict[str, NDArray[np.generic]]:
    opened = np.load(path, allow_pickle=False)
    if not isinstance(opened, np.lib.npyio.NpzFile):
        raise InvalidDataset(path, ARCHIVE, "a single array (.npy)")
    with opened as file:
        missing = [key for key in wanted if key not in file.files]
        if missing:
            keys = ", ".join(sorted(file.files)[:12]) or "nothing"
            raise InvalidDataset(path, f"the arrays {', '.join(wanted)}", f"only {keys}")
        return {key: file[key] for key in wanted}


def _broken_archive(path: Path, error: Exception) -> InvalidDataset:
    # numpy takes a file it cannot read for a pickle; only an archive can hold pickled arrays.
    says = ("allow_pickle", "Object arrays")
    if zipfile.is_zipfile(path) and any(words in str(error) for words in says):
        found = "pickled Python objects, which could run any code and are never loaded"
        return InvalidDataset(path, "plain arrays of numbers", found)
    found = f"a file that is cut short or damaged ({type(error).__name__}: {error})"
    return InvalidDataset(path, ARCHIVE, found, "Get the file again")


def resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Scale `(N, H, W[, 3])` to `(N, size, size[, 3])`; bilinear with antialiasing.

    >>> resize(np.zeros((2, 4, 6), np.uint8), 8).shape
    (2, 8, 8)
    """
    if images.shape[1:3] == (size, size):
        return images
    small = [Image.fromarray(p).resize((size, size), Image.Resampling.BILINEAR) for p in images]
    return np.stack([np.asarray(p) for p in small]) if small else images
