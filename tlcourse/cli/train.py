"""What `tlcourse train` and `tlcourse predict` do."""

from __future__ import annotations

import shlex
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from tlcourse.backbones.architectures import UnsupportedModel
from tlcourse.backbones.weights import WeightsUnavailable
from tlcourse.datasets.base import ImageSet, InvalidDataset, LeakageWarning, Skipped
from tlcourse.datasets.folder import has_image_ending
from tlcourse.datasets.loading import DATASET_NAMES, load_images
from tlcourse.datasets.medmnist import DatasetUnavailable
from tlcourse.detectors.artifacts import PROBABILITY, Artifacts
from tlcourse.detectors.serialization import load_detector
from tlcourse.detectors.train import train_detector
from tlcourse.files import written_whole
from tlcourse.training.strategies import get_strategy

REFUSALS = (OSError, ValueError, WeightsUnavailable, DatasetUnavailable, UnsupportedModel)
"""What arguments and files may be refused with; anything else is a fault of the program."""


def train_command(options: Namespace) -> int:
    """Train as the options of `tlcourse train` say; return 0, 1 (stopped on the way) or 2 (cannot).

    Args:
        options: `data`, `backbone`, `strategy`, `out`, `epochs`, `lr`, `size`, `seed`,
            `class_weights`, `copies_above`, `skip_bad`.
    """
    try:
        get_strategy(options.strategy)  # a wrong name is found before images are read
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LeakageWarning)
            data = _load(options)
        artifacts = train_detector(
            data,
            options.out,
            backbone=options.backbone,
            strategy=options.strategy,
            epochs=options.epochs,
            lr=options.lr,
            size=options.size,
            seed=options.seed,
            class_weights=options.class_weights,
            notices=_notices(caught),
            command=_command_line(options),
        )
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 1
    except FloatingPointError as error:
        print(error, file=sys.stderr)
        return 1
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 2
    print(_summary(artifacts))
    return 0


def predict_command(options: Namespace) -> int:
    """Answer for image files as the options of `tlcourse predict` say; return 0 or 2 (cannot).

    The table goes to `out`, or else to the standard output as CSV: a row per file with the answer
    and the probability of each class.

    Args:
        options: `detector`, `images`, `out`, `skip_bad`.
    """
    try:
        detector = load_detector(options.detector)
        files = image_files(options.images)
        probs = detector.predict_files(files, skip_bad=options.skip_bad, progress=True)
        table = probs.add_prefix(PROBABILITY)
        table.insert(0, "answer", detector.predicted_classes(probs))
        _tell_skipped(probs.attrs["skipped"])
        _write(table, options.out)
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def image_files(paths: Iterable[Path]) -> list[Path]:
    """List the files given and, of folders, all image files in them and in folders below, sorted.

    Hidden files and folders are left out.

    Raises:
        FileNotFoundError: If there is nothing at a path.
        InvalidDataset: If a folder holds no image file.
    """
    files = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if _is_visible_image(p, path))
            if not found:
                raise InvalidDataset(path, "image files such as .png or .jpg", "none")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"no file or folder at {path}")
    return files


def _is_visible_image(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and file.is_file() and has_image_ending(file)


def _load(options: Namespace) -> ImageSet:
    """Load the images, a folder's at the size of the network; say what they are."""
    path, out = Path(options.data), Path(options.out)
    if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"{out} lies in the folder of the images: it would be taken for a class")
    by_name = options.data in DATASET_NAMES and not path.exists()
    data = load_images(
        options.data if by_name else path,
        size=options.size if path.is_dir() else None,
        threshold=options.copies_above,
        skip_bad=options.skip_bad,
    )
    print(data, flush=True)
    _tell_skipped(data.skipped)
    return data


def _tell_skipped(skipped: Iterable[Skipped]) -> None:
    for entry in skipped:
        print(f"left out: {entry}", file=sys.stderr)


def _notices(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """Return what was warned of about the images, after showing every warning."""
    texts = []
    for warning in caught:
        print(f"{warning.category.__name__}: {warning.message}", file=sys.stderr)
        texts += [str(warning.message)] if issubclass(warning.category, LeakageWarning) else []
    return texts


def _command_line(options: Namespace) -> str:
    """Return the command with all that was chosen, said or not."""
    words = ["tlcourse", "train", "--data", str(options.data), "--backbone", options.backbone]
    words += ["--strategy", options.strategy, "--out", str(options.out)]
    words += ["--epochs", str(options.epochs), "--size", str(options.size)]
    words += ["--lr", *map(str, options.lr)] if options.lr else []
    words += ["--class-weights", options.class_weights] if options.class_weights else []
    words += ["--seed", str(options.seed), "--copies-above", str(options.copies_above)]
    return shlex.join([*words, *(["--skip-bad"] if options.skip_bad else [])])


def _summary(artifacts: Artifacts) -> str:
    scores = artifacts.run["scores"]["test"]
    lines = [f"{'test score':<20}95 % interval over the test images"]
    for name in ("auc", "accuracy", "balanced_accuracy"):
        score = scores[name]
        figures = f"{score['estimate']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
        lines.append(f"{name.replace('_', ' '):<20}{figures}")
    lines += [
        "",
        f"detector  {artifacts.detector}",
        f"next      tlcourse report {artifacts.folder}",
    ]
    return "\n".join([*lines, f"          tlcourse predict {artifacts.detector} IMAGE_OR_FOLDER"])


def _write(table: pd.DataFrame, out: Path | None) -> None:
    if out is None:
        print(table.to_csv(lineterminator="\n"), end="")
        return
    with written_whole(Path(out)) as partial:
        table.to_csv(partial, lineterminator="\n")
    print(f"{len(table)} answers in {out}")
