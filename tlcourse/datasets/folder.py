"""Read a folder of images per class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from tlcourse.datasets.base import DEFAULT_SIZE, PARTS, InvalidDataset, RawImages, Skipped

PART_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Folder names, in lower case, that stand for a part."""

GREY_MODES = ("1", "L", "LA", "La")
DEEP_MODES = ("I", "F")
SKIPPING = "skip_bad=True, or --skip-bad on the command line"
LAYOUT = "a folder per class (or train, val and test folders that hold one each)"


def read_folder(
    path: Path,
    *,
    size: int | None = None,
    classes: tuple[str, ...] | None = None,
    skip_bad: bool = False,
    progress: bool = False,
) -> RawImages:
    """Read a folder that holds a folder of images per class, or train, val and test with these.

    Images become `size` by `size` (the sides are scaled separately). Grey images stay grey; if
    any image has colour, all get three channels. Hidden files, and files without the ending of
    an image, are left out.

    Args:
        path: The folder.
        size: Side in pixels; None is `DEFAULT_SIZE`.
        classes: Names of the class folders in the order of the labels; None sorts them.
        skip_bad: Whether to leave out images that cannot be read; `skipped` of the result names
            them.
        progress: Whether to show a progress bar when reading takes longer than a second.

    Raises:
        InvalidDataset: If the folder is laid out otherwise, a class is empty, or an image cannot
            be read (unless `skip_bad` leaves it out and others of its class are left).
    """
    files, labels, parts = [], [], []
    roots = _part_folders(path)
    names = tuple(map(_composed, classes or _class_names(next(iter(roots.values())))))
    for part, root in roots.items():
        folders = _by_meaning(root, _composed)
        _check_same_classes(root, folders, names)
        for label, name in enumerate(names):
            found = _image_files(folders[name])
            files += found
            labels += [label] * len(found)
            parts += [part] * len(found)
    side = DEFAULT_SIZE if size is None else size
    images, read, skipped = _read_images(files, (side, side), skip_bad, progress)
    divided = None if "" in roots else np.array(parts)[read]
    return RawImages(images, np.array(labels, np.int64)[read], divided, names, skipped)


def _part_folders(path: Path) -> dict[str, Path]:
    """The folder of each part, or {"": path} where the classes lie directly in `path`."""
    parts = _by_meaning(path, lambda name: PART_FOLDERS.get(name.lower()))
    if not parts:
        return {"": path}
    if set(parts) != set(PARTS):
        found = f"only {', '.join(sorted(parts))}"
        remedy = "Add what is missing, or put the class folders into one folder to be split"
        raise InvalidDataset(path, "folders train, val and test", found, remedy)
    return {part: parts[part] for part in PARTS}


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _by_meaning(root: Path, meaning: Callable[[str], str | None]) -> dict[str, Path]:
    """The folders in `root` by what their names mean; those that mean nothing are left out."""
    found: dict[str, Path] = {}
    for folder in _folders(root):
        name = meaning(folder.name)
        if name in found:
            # Escaped, because two ways to write one letter look alike.
            both = f"{found[name].name!a} and {folder.name!a}"
            raise InvalidDataset(root, f"one folder for {name!r}", both, "Join them")
        if name is not None:
            found[name] = folder
    return found


def _composed(name: str) -> str:
    """A name as most systems write it: macOS writes an accent as a letter of its own."""
    return unicodedata.normalize("NFC", name)


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(sorted(_by_meaning(root, _composed)))
    if len(names) < 2:
        found = f"one folder, {names[0]!r}" if names else "no folders"
        raise InvalidDataset(root, f"{LAYOUT}, two classes or more", found)
    return names


def _check_same_classes(root: Path, folders: dict[str, Path], names: tuple[str, ...]) -> None:
    if folders.keys() != set(names):
        expected = f"the class folders {', '.join(sorted(names))}"
        raise InvalidDataset(root, expected, ", ".join(sorted(folders)) or "no folders")


def _image_files(folder: Path) -> list[Path]:
    if _folders(folder):
        found = f"the folder {_folders(folder)[0].name!r}"
        raise InvalidDataset(folder, "image files, no folders, in a class folder", found)
    # A link whose target is gone is no file, and an image that cannot be read.
    visible = [p for p in folder.iterdir() if not p.name.startswith(".")]
    files = sorted(p for p in visible if has_image_ending(p))
    if not files:
        raise InvalidDataset(folder, "image files such as .png or .jpg", f"{len(visible)} others")
    return files


def has_image_ending(file: Path) -> bool:
    """Tell whether a file's name ends as those of images do, whatever is in it.

    >>> has_image_ending(Path("scan.PNG")), has_image_ending(Path("notes.txt"))
    (True, False)
    """
    return file.suffix.lower() in Image.registered_extensions()


def _read_images(
    files: list[Path], shape: tuple[int, int], skip_bad: bool, progress: bool
) -> tuple[NDArray[np.uint8], list[int], tuple[Skipped, ...]]:
    """Return the images, which of the files they are, and those left out."""
    pictures, read, skipped = [], [], []
    for i, file in enumerate(tqdm(files, disable=not progress, leave=False, delay=1)):
        try:
            pictures.append(read_image(file, shape))
            read.append(i)
        except InvalidDataset as error:
            if not skip_bad:
                remedy = f"{error.remedy or 'Mend it'}, or go on without it: {SKIPPING}"
                raise InvalidDataset(file, error.expected, error.found, remedy) from error
            skipped.append(Skipped(str(file), error.found))
    return _stacked(pictures, shape), read, tuple(skipped)


def _stacked(pictures: list[NDArray[np.uint8]], shape: tuple[int, int]) -> NDArray[np.uint8]:
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [p if p.ndim == 3 else np.repeat(p[..., None], 3, -1) for p in pictures]
    return np.stack(pictures) if pictures else np.empty((0, *shape), np.uint8)


def read_image(
    file: Path, size: tuple[int, int], *, colour: bool | None = None
) -> NDArray[np.uint8]:
    """Read one image file as `load_images` reads those of a folder, scaled to `size`.

    Args:
        file: Any format that Pillow reads, 8 bits a channel. A photograph is turned upright.
        size: Height and width in pixels; the sides are scaled separately, bilinear.
        colour: Whether to return three channels, equal ones for a grey file, or one; None leaves
            it to the file.

    Returns:
        uint8 `(H, W)` or `(H, W, 3)`.

    Raises:
        InvalidDataset: If it cannot be read, or has more than 8 bits a channel.
    """
    try:
        with Image.open(file) as opened:
            raw_modes = str([tile.args for tile in opened.tile])
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    # Decoders of broken files raise whatever they stumble on, a SyntaxError among it.
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise InvalidDataset(file, "an image that can be read", found) from error
    # Pillow keeps the upper half of 16 bits in colour: a scan of 12 bits would come out black.
    if picture.mode.startswith(DEEP_MODES) or re.search(r";16[BLN]", raw_modes):
        remedy = "Convert it, choosing which brightness is black and which is white"
        found = f"mode {picture.mode!r} with more than 8 bits"
        raise InvalidDataset(file, "an image with 8 bits a channel", found, remedy)
    picture = picture.convert("L" if picture.mode in GREY_MODES else "RGB")
    picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(picture if colour is None else picture.convert("RGB" if colour else "L"))
