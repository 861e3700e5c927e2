"""Make runs in this process, in several on this machine, or on a cluster: joblib does it."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from tlcourse.experiments.attempts import Job, Outcome, attempt, describe, end_with_parent

Pool = Callable[[Iterator[Job]], Iterator[Outcome]]
"""Takes jobs one by one as it can, hands outcomes back as they come."""

AHEAD = 256
"""Runs that a scheduler gets before the first is done: enough for workers that join later, few
enough for the open files that their claims are."""


class WorkersLost(RuntimeError):
    """Nobody is left to make runs; the rows written before are safe."""


@contextmanager
def open_pool(workers: int, scheduler: str | None) -> Iterator[Pool]:
    """Provide what makes runs.

    A worker that dies in the middle of a run ends the runs beside it too. All of them are made
    again after the others, one by one with nothing else beside them: a run over which workers die
    then has failed, the others get their rows.

    Args:
        workers: Processes on this machine, at least 1; 1 makes the runs in this process, which a
            run can end.
        scheduler: Address of a Dask scheduler, whose workers are used in place of them.

    Raises:
        ValueError: If `workers` is below 1, or is not 1 beside a scheduler.
        WorkersLost: If processes of this machine cannot take up runs, or the scheduler is gone.
        ConnectionError, ImportError: As `tlcourse.experiments.cluster.open_cluster`.
    """
    if workers < 1 or (scheduler is not None and workers != 1):
        raise ValueError(
            f"expected at least 1 worker, or a scheduler, which has its own; got {workers} workers "
            f"and scheduler {scheduler}"
        )
    try:
        with _local(workers) if scheduler is None else _remote(scheduler) as pool:
            yield pool
    except (BrokenExecutor, CancelledError) as error:
        raise WorkersLost(_lost(scheduler, error)) from error


@contextmanager
def _local(workers: int) -> Iterator[Pool]:
    if workers == 1:
        yield lambda jobs: map(attempt, jobs)
        return
    # joblib keeps workers for minutes: with the modules that they loaded, were they changed since
    # or not, and with all their memory. A grid gets its own.
    get_reusable_executor().shutdown()
    try:
        with joblib.parallel_config(backend="loky", initializer=end_with_parent):
            yield lambda jobs: _and_again_alone(lambda some: _in_processes(workers, some), jobs)
    finally:
        get_reusable_executor().shutdown()


@contextmanager
def _remote(scheduler: str) -> Iterator[Pool]:
    from tlcourse.experiments import cluster

    with cluster.open_cluster(scheduler):
        parallel = joblib.Parallel(-1, batch_size=1, pre_dispatch=AHEAD, **_AS_READY)
        yield lambda jobs: _and_again_alone(
            lambda some: _outcomes(parallel, cluster.attempt_alone, some), jobs
        )


_AS_READY: dict[str, Any] = {"return_as": "generator_unordered"}


def _and_again_alone(pool: Pool, jobs: Iterator[Job]) -> Iterator[Outcome]:
    """Make runs; those that were near the death of a worker again at the end, one by one."""
    lost = []
    for outcome in pool(jobs):
        if outcome.lost is None:
            yield outcome
        else:
            lost.append(outcome.lost)
    for job in lost:
        yield from pool(iter([job]))


class _HandedOut:
    """Yields jobs until it is closed, and knows those that have no outcome yet."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self._jobs, self._open = jobs, True
        self._waiting: dict[str, Job] = {}
        # joblib takes jobs from threads of its own, one of which may come late.
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        with self._lock:
            if not self._open:
                raise StopIteration
            job = next(self._jobs)
            self._waiting[job[0]] = job
            return job

    def done(self, key: str) -> None:
        with self._lock:
            del self._waiting[key]

    def close(self) -> list[Job]:
        """Hand out nothing more; return the jobs without an outcome."""
        with self._lock:
            self._open = False
            return list(self._waiting.values())


def _in_processes(workers: int, jobs: Iterator[Job]) -> Iterator[Outcome]:
    """Make runs in processes of this machine; after a death new ones go on with those not begun."""
    for first in jobs:
        handed = _HandedOut(chain([first], jobs))
        # Runs are long: handed out one by one, and none before somebody is free for it.
        parallel = joblib.Parallel(workers, batch_size=1, pre_dispatch="n_jobs", **_AS_READY)
        try:
            for outcome in _outcomes(parallel, attempt, handed):
                handed.done(outcome.key)
                yield outcome
        except TerminatedWorkerError as error:
            # The others are ended with the one that died, and what they had finished is lost too.
            text = f"a worker process died over this run (out of memory?): {describe(error)}"
            trace = "".join(traceback.format_exception(error))
            for job in handed.close():
                yield Outcome(*job[:2], error=text, trace=trace, lost=job)


def _outcomes(
    parallel: Any, function: Callable[[Job], Outcome], jobs: Iterator[Job]
) -> Iterator[Outcome]:
    with closing(parallel(joblib.delayed(function)(job) for job in jobs)) as outcomes:
        yield from outcomes


def _lost(scheduler: str | None, error: BaseException) -> str:
    if scheduler is not None:
        return (
            f"the scheduler at {scheduler} is gone ({error}); rows that were written are safe: "
            "start it and the same command again"
        )
    return (
        f"a worker process could not take up a run: {error} ({error.__cause__}); functions and "
        "what they return must be importable and picklable there"
    )
