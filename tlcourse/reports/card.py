"""Write a model card: the page of Markdown that goes wherever a detector goes.

What stands on it follows Mitchell et al. 2019, *Model Cards for Model Reporting*. No figure on it
is typed: all are computed from the predictions for the test images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlcourse.datasets.base import ImageSet
from tlcourse.detectors.detector import Detector
from tlcourse.detectors.train import WITH_INTERVAL
from tlcourse.files import written_whole
from tlcourse.metrics.calibration import apply_temperature, calibration_error
from tlcourse.metrics.intervals import Interval, bootstrap
from tlcourse.metrics.operating_points import OperatingPoint, at_threshold
from tlcourse.metrics.scores import log_loss
from tlcourse.reports.page import PAGES, SCORE_TEXTS, SPLIT_TEXTS
from tlcourse.runtime import versions

SCORES = ("auc", "accuracy", "balanced_accuracy")
"""Scores that a card gives with an interval; the loss stands beside the calibration error."""

CARD_RESAMPLES = 500
"""Draws of the bootstrap: half as many as a report takes, so that a lesson need not wait."""


class ModelCard(str):
    """A page of Markdown; a notebook shows it laid out.

    >>> ModelCard("# A card")
    # A card
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return str(self)

    def write(self, path: Path | str) -> Path:
        """Write the page to a file, which is there whole or not at all; return its path.

        Args:
            path: The file, such as `card.md` beside the detector; its folder is created.

        Raises:
            OSError: If it cannot be written.
        """
        place = Path(path)
        with written_whole(place) as partial:
            partial.write_text(self, encoding="utf-8")
        return place


def model_card(
    detector: Detector,
    data: ImageSet,
    probs: pd.DataFrame,
    *,
    chosen: str,
    failures: Sequence[str],
) -> ModelCard:
    """Return a page: what a detector is, what it is for, what it does, where it fails.

    Scores come with 95 % bootstrap intervals over the test images, groups (patients, near copies)
    drawn whole. Names and texts are shown as they are, whatever signs they hold.

    Args:
        detector: What `load_detector` returned.
        data: The set whose parts it was trained, chosen and tested on.
        probs: `(N, C)`, what `detector.predict(data.test.images)` returned when the test images
            were opened; they are not opened again.
        chosen: How recipe, threshold and temperature were chosen, and on which images: sentences.
        failures: What it is known to get wrong, a sentence each, one or more.

    Raises:
        ValueError: If `probs` are not those of this detector for these test images, or nothing is
            said of the choice or of failures.
    """
    _check_given(detector, data, probs, chosen, failures)
    rows = probs.to_numpy(dtype=float)
    page = PAGES.get_template("card.md").render(
        detector=detector,
        data=data,
        split_text=SPLIT_TEXTS[data.partition],
        counts=[(str(part), list(row)) for part, row in data.counts().iterrows()],
        chosen=chosen,
        scores=_scores(data, rows),
        point=_point(detector, data.test.labels, rows),
        calibration=_calibration(detector, data.test.labels, rows),
        failures=failures,
        versions=versions(),
    )
    return ModelCard(page)


def _check_given(
    detector: Detector,
    data: ImageSet,
    probs: pd.DataFrame,
    chosen: str,
    failures: Sequence[str],
) -> None:
    if list(probs.columns) != list(detector.classes) or len(probs) != len(data.test):
        raise ValueError(
            f"expected a row for each of {len(data.test)} test images and a column for each class "
            f"{list(detector.classes)}, got {len(probs)} rows and {list(probs.columns)}: pass what "
            "detector.predict(data.test.images) returned"
        )
    if tuple(detector.classes) != tuple(data.classes):
        raise ValueError(
            f"the detector answers {list(detector.classes)}, the set asks for "
            f"{list(data.classes)}: pass the set it was built on"
        )
    if isinstance(failures, str) or not failures or not chosen.strip():
        raise ValueError(
            "expected a text on how it was chosen and a list of known failures, got "
            f"{chosen!r} and {failures!r}: look at the most wrong images, then write what you saw"
        )


def _scores(data: ImageSet, rows: NDArray[np.float64]) -> list[tuple[str, Interval]]:
    labels, groups = data.test.labels, data.test.groups
    found = {
        name: bootstrap(WITH_INTERVAL[name], labels, rows, groups=groups, resamples=CARD_RESAMPLES)
        for name in SCORES
    }
    return [(SCORE_TEXTS[name], interval) for name, interval in found.items()]


def _point(
    detector: Detector, labels: NDArray[np.int64], rows: NDArray[np.float64]
) -> OperatingPoint | None:
    """Return what the detector's own threshold does on the test images; None if it has none."""
    if detector.threshold is None or detector.positive is None:
        return None
    positive = detector.classes.index(detector.positive)
    return at_threshold(labels, rows, detector.threshold, positive=positive)


def _calibration(
    detector: Detector, labels: NDArray[np.int64], rows: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Return calibration error and loss: as the detector answers, and without its temperature."""
    kinds = {"as it answers": rows}
    if detector.temperature is not None:
        kinds["without its temperature"] = apply_temperature(rows, 1 / detector.temperature)
    return [
        {"kind": kind, "error": calibration_error(labels, p), "loss": log_loss(labels, p)}
        for kind, p in kinds.items()
    ]
