"""Images that studies share, and what a trained network scores on a part of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from torch import nn

from tlcourse import metrics
from tlcourse.datasets.base import ImageSet, Split, join
from tlcourse.datasets.corruptions import corrupt
from tlcourse.datasets.loading import load_images
from tlcourse.training.predict import predict


class AtHand(NamedTuple):
    """The images that a publication measures, and what they are called.

    Attributes:
        data: The set.
        name: What grids and the tables' files call it: breastmnist or phantom.
        kind: What the tables' rows call it: real or simulated.
    """

    data: ImageSet
    name: str
    kind: str


def images_at_hand() -> AtHand:
    """Load the real images, or where there are none the simulated ones."""
    data = load_images("breast")
    return AtHand(data, *(("phantom", "simulated") if data.simulated else ("breastmnist", "real")))


@cache  # the runs of a grid share their images; finding near copies takes as long as a training
def image_set(source: str, partition: str = "grouped") -> ImageSet:
    """Load a set by name: dealt anew (`"grouped"`), or in its `"official"` parts."""
    # Only the real set has an official partition; the simulated one is dealt by patient.
    return load_images(source) if partition == "grouped" else load_images(source, split=partition)


@cache
def all_images(source: str, views: int = 1) -> Split:
    """Return the images of all parts as one, with their groups: what folds are dealt from.

    Args:
        source: As `load_images` takes it.
        views: Images of a simulated patient; of real ones, leave it at 1.
    """
    data = image_set(source) if views == 1 else load_images(source, views=views)
    return join(data.development, data.test)


@cache
def shifted(shift: str) -> Split:
    """Return the simulated test patients as another scanner images them."""
    return load_images("phantom", shift_test=shift, progress=False).test


def scores(model: nn.Module, part: Split, size: int, *, with_probs: bool = False) -> dict[str, Any]:
    """Return AUC, accuracy, loss and calibration error of a network on a part.

    Args:
        model: A classifier.
        part: Images with labels.
        size: Side in pixels at which the network sees the images.
        with_probs: Whether to add `probs`, the probabilities of class 0 in the images' order.
    """
    probs = predict(model, part.images, size=size)
    kept = {"probs": [round(float(p), 6) for p in probs[:, 0]]} if with_probs else {}
    return {
        "auc": metrics.auc(part.labels, probs),
        "accuracy": metrics.accuracy(part.labels, probs),
        "loss": metrics.log_loss(part.labels, probs),
        "calibration_error": metrics.calibration_error(part.labels, probs),
        **kept,
    }


def row_of_run(
    model: nn.Module,
    data: ImageSet,
    size: int,
    measured: Mapping[str, float],
    *,
    test: bool,
    with_probs: bool = False,
) -> dict[str, Any]:
    """Return what a run of a grid says of a trained network.

    Args:
        model: A trained classifier.
        data: The set whose training part it was trained on.
        size: Side in pixels at which the network sees the images.
        measured: Further columns, behind the number of training images.
        test: Whether to open the test images; a run that chooses rates leaves them shut.
        with_probs: As `scores` takes it, of the test images.

    Returns:
        `train_images`, what was measured, `val_auc`, `val_loss`, and the test images' scores.
    """
    validated = scores(model, data.val, size)
    return {
        "train_images": len(data.train),
        **measured,
        "val_auc": validated["auc"],
        "val_loss": validated["loss"],
        **(scores(model, data.test, size, with_probs=with_probs) if test else {}),
    }


def other_scores(
    model: nn.Module, part: Split, shifts: Sequence[str], corruptions: Sequence[str], size: int
) -> dict[str, float]:
    """Return the scores under other conditions, as `SCORE/CONDITION`.

    Args:
        model: A classifier.
        part: The test part that corruptions spoil.
        shifts: Other scanners for the simulated test patients (`phantom.SHIFTS`).
        corruptions: `NAME@SEVERITY`, such as `"blur@3"`; see `corruptions.corrupt`.
        size: Side in pixels at which the network sees the images.
    """
    conditions = {shift: shifted(shift) for shift in shifts}
    conditions |= {corruption: _corrupted(part, corruption) for corruption in corruptions}
    return {
        f"{name}/{condition}": score
        for condition, changed in conditions.items()
        for name, score in scores(model, changed, size).items()
    }


def _corrupted(part: Split, corruption: str) -> Split:
    name, _, severity = corruption.partition("@")
    return replace(part, images=corrupt(part.images, name, int(severity), seed=0))
