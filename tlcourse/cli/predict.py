"""`tlcourse predict`: ask a detector about image files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path

from tlcourse.cli import train
from tlcourse.datasets.base import InvalidDataset
from tlcourse.datasets.folder import has_image_ending
from tlcourse.detectors.artifacts import PROBABILITY
from tlcourse.detectors.serialization import load_detector
from tlcourse.files import written_whole

REFUSALS = train.REFUSALS


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("detector", type=Path, help="a file that `tlcourse train` wrote")
    parser.add_argument("images", type=Path, nargs="+", help="image files, or folders of them")
    parser.add_argument("--out", type=Path, help="a CSV file; left out: the terminal")
    train.add_skip_bad(parser)


def run(options: Namespace) -> int:
    """Answer for image files; return 0.

    The table goes to `out`, or else to the standard output as CSV: a row per file with the answer
    and the probability of each class.
    """
    detector = load_detector(options.detector)
    files = image_files(options.images)
    probs = detector.predict_files(files, skip_bad=options.skip_bad, progress=True)
    table = probs.add_prefix(PROBABILITY)
    table.insert(0, "answer", detector.predicted_classes(probs))
    train.tell_skipped(probs.attrs["skipped"])
    if options.out is None:
        print(table.to_csv(lineterminator="\n"), end="")
        return 0
    with written_whole(options.out) as partial:
        table.to_csv(partial, lineterminator="\n")
    print(f"{len(table)} answers in {options.out}")
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
