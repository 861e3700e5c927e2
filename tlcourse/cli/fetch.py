"""`tlcourse fetch`: get weights and images ahead of an offline day."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from tlcourse.backbones.weights import WeightsUnavailable, fetch_checkpoint
from tlcourse.datasets.base import InvalidDataset
from tlcourse.datasets.medmnist import DatasetUnavailable, fetch_breastmnist

REFUSALS = ()
SIZES = (28, 64, 128, 224)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--size", type=int, default=64, choices=SIZES, help="of images, in pixels")
    parser.add_argument("--backbone", action="append", default=[], help="also fetch this network")


def run(options: Namespace) -> int:
    """Fetch what lessons need and what was named; return 0, or 1 if something needed lacks."""
    needed = [_fetched_weights(name) for name in ["mobilenet_v2", *options.backbone]]
    if "resnet18" not in options.backbone and not _fetched_weights("resnet18"):
        print("lesson 03 then shows ResNet-18 with random weights", file=sys.stderr)
    return 0 if all([*needed, _fetched_images(options.size)]) else 1


def _fetched_weights(name: str) -> bool:
    try:
        print(f"weights of {name}: {fetch_checkpoint(name)}")
    except (WeightsUnavailable, ValueError) as error:
        print(f"weights of {name}: {error}", file=sys.stderr)
        return False
    return True


def _fetched_images(size: int) -> bool:
    """Fetch the real images; a course without them still runs, one with damaged ones does not."""
    try:
        print(f"images: {fetch_breastmnist(size=size)}")
    except DatasetUnavailable as error:
        print(f"images: {error}\nthe lessons will use the simulated set", file=sys.stderr)
    except (InvalidDataset, NotADirectoryError) as error:
        print(f"images: {error}", file=sys.stderr)
        return False
    return True
