"""Keep the state of a training in a file, so that a killed one goes on as if nothing had been.

The file is written after every epoch: beside the old one, flushed to the disk, then put in its
place in one move. Whenever the process dies, one complete checkpoint is there.
"""

from __future__ import annotations

import random
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlcourse.storage import written_whole

FORMAT = 1
"""Version of the file's layout; a file of another one is refused."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written; the training goes on without it."""


class CheckpointMismatch(ValueError):
    """The file belongs to another training, or is no checkpoint at all."""


def save_checkpoint(path: Path, state: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Write a checkpoint whole, or leave the one that is there; tell whether it was written.

    A full disk must not cost what was learned: it brings a `CheckpointWarning`, not an error.

    Args:
        path: The file; its folder is created.
        state: Tensors, numbers, strings, and lists and dicts of them.
        settings: What the training was asked to do, to be compared when it is resumed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(Path(folder) / "run.pt", {"epoch": 1}, {"seed": 0})
    True
    """
    path = Path(path)
    content = {"format": FORMAT, "settings": dict(settings), "state": dict(state)}
    try:
        with written_whole(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:  # torch reports a failing write as RuntimeError
        kept = "the one before it is kept" if path.is_file() else "there is none yet"
        warnings.warn(
            f"no checkpoint was written to {path} ({error}): {kept}, and the training goes on; "
            "free some space, or choose another path",
            CheckpointWarning,
            stacklevel=2,
        )
        return False
    return True


def load_checkpoint(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state in a checkpoint of this very training, or None if there is no file.

    Args:
        path: The file; code in it is never run (`weights_only`).
        settings: What the training is asked to do now.

    Raises:
        CheckpointMismatch: If the file is no checkpoint, or settings differ; the message names
            which, with both values.

    >>> load_checkpoint(Path("nowhere.pt"), {}) is None
    True
    """
    path = Path(path)
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found, state = content["settings"], content["state"]
    except Exception as error:  # a damaged file may raise anything
        # Not torch's own text, which advises to load files with the code in them.
        raise CheckpointMismatch(
            f"{path} is no checkpoint of tlcourse, or a damaged one ({type(error).__name__}): "
            "delete it to start anew, or name another file"
        ) from error
    expected = {"format": FORMAT, **settings}
    found = {"format": content.get("format"), **found}
    differing = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    if differing:
        what = "; ".join(f"{k}: {found.get(k)!r} then, {expected.get(k)!r} now" for k in differing)
        raise CheckpointMismatch(
            f"{path} belongs to another training ({what}): give the settings it was started with, "
            "name another file, or delete it to start anew"
        )
    loaded: dict[str, Any] = state
    return loaded


def random_state() -> dict[str, Any]:
    """Return the state of every global generator as plain values and tensors.

    >>> sorted(random_state())
    ['cuda', 'numpy', 'python', 'torch']
    """
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - augmentations may draw from it
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put every global generator back to a state that `random_state` returned.

    >>> state = random_state()
    >>> first = random.random(), float(torch.rand(1)), float(np.random.rand())
    >>> restore_random_state(state)
    >>> first == (random.random(), float(torch.rand(1)), float(np.random.rand()))
    True
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def fingerprint(*arrays: NDArray[Any]) -> str:
    """Return a short mark of arrays: the same for the same values, types and shapes.

    >>> fingerprint(np.zeros(3)) == fingerprint(np.zeros(3)), len(fingerprint(np.zeros(3)))
    (True, 8)
    """
    mark = 0
    for array in arrays:
        mark = zlib.crc32(f"{array.dtype}{array.shape}".encode(), mark)
        mark = zlib.crc32(np.ascontiguousarray(array).data, mark)
    return f"{mark:08x}"
