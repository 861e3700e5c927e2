"""Keep a detector in one file that is safe to load."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import models

from tlcourse import __version__
from tlcourse.backbones.factory import load_backbone
from tlcourse.backbones.preprocessing import RECORD, weights_of
from tlcourse.detectors.detector import Detector
from tlcourse.files import Unusable, written_whole
from tlcourse.runtime import device

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

    >>> print(InvalidDetector("mine.pt", "a detector file", "a photograph"))
    mine.pt: expected a detector file; found a photograph
    """


def save_detector(
    path: Path | str,
    model: nn.Module,
    *,
    backbone: str,
    classes: Sequence[str],
    size: int,
    image_shape: Sequence[int] | None = None,
    temperature: float | None = None,
    threshold: float | None = None,
    positive: str | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Path:
    """Keep a trained classifier as one file, which is there whole or not at all.

    It holds plain tensors, numbers and text, so that loading it runs no code.

    Args:
        path: The file; its folder is created.
        model: A classifier of torchvision with an answer per class.
        backbone: Its name in torchvision, such as `"mobilenet_v2"`.
        classes: Names of its answers, in their order.
        size: Side in pixels at which it was trained.
        image_shape: Shape of an image of the set it was trained on, `data.train.images.shape[1:]`;
            None: `(size, size, 3)`.
        temperature: What logits shall be divided by, above 0.
        threshold: For two classes, the probability of `positive` from which an image is called
            so, 0 to 1; None answers with the most probable class.
        positive: The class that the threshold is for; None: the first.
        notes: What else the file shall say: numbers, text, lists and dicts of them.

    Returns:
        The path.

    Raises:
        InvalidDetector: If the model is not that backbone with so many answers, or an argument
            is out of range.
        OSError: If the file cannot be written.
    """
    path, names = Path(path), list(classes)
    _check_choices(path, names, temperature, threshold, positive)
    state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
    _network(path, backbone, len(names), state)  # refuses what could not be loaded
    if threshold is not None:
        positive = names[0] if positive is None else positive
    content = {
        "kind": KIND,
        "format": FORMAT,
        "version": __version__,
        "backbone": backbone,
        "classes": names,
        "size": int(size),
        "image_shape": [int(n) for n in image_shape or (size, size, 3)],
        "preprocessing": _preprocessing(model),
        "temperature": None if temperature is None else float(temperature),
        "threshold": None if threshold is None else float(threshold),
        "positive": positive,
        "notes": dict(notes or {}),
        "state": state,
    }
    with written_whole(path) as partial:
        try:
            torch.save(content, partial)
        except RuntimeError as error:  # what torch makes of a failing write
            raise OSError(f"{path} cannot be written: {error}") from error
    return path


def load_detector(path: Path | str) -> Detector:
    """Read a file that `save_detector` wrote; the network is ready on `runtime.device()`.

    On one machine, with one number of threads, it gives the probabilities of the model that was
    saved, bit for bit.

    Raises:
        FileNotFoundError: If there is none.
        InvalidDetector: If the file is no detector, damaged, of a newer format, holds parameters
            of another network, or this torchvision prepares images otherwise.
    """
    path = Path(path)
    content = _read_content(path)
    fields = {key: content[key] for key in TYPES if key != "state"}
    fields |= {key: tuple(content[key]) for key in ("classes", "image_shape")}
    model = _network(path, fields["backbone"], len(fields["classes"]), content["state"])
    setattr(model, RECORD, content["preprocessing"].get("weights"))
    _check_preprocessing(path, model, content["preprocessing"])
    version = str(content.get("version"))
    return Detector(model=model.to(device()).eval(), version=version, **fields)


def _read_content(path: Path) -> dict[str, Any]:
    """Read the content of a detector file; code in it is never run (`weights_only`)."""
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


def _check_choices(
    path: Path,
    classes: list[str],
    temperature: float | None,
    threshold: float | None,
    positive: str | None,
) -> None:
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise InvalidDetector(path, "two classes or more, each with its own name", f"{classes}")
    if temperature is not None and not (np.isfinite(temperature) and temperature > 0):
        raise InvalidDetector(path, "a temperature above 0", f"{temperature}")
    if positive is not None and positive not in classes:
        raise InvalidDetector(path, f"positive as one of {classes}", repr(positive))
    if threshold is not None and not (len(classes) == 2 and 0 <= threshold <= 1):
        found = f"{threshold} for {len(classes)} classes"
        raise InvalidDetector(path, "a threshold from 0 to 1 for one of two classes", found)


def _network(path: Path, backbone: str, num_classes: int, state: Mapping[str, Tensor]) -> nn.Module:
    """Build a network with the parameters of a file, or say how they do not fit."""
    try:
        model = load_backbone(backbone, weights=None, num_classes=num_classes)
    except ValueError as error:
        raise InvalidDetector(path, "a classifier that this torchvision has", f"{error}") from error
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    misfits = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unknown or misfits:
        lists = {"missing": missing, "unknown": unknown, "of another shape": sorted(misfits)}
        found = [f"{len(keys)} {what}, such as {keys[0]!r}" for what, keys in lists.items() if keys]
        expected = f"the parameters of {backbone} with {num_classes} answers"
        raise InvalidDetector(path, expected, f"others: {'; '.join(found)}")
    # The very tensors that were saved: their layout in memory decides the last bits of an answer.
    model.load_state_dict(dict(state), assign=True)
    return model


def _preprocessing(model: nn.Module) -> dict[str, Any]:
    entry = weights_of(model)
    transforms = entry.transforms()
    return {
        "weights": str(entry),
        "mean": [float(v) for v in transforms.mean],
        "std": [float(v) for v in transforms.std],
        "resize": "the whole image to size x size, nothing cropped",
        "interpolation": "bilinear",
        "antialias": True,
    }


def _check_preprocessing(path: Path, model: nn.Module, written: Mapping[str, Any]) -> None:
    try:
        models.get_weight(written["weights"])
        here = _preprocessing(model)
    except (KeyError, ValueError) as error:
        expected = "preprocessing of weights that this torchvision has"
        raise InvalidDetector(path, expected, f"{written.get('weights')!r}") from error
    for key in ("mean", "std", "resize", "interpolation", "antialias"):
        if here[key] != written.get(key):
            found = f"{key} {written.get(key)}, here {here[key]}"
            remedy = "Use the version of tlcourse and torchvision that wrote it"
            raise InvalidDetector(path, "the preprocessing that this version does", found, remedy)
