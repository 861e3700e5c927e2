"""`tlcourse train`: build a detector from images, or go on."""

from __future__ import annotations

import shlex
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from tlcourse.backbones.architectures import UnsupportedModel
from tlcourse.backbones.weights import WeightsUnavailable
from tlcourse.datasets.base import ImageSet, LeakageWarning, Skipped
from tlcourse.datasets.loading import DATASET_NAMES, load_images
from tlcourse.datasets.medmnist import DatasetUnavailable
from tlcourse.detectors.artifacts import Artifacts
from tlcourse.detectors.config import HEAD_LR
from tlcourse.detectors.train import train_detector
from tlcourse.training.strategies import STRATEGIES, get_strategy

REFUSALS = (OSError, ValueError, WeightsUnavailable, DatasetUnavailable, UnsupportedModel)
"""What arguments and files may be refused with; anything else is a fault of the program."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    given = " (default: %(default)s)"
    parser.add_argument(
        "--data",
        required=True,
        help="a folder of images per class, an .npz in MedMNIST's layout, or a name: "
        f"{', '.join(DATASET_NAMES)}; divided in the same way whatever the seed",
    )
    parser.add_argument("--backbone", default="mobilenet_v2", help="of torchvision" + given)
    ways = "how it is carried over: " + ", ".join(STRATEGIES)
    parser.add_argument("--strategy", default="warmup", help=ways + given)
    parser.add_argument("--out", type=Path, required=True, help="a folder for all that comes of it")
    parser.add_argument("--epochs", type=int, default=10, help="times an image is seen" + given)
    rates = f"rate of the head, or several to choose from (default: {HEAD_LR})"
    parser.add_argument("--lr", type=float, nargs="+", help=rates)
    parser.add_argument("--size", type=int, default=128, help="side in pixels" + given)
    parser.add_argument("--seed", type=int, default=0, help="of head, order, mirroring" + given)
    weights = "balanced: every class counts alike in the loss, however few its images are"
    parser.add_argument("--class-weights", choices=["balanced"], help=weights)
    copies = "correlation above which images count as copies and stay in one part" + given
    parser.add_argument("--copies-above", type=float, default=0.95, help=copies)
    add_skip_bad(parser)


def add_skip_bad(parser: ArgumentParser) -> None:
    """Declare the option to go on without unreadable files."""
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on without files that cannot be read"
    )


def run(options: Namespace) -> int:
    """Train as the options say; return 0, or 1 if it was stopped on the way."""
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
    except (KeyboardInterrupt, FloatingPointError) as error:
        print(str(error) or "stopped; the same command goes on from here", file=sys.stderr)
        return 1
    print(_summary(artifacts))
    return 0


def _load(options: Namespace) -> ImageSet:
    """Load the images, a folder's at the size of the network; say what they are."""
    path, out = Path(options.data), options.out
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
    tell_skipped(data.skipped)
    return data


def tell_skipped(skipped: Iterable[Skipped]) -> None:
    """Say which files were left out, and why."""
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
