"""Keep the state of a training in a file, so that a killed one goes on as if nothing had been.

The file is written after every epoch: beside the old one, flushed to the disk, then put in its
place in one move. Whenever the process dies, one complete checkpoint is there.
"""

from __future__ import annotations

import math
import random
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcourse.files import written_whole
from tlcourse.runtime import accelerators

Keep = Literal["last", "best", "best_loss"]

FORMAT = 2
"""Version of the file's layout; a file of another one is refused."""

_SHOWN = 5
"""Differences that an error lists before it only counts them."""


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written; the training goes on without it."""


class CheckpointMismatch(ValueError):
    """The file belongs to another training, or is no checkpoint at all."""


@dataclass
class Best:
    """A copy of the weights of the best epoch so far, if they are wanted.

    >>> best = Best("best_loss")
    >>> model = nn.Linear(1, 1)
    >>> best.offer(model, 1, {"val_auc": 0.8, "val_loss": 0.5})
    >>> best.held(interrupted=False)
    1
    """

    keep: Keep
    score: tuple[float, ...] = (-float("inf"),)
    weights: dict[str, Tensor] = field(default_factory=dict)
    epoch: int | None = None

    def offer(self, model: nn.Module, epoch: int, scores: Mapping[str, float]) -> None:
        """Copy the weights if this epoch's scores are the best so far."""
        if self.keep == "last":
            self.epoch = epoch
            return
        auc, loss = scores["val_auc"], scores["val_loss"]
        score = (auc, -loss) if self.keep == "best" else (-loss,)
        if score > self.score:
            self.score, self.epoch = score, epoch
            # state_dict() alone refers to the very tensors that go on changing.
            self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Put the copied weights back, if there are any."""
        if self.weights:
            model.load_state_dict(self.weights)

    def held(self, interrupted: bool) -> int | None:
        """Return the epoch whose weights the model holds at the end."""
        return None if interrupted and self.keep == "last" else self.epoch

    def message(self, epoch: int, epochs: int) -> str:
        """Say what an interrupted training leaves."""
        held = self.held(interrupted=True)
        kept = "its last step" if held is None else f"epoch {held}, the best so far"
        return f"Interrupted in epoch {epoch} of {epochs}: the model holds the weights of {kept}."

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"score": list(self.score), "weights": self.weights, "epoch": self.epoch}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.score, self.weights = tuple(state["score"]), dict(state["weights"])
        self.epoch = state["epoch"]


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
    if content.get("format") != FORMAT:
        raise CheckpointMismatch(
            f"{path} has layout {content.get('format')!r}, expected layout {FORMAT}: an older or "
            "newer tlcourse wrote it; finish the training with that one, name another file, or "
            "delete it to start anew"
        )
    differing = _differences("", found, settings)
    if differing:
        more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        what = "; ".join(differing[:_SHOWN]) + more
        raise CheckpointMismatch(
            f"{path} belongs to another training ({what}): give the settings it was started with, "
            "name another file, or delete it to start anew"
        )
    loaded: dict[str, Any] = state
    return loaded


def random_state() -> dict[str, Any]:
    """Return the state of every global generator as plain values and tensors.

    >>> sorted(random_state())
    ['accelerator', 'numpy', 'python', 'torch']
    """
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - augmentations may draw from it
    kind, devices = accelerators()
    module = torch.get_device_module(kind)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "accelerator": {"type": kind, "states": [module.get_rng_state(i) for i in devices]},
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put every global generator back to a state that `random_state` returned.

    States of devices that are not there, on another machine, are left out.

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
    kind, devices = accelerators()
    if state["accelerator"]["type"] == kind:
        # One of both may have more devices.
        for index, saved in zip(devices, state["accelerator"]["states"], strict=False):
            torch.get_device_module(kind).set_rng_state(saved, index)


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


def _differences(name: str, then: Any, now: Any) -> list[str]:
    """Say what differs between two settings, down to the entry of a list or dict."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        keys = {**now, **then}
        inner = (_differences(f"{name}, {k}" if name else k, then.get(k), now.get(k)) for k in keys)
        return [difference for found in inner for difference in found]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = enumerate(zip(then, now, strict=True))
        inner = (_differences(f"{name}[{i}]", *pair) for i, pair in pairs)
        return next((found for found in inner if found), [])  # the rest follows from the first
    return [] if _alike(then, now) else [f"{name}: {then!r} then, {now!r} now"]


def _alike(then: Any, now: Any) -> bool:
    if isinstance(then, float) and isinstance(now, float):
        # Another processor rounds otherwise; a change by hand is larger.
        return math.isclose(then, now, rel_tol=1e-6) or (math.isnan(then) and math.isnan(now))
    return bool(then == now)
