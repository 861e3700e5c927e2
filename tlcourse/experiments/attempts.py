"""Make one run of a grid and pack what came of it, in whatever process that happens."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from tlcourse.experiments.grid import Run, to_builtin

Function = Callable[..., Mapping[str, Any]]
"""Takes the factors of a run by name, returns its scores by name."""

Job = tuple[str, Run, Function]
"""A run with its key and the function to call."""

WATCH_SECONDS = 1.0
"""How often a worker process looks whether its caller lives."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run: its row of the table, or an error with its traceback.

    Attributes:
        key: Of the run.
        run: Its factors.
        row: Its row, if it has one.
        error: What went wrong, in a line.
        trace: The traceback of that.
        lost: The job, if a worker process died over this run or over one beside it: which of the
            two was the cause, only a run with nothing beside it can tell.
    """

    key: str
    run: Run
    row: dict[str, Any] | None = None
    error: str = ""
    trace: str = ""
    lost: Job | None = None


def attempt(job: Job) -> Outcome:
    """Call the function of a job; an error of the function is an outcome too.

    >>> attempt(("a1", {"seed": 3}, lambda seed: {"score": seed / 2})).row["score"]
    1.5
    >>> attempt(("a1", {"seed": 3}, lambda seed: seed / 0)).error
    'ZeroDivisionError: division by zero'
    """
    key, run, function = job
    started = time.perf_counter()
    try:
        scores = function(**run)
        seconds = round(time.perf_counter() - started, 3)
        return Outcome(key, run, _row(key, run, scores, seconds))
    except Exception as error:
        return Outcome(key, run, error=describe(error), trace=traceback.format_exc())


def end_with_parent() -> None:
    """Let a worker process end within a second of the process that started it.

    joblib's workers outlive a caller that is killed, by minutes and with all their memory.
    """
    parent = os.getppid()

    def watch() -> None:
        # POSIX gives orphans another parent, Windows does not.
        while os.getppid() == parent and psutil.pid_exists(parent):
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def describe(error: BaseException) -> str:
    """Put an error in one line: its kind and its message."""
    return f"{type(error).__name__}: {error}"


def _row(key: str, run: Run, scores: Any, seconds: float) -> dict[str, Any]:
    if not isinstance(scores, Mapping) or not all(isinstance(name, str) for name in scores):
        raise TypeError(f"expected a dict of scores by name, the function returned {scores!r}")
    taken = sorted({"key", "seconds", *run} & set(scores))
    if taken:
        raise ValueError(f"expected scores under names of their own, got {taken}: rename them")
    row = {"key": key, **run, **scores, "seconds": seconds}
    # What is kept is what the file can give back, from whichever process. NaN and Infinity stay:
    # Python reads them, and a loss that ran away is a result.
    plain: dict[str, Any] = json.loads(json.dumps(row, default=to_builtin))
    return plain
