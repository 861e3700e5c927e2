"""Measure what drawing and describing images costs, against a fixed load measured beside it.

    python -m benchmarks.sets            # data/results/sets.csv, about a minute
    python -m benchmarks.sets --quick    # a smoke test, writes nothing

Processor time of one thread, in units of the load: what a slow or a busy machine does to one, it
does to the other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

# So that `python benchmarks/sets.py` finds the package it belongs to.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tlcourse.datasets import simulate_smears
from tlcourse.features import probe
from tlcourse.features.handcrafted import classic_features
from tlcourse.results import save_table
from tlcourse.simulation import simulate

ROUNDS = 3
Work = Callable[[], object]


def works(images: int) -> dict[str, Work]:
    """Name what is measured, on a number of images.

    >>> list(works(20))
    ['simulate ultrasound', 'simulate smears', 'classic features', 'probe']
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 64, 64), np.uint8)
    features, labels = rng.normal(size=(images, 1280)), np.arange(images) % 2
    return {
        "simulate ultrasound": lambda: simulate(images),
        "simulate smears": lambda: simulate_smears(images),
        "classic features": lambda: classic_features(pixels),
        "probe": lambda: probe(features, labels),
    }


def load() -> None:
    """Do the work that the others are measured by: 200 two-dimensional Fourier transforms."""
    image = np.random.default_rng(0).normal(size=(256, 256))
    for _ in range(200):
        image = np.fft.ifft2(np.fft.fft2(image)).real


def processor_seconds(work: Work) -> float:
    """Return the processor time that a work takes, all threads together.

    >>> processor_seconds(load) > 0
    True
    """
    started = time.process_time()
    work()
    return time.process_time() - started


def table(images: int, rounds: int) -> pd.DataFrame:
    """Return a row per work.

    Columns: `work`, `images`, `seconds` (of the processor, median of the rounds), `loads` (the same
    by the load's seconds of the same round: least, median, most).
    """
    rows = []
    for name, work in works(images).items():
        work()  # imports and caches
        taken = [(processor_seconds(work), processor_seconds(load)) for _ in range(rounds)]
        loads = sorted(own / beside for own, beside in taken)
        rows.append(
            {
                "work": name,
                "images": images,
                "seconds": median(own for own, _ in taken),
                "loads_min": loads[0],
                "loads": median(loads),
                "loads_max": loads[-1],
            }
        )
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and unless it is a smoke test publish."""
    quick = "--quick" in (sys.argv[1:] if arguments is None else arguments)
    with threadpool_limits(1):
        rows = table(20 if quick else 780, 1 if quick else ROUNDS)
    print(rows.to_string(index=False, float_format="{:.3g}".format))
    if not quick:
        note = (
            f"processor time, median of {ROUNDS} rounds; loads: by that of 200 Fourier transforms "
            "of 256 x 256 numbers there and back, measured after it in each round"
        )
        print(save_table(rows, "sets", command="python -m benchmarks.sets", note=note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
