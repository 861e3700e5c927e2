"""Let the contenders of each part take turns, and write down every time."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from benchmarks.contenders import BARE, COURSE, PEERS, UNCACHED, is_installed
from benchmarks.jobs import BACKBONE, BOUNDARY, Job, Measured
from tlcourse.datasets import ImageSet

WORKERS = (0, 2)
"""Numbers of loader processes that each peer is tried with."""

TRIAL_EPOCHS = 2

Carry = Callable[[Job], Measured]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A comparison: what is trained, for how long, by whom.

    Attributes:
        name: What is compared.
        epochs: Of every training.
        frozen: As in `Job`.
        contenders: Who takes turns, the course first.
        rounds: How many turns each takes.
    """

    name: str
    epochs: int
    frozen: str
    contenders: tuple[str, ...]
    rounds: int


@dataclass(frozen=True)
class Turn:
    """One training in one round of one part."""

    part: Part
    round: int
    contender: str
    workers: int
    measured: Measured


def parts(rounds: int, long_rounds: int, *, quick: bool = False) -> list[Part]:
    """Return the comparisons.

    >>> [(part.name, part.epochs) for part in parts(3, 1)]
    [('head only', 5), ('head only', 50), ('cached boundary', 10), ('full fine-tuning', 3)]
    """
    few, many, cached, full = (1, 2, 2, 1) if quick else (5, 50, 10, 3)
    with_peers = (COURSE, *PEERS)
    return [
        Part("head only", few, BACKBONE, with_peers, rounds),
        Part("head only", many, BACKBONE, with_peers, long_rounds),
        Part("cached boundary", cached, BOUNDARY, (COURSE, UNCACHED), rounds),
        Part("full fine-tuning", full, "", (COURSE, BARE, *PEERS), rounds),
    ]


def take_turns(chosen: list[Part], base: Job, carry: Carry, say: Say, *, trial: bool) -> list[Turn]:
    """Measure every part, round by round: A B C D A B C D ...

    Args:
        chosen: The comparisons.
        base: What all jobs share.
        carry: Carries out a job.
        say: Receives a line before and after each measurement.
        trial: Whether to try out numbers of workers first; otherwise no peer gets any.
    """
    workers = _choose_workers(chosen, base, carry, say) if trial else {}
    plan = [
        (part, number, contender)
        for part in chosen
        for number in range(1, part.rounds + 1)
        for contender in part.contenders
        if is_installed(contender)
    ]
    started, turns = time.perf_counter(), []
    for done, (part, number, contender) in enumerate(plan, start=1):
        clock = time.strftime("%H:%M:%S", time.gmtime(time.perf_counter() - started))
        title = f"{part.name}, {part.epochs} epochs, round {number} of {part.rounds}"
        say(f"[{done}/{len(plan)}, {clock}] {title}: {contender} ...")
        count = workers.get((contender, part.frozen), 0)
        measured = carry(_job(base, part, contender, count))
        say(f"    {_described(measured)}")
        turns.append(Turn(part, number, contender, count, measured))
    return turns


def in_fresh_process(job: Job) -> Measured:
    """Carry out a job in a process of its own, on the CPU.

    Raises:
        RuntimeError: If it fails; the message holds the end of what it printed.
    """
    environment = {
        **os.environ,
        "TLCOURSE_DEVICE": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(job.threads),
    }
    command = [sys.executable, "-m", "benchmarks.jobs", json.dumps(asdict(job))]
    root = Path(__file__).resolve().parents[1]
    with _others_use() as others:
        run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{job.contender} failed:\n{run.stderr[-3000:]}")
    found = Measured(**json.loads(run.stdout.splitlines()[-1]))
    return replace(found, others=others[0])


def shared_images(data: ImageSet, folder: Path) -> str:
    """Write the images where every process finds them; return the file's path."""
    path = folder / "images.pickle"
    path.write_bytes(pickle.dumps(data))
    return str(path)


def _job(base: Job, part: Part, contender: str, workers: int) -> Job:
    return replace(
        base,
        contender=contender,
        epochs=part.epochs,
        frozen=part.frozen,
        workers=workers,
        cache=contender != UNCACHED,
    )


def _choose_workers(
    chosen: list[Part], base: Job, carry: Carry, say: Say
) -> dict[tuple[str, str], int]:
    """Try each peer with each number of workers, on each kind of training; keep the faster."""
    kinds = {(peer, part.frozen): part for part in chosen for peer in PEERS if _takes(part, peer)}
    better = {}
    for (peer, frozen), part in kinds.items():
        short = replace(part, epochs=TRIAL_EPOCHS)
        # Twice in turn, and the best counts: a disturbance only ever makes a run slower.
        seconds = {count: float("inf") for count in WORKERS}
        for count in WORKERS * 2:
            measured = carry(_job(base, short, peer, count))
            seconds[count] = min(seconds[count], measured.seconds)
        better[peer, frozen] = min(seconds, key=seconds.__getitem__)
        tried = ", ".join(f"{s:.1f} s with {count}" for count, s in seconds.items())
        say(f"workers of {peer}, {part.name}: {tried}; takes {better[peer, frozen]}")
    return better


def _takes(part: Part, peer: str) -> bool:
    return peer in part.contenders and is_installed(peer)


def _described(measured: Measured) -> str:
    text = f"{measured.seconds:.2f} s, validation AUC {measured.val_auc:.3f}"
    if measured.others == measured.others:
        text += f", others used {measured.others:.0%} of the cores"
    return text


@contextmanager
def _others_use() -> Iterator[list[float]]:
    """Find out which share of the machine's cores other programs use during the block."""
    shares: list[float] = []
    before, own, started = _busy(), _children(), time.perf_counter()
    yield shares
    room = (time.perf_counter() - started) * (psutil.cpu_count() or 1)
    shares.append(max(0.0, (_busy() - before) - (_children() - own)) / room)


def _busy() -> float:
    times = psutil.cpu_times()._asdict()
    idle = ("idle", "iowait", "guest", "guest_nice")
    return float(sum(seconds for name, seconds in times.items() if name not in idle))


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system
