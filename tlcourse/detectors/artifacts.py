"""Keep what a training leaves behind in one folder, and read it back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tlcourse.files import written_whole

KIND = "tlcourse training"
FORMAT = 2
DETECTOR, HISTORY, PREDICTIONS = "detector.pt", "history.csv", "predictions.csv"
RUN, WORST, CHECKPOINTS = "run.json", "most_wrong.npz", "checkpoints"

PROBABILITY = "p_"
"""What the name of a column of probabilities begins with, before the class's own name."""


class InvalidArtifacts(ValueError):
    """A folder that is not what a training leaves behind, or not the one that is meant."""


@dataclass(frozen=True, eq=False)
class Artifacts:
    """What `train_detector` left in a folder.

    Attributes:
        folder: Where it lies.
        run: Arguments, data, versions, what was tried and chosen, scores: `run.json`.
        history: A row per rate that was tried (`head_lr`) and epoch; see `History.table`.
        predictions: A row per test image: `image` (its place in the test part), `label`,
            `answer`, and `p_CLASS`, the probability of each class.
        most_wrong: The test images whose true class got the least probability, uint8
            `(K, H, W[, 3])`, most wrong first.
        most_wrong_rows: Their rows in `predictions`, int64 `(K,)`.
    """

    folder: Path
    run: dict[str, Any]
    history: pd.DataFrame
    predictions: pd.DataFrame
    most_wrong: NDArray[np.uint8]
    most_wrong_rows: NDArray[np.int64]

    @property
    def detector(self) -> Path:
        """The detector file, for `load_detector`."""
        return self.folder / DETECTOR

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the labels."""
        return tuple(self.run["data"]["classes"])

    @property
    def labels(self) -> NDArray[np.int64]:
        """True classes of the test images as numbers `(N,)`."""
        return np.array([self.classes.index(name) for name in self.predictions["label"]], np.int64)

    @property
    def probs(self) -> NDArray[np.float64]:
        """Probabilities `(N, C)` of the test images."""
        columns = [PROBABILITY + name for name in self.classes]
        return self.predictions[columns].to_numpy(dtype=float)

    def __repr__(self) -> str:
        scores = self.run["scores"]["test"]
        said = [f"{k} {v['estimate']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for k, v in
                scores.items() if isinstance(v, dict)]  # fmt: skip
        return f"Artifacts in {self.folder}: test {', '.join(said)}"


def read_artifacts(folder: Path | str) -> Artifacts:
    """Read what a finished training left in a folder.

    Raises:
        InvalidArtifacts: If the folder holds none, an unfinished one, one of a newer version, or
            lacks a file.
    """
    folder = Path(folder)
    run = read_run(folder)
    if run is None:
        raise InvalidArtifacts(
            f"{folder}: expected what `tlcourse train --out` leaves; no {RUN} here"
        )
    if not run["finished"]:
        raise InvalidArtifacts(f"{folder}: the training is not finished; the same command goes on")
    try:
        with np.load(folder / WORST, allow_pickle=False) as worst:
            images, rows = worst["images"], worst["rows"]
        predictions = _read_table(folder / PREDICTIONS, whole=["image"], text=["label", "answer"])
        history = _read_table(folder / HISTORY, whole=["epoch"], text=[])
    except (OSError, KeyError, ValueError) as error:
        raise InvalidArtifacts(f"{folder}: a file is missing or damaged: {error}") from error
    return Artifacts(folder, run, history, predictions, images, rows)


def read_run(folder: Path) -> dict[str, Any] | None:
    """Return the content of `run.json`, finished or not; None if there is no such file.

    Raises:
        InvalidArtifacts: If it is something else, or of another version.
    """
    path = folder / RUN
    if not path.is_file():
        return None
    try:
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind, version = run["kind"], run["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArtifacts(
            f"{path}: expected a file of `tlcourse train`; found another"
        ) from error
    if kind != KIND or version != FORMAT:
        found = f"{kind} of format {version}"
        raise InvalidArtifacts(
            f"{path}: expected {KIND} of format {FORMAT}; found {found}: train anew into another "
            "folder, or read it with the version of tlcourse that wrote it"
        )
    return run


def write_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Write `run.json`, whole or not at all."""
    content = {"kind": KIND, "format": FORMAT, **run}
    with written_whole(folder / RUN) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV whose floats read back to the same bits, whole or not at all."""
    with written_whole(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def _read_table(path: Path, *, whole: list[str], text: list[str]) -> pd.DataFrame:
    """Read what `write_table` wrote, to the same bits; all other columns are floats."""
    # As text first: class names may look like numbers or missing values, and the parser of
    # pandas' older releases is a bit off in the last digit.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    floats = [name for name in table.columns if name not in (*whole, *text)]
    for name in floats:
        table[name] = [float(value or "nan") for value in table[name]]
    return table.astype(dict.fromkeys(whole, np.int64))


def write_worst(folder: Path, images: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
    """Write the most wrong test images and their rows, whole or not at all."""
    with written_whole(folder / WORST) as partial:
        np.savez_compressed(partial, images=images, rows=rows)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process from training into `folder`; clear what killed ones left half.

    Raises:
        InvalidArtifacts: If another process trains there, or the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidArtifacts(f"{folder}: expected a folder to write to; found a file")
    strange = sorted(p.name for p in folder.glob("[!.]*")) if folder.exists() else []
    if strange and RUN not in strange:
        raise InvalidArtifacts(
            f"{folder}: expected a new or empty folder, or that of a training to go on with; found "
            f"{', '.join(strange[:3])}: name another one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")  # the system drops that of a process that is killed
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InvalidArtifacts(f"{folder}: another process is training into it now") from error
    try:
        for left in folder.glob(".*.partial*"):
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
