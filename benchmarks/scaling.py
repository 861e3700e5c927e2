"""Measure how seconds and memory grow with the number of images.

    python -m benchmarks.scaling            # the whole table, see benchmarks/README.md for the time
    python -m benchmarks.scaling --quick    # a smoke test, seconds, writes nothing

Each turn is a fresh process: the peak of its resident memory is that of the work alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray

# So that `python benchmarks/scaling.py` finds the package it belongs to.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tlcourse.backbones import load_backbone
from tlcourse.datasets import ImageSet, Split
from tlcourse.features import extract_features
from tlcourse.files import forget_pages
from tlcourse.freezing import freeze
from tlcourse.results import save_table
from tlcourse.runtime import seeded, set_threads, usable_cores
from tlcourse.simulation import Phantom, simulate
from tlcourse.training import fit

NAME = "scaling"
FEATURES, HEAD, ALL = "features", "head only", "all layers"
WORKS = (FEATURES, HEAD, ALL)
COUNTS = (1_000, 10_000, 100_000)
SIZE = 64
"""Side of the images, and at which the network sees them."""

LIMIT_MB = 1500.0
LINEAR = (0.8, 1.25)
"""Seconds per image at the largest number, by those at the one before."""

DRAWN = 200
"""Simulated images that all others are made of."""

EVALUATED = 200
"""Validation images, and test images, whatever the number of training images."""

WARM = 64
WRITTEN_AT_ONCE = 10_000


@dataclass(frozen=True)
class Task:
    """A piece of work to be measured: what, on how many images of which side."""

    work: str
    images: int
    size: int = SIZE
    threads: int = 2


@dataclass(frozen=True)
class Taken:
    """What a task took.

    Attributes:
        seconds: Wall time of the work, after a short warm-up.
        cpu_seconds: Processor time of the work, all threads together: other programs hardly
            change it.
        start_mb: Resident memory of the process before there were images, in 10^6 bytes.
        peak_mb: Its highest resident memory.
    """

    seconds: float
    cpu_seconds: float
    start_mb: float
    peak_mb: float


Carry = Callable[[Task], Taken]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and unless it is a smoke test publish; return 1 if a limit is passed."""
    options = _parser().parse_args(arguments)
    counts = (64, 128) if options.quick else tuple(sorted(options.counts))
    size, threads = (32, 1) if options.quick else (SIZE, usable_cores())
    carry = measure if options.quick else in_fresh_process
    found = []
    for count in counts:
        for work in options.works:
            task = Task(work, count, size, threads)
            print(f"{work}, {count:,} images ...", flush=True)
            found.append((task, carry(task)))
            print(f"    {_described(found[-1][1])}", flush=True)
    rows = table(found)
    print(rows.to_string(index=False, float_format="{:.4g}".format, na_rep=""))
    if options.quick:
        print("a smoke test: no table is written")
        return 0
    print(_publish(rows, options, threads))
    problems = beyond_limits(rows)
    print("\n".join(problems) or f"under {LIMIT_MB:.0f} MB everywhere, and seconds grow linearly")
    return 1 if problems else 0


def measure(task: Task) -> Taken:
    """Carry a task out in this process."""
    os.environ["TLCOURSE_DEVICE"] = "cpu"
    set_threads(task.threads)
    with seeded(0), TemporaryDirectory() as folder:
        _carry_out(task, _image_set(min(WARM, task.images), task.size, Path(folder)))
        start = psutil.Process().memory_info().rss
        data = _image_set(task.images, task.size, Path(folder))
        wall, cpu = time.perf_counter(), time.process_time()
        _carry_out(task, data)
        seconds, spent = time.perf_counter() - wall, time.process_time() - cpu
    return Taken(seconds, spent, start / 1e6, peak_bytes() / 1e6)


def in_fresh_process(task: Task) -> Taken:
    """Carry a task out in a process of its own.

    Raises:
        RuntimeError: If it fails; the message holds the end of what it printed.
    """
    command = [sys.executable, "-m", "benchmarks.scaling", "--task", json.dumps(asdict(task))]
    root = Path(__file__).resolve().parents[1]
    threads = {"OMP_NUM_THREADS": str(task.threads)}
    run = subprocess.run(
        command, cwd=root, env={**os.environ, **threads}, capture_output=True, text=True
    )
    if run.returncode != 0:
        raise RuntimeError(f"{task} failed:\n{run.stderr[-3000:]}")
    return Taken(**json.loads(run.stdout.splitlines()[-1]))


def peak_bytes() -> int:
    """Return the highest resident memory of this process so far, pages of mapped files included.

    From `/proc`, where there is one: `ru_maxrss` of a process begins with that of the one that
    started it.

    >>> peak_bytes() > 10_000_000
    True
    """
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = [row for row in status.read_text().splitlines() if row.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest


def many_images(
    count: int, size: int, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images `(count, size, size)` and labels: simulated ones again and again, with noise.

    They cost next to nothing, and no two are equal.

    >>> images, labels = many_images(1000, 16)
    >>> images.shape, len(np.unique(images.reshape(1000, -1), axis=0)), set(labels.tolist())
    ((1000, 16, 16), 1000, {0, 1})
    """
    scene = _drawn(size)
    rng = np.random.default_rng(seed)
    images, labels = np.empty((count, size, size), np.uint8), np.empty(count, np.int64)
    for start in range(0, count, DRAWN):
        rows = rng.permutation(DRAWN)[: count - start]
        noise = rng.integers(0, 16, (len(rows), size, size), np.uint8)
        images[start : start + DRAWN] = np.minimum(scene.images[rows], 255 - 15) + noise
        labels[start : start + DRAWN] = scene.labels[rows]
    return images, labels


def table(found: Sequence[tuple[Task, Taken]]) -> pd.DataFrame:
    """Return a row per task.

    Columns: `work`, `images`, `seconds`, `cpu_seconds`, `images_per_second`, `peak_mb`, `start_mb`,
    `images_mb` (bytes of the images), `per_image` (seconds per image by those of the row of the
    same work with the next smaller number of images; 1 is linear).
    """
    rows = pd.DataFrame([{**asdict(task), **asdict(taken)} for task, taken in found])
    rows = rows.sort_values(["work", "images"], key=_in_order, ignore_index=True)
    rows["images_per_second"] = rows["images"] / rows["seconds"]
    rows["images_mb"] = rows["images"] * rows["size"] ** 2 / 1e6
    each = rows["seconds"] / rows["images"]
    rows["per_image"] = each / each.groupby(rows["work"]).shift()
    times = ["seconds", "cpu_seconds", "images_per_second", "per_image"]
    return rows[["work", "images", *times, "start_mb", "images_mb", "peak_mb"]]


def beyond_limits(rows: pd.DataFrame) -> list[str]:
    """Say which works take more memory than `LIMIT_MB`, or more than linear time at the end."""
    over = [
        f"{row.work}, {row.images:,} images: {row.peak_mb:.0f} MB, the limit is {LIMIT_MB:.0f}"
        for row in rows[rows["peak_mb"] > LIMIT_MB].itertuples()
    ]
    last = rows.groupby("work", sort=False).last()
    low, high = LINEAR
    bent = last[(last["per_image"] < low) | (last["per_image"] > high)]
    return over + [
        f"{work}: an image takes {row['per_image']:.2f} times as long among {row['images']:,.0f}, "
        f"expected {low} to {high}"
        for work, row in bent.iterrows()
    ]


def _carry_out(task: Task, data: ImageSet) -> None:
    # Random weights take as long as others and are always there.
    model = load_backbone("mobilenet_v2", weights=None, num_classes=2)
    if task.work == FEATURES:
        extract_features(model, data.train.images, size=task.size, progress=False)
        return
    if task.work == HEAD:
        freeze(model)
    fit(model, data, epochs=1, size=task.size, progress=False)


@cache
def _drawn(size: int) -> Phantom:
    scene: Phantom = simulate(DRAWN, size=size)
    return scene


def _image_set(count: int, size: int, folder: Path) -> ImageSet:
    """Make a set whose training images lie in a file, as sets larger than memory do."""
    evaluated = Split(*many_images(min(EVALUATED, count), size, seed=1))
    path = folder / f"{count}.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size))
    labels = np.empty(count, np.int64)
    for start in range(0, count, WRITTEN_AT_ONCE):
        rows = slice(start, min(start + WRITTEN_AT_ONCE, count))
        images[rows], labels[rows] = many_images(rows.stop - rows.start, size, seed=start)
        forget_pages(images)
    train = Split(np.load(path, mmap_mode="r"), labels)
    return ImageSet("many", train, evaluated, evaluated, ("malignant", "benign"))


def _in_order(column: pd.Series[int]) -> pd.Series[int]:
    return column.map(WORKS.index) if column.name == "work" else column


def _described(taken: Taken) -> str:
    return f"{taken.seconds:.1f} s, at most {taken.peak_mb:.0f} MB"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of images")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS, help="what is measured")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes in one process; nothing is written"
    )
    return parser


def _publish(rows: pd.DataFrame, options: argparse.Namespace, threads: int) -> Path:
    command = "python -m benchmarks.scaling"
    if tuple(options.counts) != COUNTS:
        command += " --counts " + " ".join(map(str, options.counts))
    if tuple(options.works) != WORKS:
        command += " --works " + " ".join(f"'{work}'" for work in options.works)
    note = (
        f"MobileNetV2 with random weights at {SIZE} px, grey simulated images of {SIZE} px in a "
        f"mapped file; features: one pass; head only: backbone frozen, its answers cached, one "
        f"epoch; all layers: one epoch; each turn a fresh process after a warm-up; peak_mb: "
        f"highest resident memory; per_image: seconds per image by those at the next "
        f"smaller number; {threads} threads"
    )
    return save_table(rows, NAME, command=command, note=note)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--task"]:
        print(json.dumps(asdict(measure(Task(**json.loads(sys.argv[2]))))))
    else:
        sys.exit(main())
