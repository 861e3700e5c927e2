"""Build a detector by the whole protocol: choose on validation only, open the test set once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlcourse import __version__
from tlcourse.datasets.base import ImageSet, Split
from tlcourse.detectors.artifacts import (
    CHECKPOINTS,
    DETECTOR,
    HISTORY,
    PREDICTIONS,
    PROBABILITY,
    RUN,
    Artifacts,
    held,
    read_artifacts,
    read_run,
    write_run,
    write_table,
    write_worst,
)
from tlcourse.detectors.config import TrainingConfig, head_rates
from tlcourse.detectors.detector import Detector
from tlcourse.detectors.search import Trial, best_trial
from tlcourse.detectors.serialization import load_detector, save_detector
from tlcourse.metrics.calibration import calibration_error
from tlcourse.metrics.intervals import bootstrap
from tlcourse.metrics.scores import Metric, accuracy, auc, balanced_accuracy, log_loss
from tlcourse.runtime import device, versions
from tlcourse.training.strategies import Strategy, get_strategy

WITH_INTERVAL: dict[str, Metric] = {
    "auc": auc,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "log_loss": log_loss,
}
"""Scores whose bootstrap interval is meaningful."""

RESAMPLES = 1000
"""Draws of the bootstrap."""

MOST_WRONG = 12
"""Images that a report shows at most."""


def train_detector(
    data: ImageSet,
    out: Path | str,
    *,
    backbone: str = "mobilenet_v2",
    strategy: str | Strategy = "warmup",
    epochs: int = 10,
    lr: float | Sequence[float] | None = None,
    size: int = 128,
    seed: int = 0,
    class_weights: Literal["balanced"] | None = None,
    notices: Sequence[str] = (),
    command: str | None = None,
    progress: bool = True,
) -> Artifacts:
    """Train a classifier, choose on the validation images, score the test images, keep it all.

    Every rate of `lr` gets a training of its own, in which images are mirrored every other time.
    Of all their epochs the one with the lowest validation loss is kept; then the test images are
    opened, once. The folder holds the detector file, `history.csv`, `predictions.csv` (test),
    `most_wrong.npz` and `run.json`.

    It may be killed at any moment. The same call goes on from the last finished epoch and ends
    with the same weights, bit for bit, on the CPU of one machine with one number of threads; after
    the end it only reads back.

    Args:
        data: What `load_images` returned.
        out: A new folder, or that of the same training.
        backbone: A classifier of torchvision.
        strategy: How the network is carried over: a key of `STRATEGIES` in
            `tlcourse.training.strategies`, or one of your own.
        epochs: Times that every training image is seen; 2 or more where stages are released.
        lr: Rate of the head, or several to choose from; None is the strategy's own or `HEAD_LR`.
        size: Side in pixels at which the network sees the images.
        seed: Seed of the new head, of order and augmentation.
        class_weights: "balanced" lets each class weigh alike in the training loss, however few
            its images are; validation loss and scores count images as they come. None:
            as they come in training, too.
        notices: What the report shall say of the images, such as the text of a warning.
        command: The command line behind the call, for the report.
        progress: Whether to show a progress bar and what is being done.

    Raises:
        InvalidArtifacts: If `out` holds something else, or a training with other arguments.
        ValueError: If an argument is out of range, or validation or test images are all of one
            class.
        WeightsUnavailable: If pretrained weights are needed and cannot be had.
        KeyboardInterrupt: After Ctrl-C; what was learned is kept to go on from.
        FloatingPointError: If a loss is no longer a finite number.
    """
    chosen = get_strategy(strategy) if isinstance(strategy, str) else strategy
    config = TrainingConfig(
        data=data,
        backbone=backbone,
        strategy=chosen,
        rates=head_rates(chosen, lr),
        epochs=epochs,
        size=size,
        seed=seed,
        class_weights=class_weights,
        progress=progress,
    )
    folder = Path(out)
    with held(folder):
        begun = read_run(folder)
        config.check_against(begun, folder)
        if begun is None or not begun["finished"]:
            about = {"arguments": config.arguments(), "command": command, "notices": [*notices]}
            about |= _about(data)
            write_run(folder, {"finished": False, **about})
            with _forgotten_if_nothing_came(folder):
                _finish(config, folder, about)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return read_artifacts(folder)


@contextmanager
def _forgotten_if_nothing_came(folder: Path) -> Iterator[None]:
    """After an error before the first finished epoch, leave the folder free for another try."""
    try:
        yield
    except Exception:
        if not any((folder / CHECKPOINTS).glob("*.pt")):
            (folder / RUN).unlink(missing_ok=True)
        raise


def _finish(config: TrainingConfig, folder: Path, about: dict[str, Any]) -> None:
    """Train, score and write; `run.json` comes last and says that all is there."""
    best, tried, history = best_trial(config, folder / CHECKPOINTS)
    write_table(folder / HISTORY, history)
    detector = _saved_detector(config, best, folder / DETECTOR)
    val, test = config.data.val, config.data.test
    # What is scored is what the file gives, not what stands in memory.
    probs = detector.predict(val.images).to_numpy(dtype=float)
    scores = {"val": {name: metric(val.labels, probs) for name, metric in WITH_INTERVAL.items()}}
    config.say(f"opening the test set, once: {len(test)} images")
    table = detector.predict(test.images)
    scores["test"] = _test_scores(test, table.to_numpy(dtype=float))
    write_table(folder / PREDICTIONS, _prediction_table(test.labels, table, detector))
    rows = most_wrong(test.labels, table)
    write_worst(folder, test.images[rows], rows)
    chosen = {"chosen": best.scores, "tried": tried, "training": best.plan}
    write_run(folder, {"finished": True, **about, **chosen, "scores": scores})


def _saved_detector(config: TrainingConfig, best: Trial, path: Path) -> Detector:
    data = config.data
    save_detector(
        path,
        best.model,
        backbone=config.backbone,
        classes=data.classes,
        size=config.size,
        image_shape=data.train.images.shape[1:],
        notes={"data": data.name, "strategy": config.strategy.name, **best.scores},
    )
    return load_detector(path)


def _about(data: ImageSet) -> dict[str, Any]:
    counts = {str(part): row for part, row in data.counts().to_dict("index").items()}
    return {
        "data": {
            "name": data.name,
            "source": data.source,
            "license": data.license,
            "citation": data.citation,
            "partition": data.partition,
            "simulated": data.simulated,
            "classes": list(data.classes),
            "image_shape": list(data.train.images.shape[1:]),
            "counts": counts,
            "skipped": [entry._asdict() for entry in data.skipped],
        },
        "versions": {"tlcourse": __version__, **versions()},
        "device": str(device()),
    }


def _test_scores(test: Split, probs: NDArray[np.float64]) -> dict[str, Any]:
    """Return scores by name: estimate, low and high of a 95 % bootstrap interval.

    Images of one group (a patient, near copies) are drawn together. `calibration_error` is a
    number alone: its bootstrap interval is biased upward.
    """
    labels, groups = test.labels, test.groups
    intervals = {
        name: bootstrap(metric, labels, probs, groups=groups, resamples=RESAMPLES)._asdict()
        for name, metric in WITH_INTERVAL.items()
    }
    return {**intervals, "calibration_error": calibration_error(labels, probs)}


def _prediction_table(
    labels: NDArray[np.int64], probs: pd.DataFrame, detector: Detector
) -> pd.DataFrame:
    """Return a row per test image: its place in the part, label, answer, `p_CLASS` by class."""
    table = pd.DataFrame({"image": np.arange(len(labels))})
    table["label"] = [detector.classes[label] for label in labels]
    table["answer"] = detector.predicted_classes(probs).to_numpy()
    return table.join(probs.add_prefix(PROBABILITY))


def most_wrong(labels: NDArray[np.int64], probs: pd.DataFrame) -> NDArray[np.int64]:
    """Return the rows answered wrongly, that whose true class got the least probability first.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`.

    >>> probs = pd.DataFrame([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> most_wrong(np.array([1, 1, 1]), probs).tolist()
    [0, 1]
    """
    rows = probs.to_numpy(dtype=float)
    truth = rows[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(rows.argmax(axis=1) != labels)
    return wrong[np.argsort(truth[wrong], kind="stable")][:MOST_WRONG]
