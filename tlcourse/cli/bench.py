"""Measure what this machine takes for the trainings of the course: `tlcourse bench`.

Ratios are formed side by side, round by round, on the same images; the seconds alone say as much
about what else runs as about the machine. The comparison with other libraries is `benchmarks/`.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from tlcourse.backbones.factory import load_backbone
from tlcourse.backbones.stages import stages
from tlcourse.datasets.base import ImageSet
from tlcourse.datasets.loading import load_images
from tlcourse.features.extract import extract_features
from tlcourse.freezing.freeze import freeze
from tlcourse.training.fit import fit

WORK = ("features", "head", "head and last stage", "all layers")
"""What trains; features are those that a probe learns from, in one pass."""
TURNS = [(work, cache) for work in WORK for cache in (True, False) if cache or "head" in work]
REFUSALS = (ValueError,)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--backbone", default="mobilenet_v2", help="a classifier of torchvision")
    parser.add_argument("--images", type=int, default=128, help="simulated images to train on")
    parser.add_argument("--size", type=int, default=128, help="side in pixels")
    parser.add_argument("--epochs", type=int, default=3, help="of each training")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; medians are shown")


def run(options: Namespace) -> int:
    """Print the table of `bench`; return 0."""
    table = bench(**vars(options))
    print(table.to_string(float_format="{:.3g}".format, na_rep=""))
    return 0


def bench(
    backbone: str,
    *,
    images: int = 128,
    size: int = 128,
    epochs: int = 3,
    rounds: int = 3,
    progress: bool = True,
) -> pd.DataFrame:
    """Time features, a head, the last stage and all layers, with and without cached activations.

    Args:
        backbone: A classifier of torchvision, from random weights: they take as long as others.
        images: Simulated training images, at least 20.
        size: Side in pixels at which the network sees them.
        epochs: Epochs of each training.
        rounds: Times that all take turns; the table holds medians.
        progress: Whether to show a bar with the time left.

    Returns:
        One row per kind of work: `seconds` of one turn, `images_per_second` (training images
        seen), `uncached` (seconds without the cache over seconds with it, of the same round; NaN
        where nothing is frozen).

    Raises:
        ValueError: If there are too few images, no epoch or no round.

    >>> bench("shufflenet_v2_x0_5", images=20, size=32, epochs=1, rounds=1, progress=False).shape
    (4, 3)
    """
    if images < 20 or min(epochs, rounds) < 1:
        raise ValueError(
            "expected at least 20 images, 1 epoch and 1 round, "
            f"got {images} images, {epochs} epochs, {rounds} rounds"
        )
    whole = load_images("phantom", n=2 * images, progress=False)
    data = whole.with_train(whole.train.subset(images, seed=0))
    seconds: dict[tuple[str, bool], list[float]] = {turn: [] for turn in TURNS}
    with tqdm(total=rounds * len(TURNS), unit="turn", disable=not progress) as bar:
        for _ in range(rounds):
            for work, cache in TURNS:
                bar.set_description(work if cache else f"{work}, uncached")
                model = load_backbone(backbone, weights=None, num_classes=data.num_classes)
                seconds[work, cache].append(_turn(work, cache, model, data, size, epochs))
                bar.update()
    return _table(seconds, images, epochs)


def _turn(
    work: str, cache: bool, model: nn.Module, data: ImageSet, size: int, epochs: int
) -> float:
    """Return the wall seconds of one piece of work."""
    above = {"head": -2, "head and last stage": -3}
    if work in above:
        freeze(model, through=list(stages(model))[above[work]])
    started = time.perf_counter()
    if work == "features":
        extract_features(model, data.train.images, size=size, progress=False)
    else:
        fit(model, data, epochs=epochs, size=size, cache=cache, progress=False)
    return time.perf_counter() - started


def _table(
    seconds: Mapping[tuple[str, bool], list[float]], images: int, epochs: int
) -> pd.DataFrame:
    rows = {}
    for work in WORK:
        own, uncached = np.array(seconds[work, True]), seconds.get((work, False))
        seen = images * (1 if work == "features" else epochs)
        factor = float("nan") if uncached is None else float(np.median(np.array(uncached) / own))
        rows[work] = float(np.median(own)), seen / float(np.median(own)), factor
    columns = ["seconds", "images_per_second", "uncached"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("work")
