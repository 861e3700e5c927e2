"""Make runs in processes of this machine or on a Dask cluster, and outlive those that die."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import joblib
import psutil
from joblib._dask import DaskDistributedBackend
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from tlcourse.experiments.grid import Run, to_builtin

Function = Callable[..., Mapping[str, Any]]
"""Takes the factors of a run by name, returns its scores by name."""

Job = tuple[str, Run, Function]
"""A run with its key and the function to call."""

WATCH_SECONDS = 1.0
"""How often a worker process looks whether its caller lives."""


@dataclass(frozen=True)
class RunResult:
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


def run_job(job: Job) -> RunResult:
    """Call the function of a job; an error of the function is a result too.

    >>> run_job(("a1", {"seed": 3}, lambda seed: {"score": seed / 2})).row["score"]
    1.5
    >>> run_job(("a1", {"seed": 3}, lambda seed: seed / 0)).error
    'ZeroDivisionError: division by zero'
    """
    key, run, function = job
    started = time.perf_counter()
    try:
        scores = function(**run)
        seconds = round(time.perf_counter() - started, 3)
        return RunResult(key, run, _row(key, run, scores, seconds))
    except Exception as error:
        return RunResult(key, run, error=describe(error), trace=traceback.format_exc())


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


SCHEDULER_SECONDS = 30
"""How long a scheduler may take to answer."""

WORKER_SECONDS = 60
"""How long a scheduler without workers may take to get the first."""

_alone = threading.Lock()


class GridBackend(DaskDistributedBackend):  # type: ignore[misc]
    """joblib's Dask backend, with answers for two cases in which it gives none.

    joblib 1.6 waits forever for a task that Dask gives up (four workers died over it, or it
    cannot be unpickled where it should run), and does everything in the calling process when the
    cluster has a single core at the start.
    """

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the cores of the cluster, at least 2, so that joblib does use it."""
        return max(2, int(super().effective_n_jobs(n_jobs)))

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
        """Hand a task to the scheduler; if it gives the task up, that is its result."""
        future = super().submit(func, callback)
        (_, (job,), _) = func.items[0]
        future.add_done_callback(partial(_given_up, callback, job))
        return future


@contextmanager
def open_cluster(address: str) -> Iterator[None]:
    """Let joblib use the workers of the scheduler at `address`.

    Scheduler and workers need this package and the module of the function, in the same versions;
    give each worker one thread (`dask worker ADDRESS --nthreads 1`). A run that a killed worker
    had is made by another. What four workers died over Dask gives up, the run that ends them and
    those that waited beside it alike: such an result has its job in `lost`.

    Raises:
        ConnectionError: If no scheduler answers there, or it gets no worker.
        ImportError: If the package distributed is not installed.
    """
    try:
        import distributed  # an extra of the package: only a scheduler needs it
    except ImportError as missing:
        raise ImportError(
            "a scheduler needs the package distributed: install it here and on every worker, "
            "for example with: pip install distributed"
        ) from missing
    try:
        client = distributed.Client(address, timeout=SCHEDULER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"expected a Dask scheduler at {address}, none answered within {SCHEDULER_SECONDS} s "
            f"({error}): start one with `dask scheduler`, it prints its address"
        ) from error
    with client:
        _await_worker(client, address)
        # Without a wait of its own: joblib would take ten seconds without workers, while those that
        # a run has ended are started anew, for an error.
        backend = GridBackend(client=client, wait_for_workers_timeout=0)
        with joblib.parallel_config(backend=backend):
            yield


def run_job_alone(job: Job) -> RunResult:
    """Make one run on a worker, one at a time in each process.

    Runs share torch's random generator and threads: two at once in one process would draw from
    each other's stream. What a run itself does with joblib stays in this process.
    """
    with _alone, joblib.parallel_config(backend="sequential"):
        return run_job(job)


def _await_worker(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        raise ConnectionError(
            f"the scheduler at {address} has had no worker for {WORKER_SECONDS} s: start some "
            f"with `dask worker {address} --nthreads 1`"
        ) from error


def _given_up(callback: Callable[[Any], None], job: Job, future: Any) -> None:
    from distributed import KilledWorker

    error = future.exception()
    if error is not None:
        cause = f" ({describe(error.__cause__)})" if error.__cause__ else ""
        text = f"the cluster gave this run up: {describe(error)}{cause}"
        trace = "".join(traceback.format_exception(error))
        lost = job if isinstance(error, KilledWorker) else None
        callback([RunResult(*job[:2], error=text, trace=trace, lost=lost)])


Pool = Callable[[Iterator[Job]], Iterator[RunResult]]
"""Takes jobs one by one as it can, hands results back as they come."""

AHEAD = 256
"""Runs that a scheduler gets before the first is done: enough for workers that join later, few
enough for the open files that their locks are."""


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
        ConnectionError, ImportError: As `tlcourse.experiments.workers.open_cluster`.
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
        yield lambda jobs: map(run_job, jobs)
        return
    # joblib keeps workers for minutes: with the modules that they loaded, were they changed since
    # or not, and with all their memory. A grid gets its own.
    get_reusable_executor().shutdown()
    try:
        with joblib.parallel_config(backend="loky", initializer=end_with_parent):
            yield partial(_and_again_alone, partial(_in_processes, workers))
    finally:
        get_reusable_executor().shutdown()


@contextmanager
def _remote(scheduler: str) -> Iterator[Pool]:
    with open_cluster(scheduler):
        yield partial(_and_again_alone, partial(_results, run_job_alone, -1, AHEAD))


def _and_again_alone(pool: Pool, jobs: Iterator[Job]) -> Iterator[RunResult]:
    """Make runs; those that were near the death of a worker again at the end, one by one."""
    lost = []
    for result in pool(jobs):
        if result.lost is None:
            yield result
        else:
            lost.append(result.lost)
    for job in lost:
        yield from pool(iter([job]))


class _HandedOut:
    """Yields jobs until it is closed, and knows those that have no result yet."""

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
        """Hand out nothing more; return the jobs without an result."""
        with self._lock:
            self._open = False
            return list(self._waiting.values())


def _in_processes(workers: int, jobs: Iterator[Job]) -> Iterator[RunResult]:
    """Make runs in processes of this machine; after a death new ones go on with those not begun."""
    for first in jobs:
        handed = _HandedOut(chain([first], jobs))
        try:
            for result in _results(run_job, workers, "n_jobs", handed):
                handed.done(result.key)
                yield result
        except TerminatedWorkerError as error:
            # The others are ended with the one that died, and what they had finished is lost too.
            text = f"a worker process died over this run (out of memory?): {describe(error)}"
            trace = "".join(traceback.format_exception(error))
            for job in handed.close():
                yield RunResult(*job[:2], error=text, trace=trace, lost=job)


def _results(
    function: Callable[[Job], RunResult], workers: int, ahead: int | str, jobs: Iterator[Job]
) -> Iterator[RunResult]:
    """Hand jobs out singly, as runs are long, that many ahead; take results as they come."""
    parallel = joblib.Parallel(
        workers, batch_size=1, pre_dispatch=ahead, return_as="generator_unordered"
    )
    with closing(parallel(joblib.delayed(function)(job) for job in jobs)) as results:
        yield from results


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
