"""Make runs in this process, in several on this machine, or on a cluster: joblib does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import closing, contextmanager
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from tlcourse.experiments.attempts import Job, Outcome, attempt, end_with_parent

Pool = Callable[[Iterator[Job]], Iterator[Outcome]]
"""Takes jobs one by one as it can, hands outcomes back as they come."""

AHEAD = 256
"""Runs that a scheduler gets before the first is done: enough for workers that join later, few
enough for the open files that their claims are."""


class WorkersLost(RuntimeError):
    """Workers ended in the middle of runs; the rows written before are safe."""


@contextmanager
def open_pool(workers: int, scheduler: str | None) -> Iterator[Pool]:
    """Provide what makes runs.

    Args:
        workers: Processes on this machine, at least 1; 1 makes the runs in this process.
        scheduler: Address of a Dask scheduler, whose workers are used in place of them.

    Raises:
        ValueError: If `workers` is below 1, or is not 1 beside a scheduler.
        WorkersLost: If a process of this machine, or the scheduler, is gone.
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
            # Runs are long: handed out one by one, and none before somebody is free for it.
            parallel = joblib.Parallel(workers, batch_size=1, pre_dispatch="n_jobs", **_AS_READY)
            yield lambda jobs: _outcomes(parallel, attempt, jobs)
    finally:
        get_reusable_executor().shutdown()


@contextmanager
def _remote(scheduler: str) -> Iterator[Pool]:
    from tlcourse.experiments import cluster

    with cluster.open_cluster(scheduler):
        parallel = joblib.Parallel(-1, batch_size=1, pre_dispatch=AHEAD, **_AS_READY)
        yield lambda jobs: _outcomes(parallel, cluster.attempt_alone, jobs)


_AS_READY: dict[str, Any] = {"return_as": "generator_unordered"}


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
    if isinstance(error, TerminatedWorkerError):
        return (
            "a worker process was killed in the middle of a run (out of memory?); rows that were "
            f"written are safe: start again, with fewer workers if memory is short ({error})"
        )
    return (
        f"a worker process could not take up a run: {error} ({error.__cause__}); functions and "
        "what they return must be importable and picklable there"
    )
