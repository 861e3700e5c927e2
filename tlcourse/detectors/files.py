"""Write and read the content of a detector file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tlcourse import __version__
from tlcourse.errors import Unusable
from tlcourse.storage import written_whole

KIND = "tlcourse detector"
FORMAT = 1
"""Version of the file's layout. A reader takes this one and older ones."""

EXPECTED = "a detector file, as save_detector and `tlcourse train` write it"
TYPES: dict[str, type | tuple[type, ...]] = {
    "backbone": str,
    "classes": list,
    "size": int,
    "image_shape": list,
    "preprocessing": dict,
    "temperature": (float, type(None)),
    "threshold": (float, type(None)),
    "positive": (str, type(None)),
    "notes": dict,
    "state": dict,
}
"""What a file of format 1 holds beside kind, format and version."""


class InvalidDetector(Unusable):
    """A detector that cannot be written or read; says where, what was expected and what came.

    >>> raise InvalidDetector("mine.pt", "a detector file", "a photograph")
    Traceback (most recent call last):
    tlcourse.detectors.files.InvalidDetector: mine.pt: expected a detector file; found a photograph
    """


def write_content(path: Path, content: Mapping[str, Any]) -> None:
    """Write the content of a detector file, with kind, format and version, whole or not at all.

    Args:
        path: The file; its folder is created.
        content: Tensors, numbers, text, None, and lists and dicts of them.

    Raises:
        OSError: If it cannot be written, such as on a full disk.
    """
    head = {"kind": KIND, "format": FORMAT, "version": __version__}
    with written_whole(path) as partial:
        try:
            torch.save({**head, **content}, partial)
        except RuntimeError as error:  # what torch makes of a failing write
            raise OSError(f"{path} cannot be written: {error}") from error


def read_content(path: Path) -> dict[str, Any]:
    """Read the content of a detector file; code in it is never run (`weights_only`).

    Raises:
        FileNotFoundError: If there is none.
        InvalidDetector: If the file is something else, damaged, or of a newer format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no detector file at {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own on files that are none of its
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        # Not torch's own text, which advises to load files with the code in them.
        found = f"one that is cut short, damaged or of another kind ({type(error).__name__})"
        raise InvalidDetector(path, EXPECTED, found) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        keys = sorted(map(str, content))[:5] if isinstance(content, dict) else []
        found = f"a file of torch with {keys}" if keys else f"a {type(content).__name__}"
        raise InvalidDetector(path, EXPECTED, found)
    _check_format(path, content)
    return content


def _check_format(path: Path, content: dict[str, Any]) -> None:
    found = content.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise InvalidDetector(
            path,
            f"format {FORMAT} or an older one",
            f"format {found}, written by tlcourse {content.get('version')}",
            f"This is tlcourse {__version__}: install that version or a newer one",
        )
    for key, types in TYPES.items():
        if not isinstance(content.get(key), types) or key not in content:
            what = type(content[key]).__name__ if key in content else "nothing"
            raise InvalidDetector(path, f"{EXPECTED}, with {key!r}", f"{what} there")
