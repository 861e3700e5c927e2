"""Read a folder of images per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tlcourse.datasets.imagesets import PARTS, InvalidDataset
from tlcourse.datasets.rawimages import RawImages, check_classes

DEFAULT_SIZE = 64
"""Side in pixels that images of a folder are given unless another is asked for."""

PART_FOLDERS = {"train": "train", "training": "train", "val": "val", "valid": "val"} | {
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names, in lower case, that stand for a part."""

GREY_MODES = ("1", "L", "LA", "La")
DEEP_MODES = ("I", "F")

LAYOUT = "a folder per class (or train, val and test folders that hold one each)"


def read_folder(
    path: Path, *, size: int | None = None, classes: tuple[str, ...] | None = None
) -> RawImages:
    """Read a folder that holds a folder of images per class, or train, val and test with these.

    Images become `size` by `size` (the sides are scaled separately). Grey images stay grey; if
    any image has colour, all get three channels. Hidden files, and files without the ending of
    an image, are left out.

    Args:
        path: The folder.
        size: Side in pixels; None is `DEFAULT_SIZE`.
        classes: Names of the class folders in the order of the labels; None sorts them.

    Raises:
        InvalidDataset: If the folder is laid out otherwise, a class is empty, or an image cannot
            be read.
    """
    files, labels, parts = [], [], []
    roots = _part_folders(path)
    names = classes or _class_names(next(iter(roots.values())))
    for part, root in roots.items():
        _check_same_classes(root, names)
        for label, name in enumerate(names):
            found = _image_files(root / name)
            files += found
            labels += [label] * len(found)
            parts += [part] * len(found)
    images = _read_images(files, DEFAULT_SIZE if size is None else size)
    divided = None if "" in roots else np.array(parts)
    raw = RawImages(images, np.array(labels, np.int64), divided, names)
    check_classes(path, raw)
    return raw


def _part_folders(path: Path) -> dict[str, Path]:
    """The folder of each part, or {"": path} where the classes lie directly in `path`."""
    if not path.is_dir():
        raise FileNotFoundError(f"no folder at {path}")
    parts = {PART_FOLDERS[p.name.lower()]: p for p in _folders(path) if _names_a_part(p)}
    if not parts:
        return {"": path}
    if set(parts) != set(PARTS):
        found = f"only {', '.join(sorted(parts))}"
        remedy = "Add what is missing, or put the class folders into one folder to be split"
        raise InvalidDataset(path, "folders train, val and test", found, remedy)
    return {part: parts[part] for part in PARTS}


def _names_a_part(path: Path) -> bool:
    return path.name.lower() in PART_FOLDERS


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(p.name for p in _folders(root))
    if len(names) < 2:
        found = f"one folder, {names[0]!r}" if names else "no folders"
        raise InvalidDataset(root, f"{LAYOUT}, two classes or more", found)
    return names


def _check_same_classes(root: Path, names: tuple[str, ...]) -> None:
    here = {p.name for p in _folders(root)}
    if here != set(names):
        expected = f"the class folders {', '.join(sorted(names))}"
        raise InvalidDataset(root, expected, ", ".join(sorted(here)) or "no folders")


def _image_files(folder: Path) -> list[Path]:
    if _folders(folder):
        found = f"the folder {_folders(folder)[0].name!r}"
        raise InvalidDataset(folder, "image files, no folders, in a class folder", found)
    endings = Image.registered_extensions()
    visible = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    files = sorted(p for p in visible if p.suffix.lower() in endings)
    if not files:
        raise InvalidDataset(folder, "image files such as .png or .jpg", f"{len(visible)} others")
    return files


def _read_images(files: list[Path], size: int) -> NDArray[np.uint8]:
    pictures = [_read_image(file, size) for file in files]
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [p if p.ndim == 3 else np.repeat(p[..., None], 3, -1) for p in pictures]
    return np.stack(pictures)


def _read_image(file: Path, size: int) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    # Decoders of broken files raise whatever they stumble on, a SyntaxError among it.
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise InvalidDataset(file, "an image that can be read", found) from error
    if picture.mode.startswith(DEEP_MODES):
        remedy = "Convert it, choosing which brightness is black and which is white"
        found = f"mode {picture.mode!r} with more than 8 bits"
        raise InvalidDataset(file, "an image with 8 bits a channel", found, remedy)
    picture = picture.convert("L" if picture.mode in GREY_MODES else "RGB")
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
