"""Measure the course's `fit` against PyTorch-tutorial style, fastai, Lightning and a bare loop.

    python -m benchmarks.peers                   # the whole table, more than an hour on two cores
    python -m benchmarks.peers --long-rounds 1   # the peers' 50 epochs once: about 45 minutes
    python -m benchmarks.peers --quick           # a smoke test, seconds, writes nothing

See benchmarks/README.md for the environment.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

import pandas as pd

# So that `python benchmarks/peers.py` finds the package it belongs to.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import peer_versions
from benchmarks.jobs import LR, WEIGHT_DECAY, Job, measure
from benchmarks.ratios import table
from benchmarks.turns import Part, in_fresh_process, parts, shared_images, take_turns
from tlcourse.datasets import ImageSet, load_images
from tlcourse.results import save_table
from tlcourse.runtime import usable_cores

TABLES = {"simulated": "peers_phantom", "real": "peers_breastmnist"}
SETS = {"simulated": "phantom", "real": "breastmnist"}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and unless it is a smoke test publish."""
    options = _parser().parse_args(arguments)
    os.environ["TLCOURSE_DEVICE"] = "cpu"
    for package, version in peer_versions().items():
        print(f"{package}: {version}")
    if not options.quick:
        _hold_to(options.cores)
    data = _images(options)
    rounds = 1 if options.quick else options.rounds
    chosen = parts(rounds, options.long_rounds or rounds, quick=options.quick)
    with tempfile.TemporaryDirectory() as folder:
        base = _base(shared_images(data, Path(folder)), quick=options.quick)
        carry = measure if options.quick else in_fresh_process
        turns = take_turns(chosen, base, carry, _say, trial=not options.quick)
    found = table(turns, chosen, len(data.train))
    print(found.to_string(index=False, float_format="{:.4g}".format, na_rep=""))
    if options.quick:
        print("a smoke test: no table is written")
    else:
        print(_publish(found, options, data, chosen, base))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--images", choices=sorted(SETS), default="simulated")
    parser.add_argument("--rounds", type=_positive, default=3, help="turns each contender takes")
    parser.add_argument(
        "--long-rounds", type=_positive, help="turns in the part of 50 epochs (default: --rounds)"
    )
    parser.add_argument("--cores", type=_positive, default=2, help="cores that may be used")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes in one process; nothing is written"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, got {text}")
    return number


def _say(line: str) -> None:
    print(line, flush=True)


def _hold_to(cores: int) -> None:
    """Let this process and those it starts use so many cores, where the system can be told."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if usable_cores() != cores:
        print(f"{usable_cores()} cores are used, not {cores}", file=sys.stderr)


def _images(options: argparse.Namespace) -> ImageSet:
    if options.quick:
        return load_images("phantom", n=40, size=32, progress=False)
    return load_images(SETS[options.images], progress=False)


def _base(images: str, *, quick: bool) -> Job:
    """Return what all jobs share; its contender, epochs and frozen part are replaced."""
    if quick:
        return Job("", 0, "", images, size=32, batch_size=14, weights=None, threads=1)
    return Job("", 0, "", images, threads=usable_cores())


def _publish(
    found: pd.DataFrame, options: argparse.Namespace, data: ImageSet, chosen: list[Part], base: Job
) -> Path:
    command = f"python -m benchmarks.peers --images {options.images} --rounds {options.rounds}"
    if options.long_rounds:
        command += f" --long-rounds {options.long_rounds}"
    peers = ", ".join(f"{package} {version}" for package, version in peer_versions().items())
    note = (
        f"ImageNet MobileNetV2, {data.name} ({data.partition} split), {len(data.train)} training "
        f"and {len(data.val)} validation images of {data.train.images.shape[1]} px enlarged to "
        f"{base.size}; batch {base.batch_size}, AdamW {LR:g}, weight decay {WEIGHT_DECAY:g}; each "
        f"turn a fresh process after a warm-up; times_longer: seconds by those of tlcourse in the "
        f"same round; frozen_share: share of the seconds in the frozen part; others: largest share "
        f"of the cores used by other programs; {base.threads} threads on {_processor()}; "
        f"{peers}"
    )
    return save_table(found, TABLES[options.images], command=command, note=note)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({platform.system()})"


if __name__ == "__main__":
    sys.exit(main())
