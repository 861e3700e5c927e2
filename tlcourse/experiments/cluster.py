"""Make runs on the workers of a Dask scheduler, through joblib's Dask backend."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import joblib

try:
    import distributed
except ImportError as missing:
    raise ImportError(
        "a scheduler needs the package distributed: install it here and on every worker, "
        "for example with: pip install distributed"
    ) from missing
from joblib._dask import DaskDistributedBackend

from tlcourse.experiments.attempts import Job, Outcome, attempt, describe

CONNECT_SECONDS = 30
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
        """Hand a task to the scheduler; if it gives the task up, that is its outcome."""
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
    those that waited beside it alike: such an outcome has its job in `lost`.

    Raises:
        ConnectionError: If no scheduler answers there, or it gets no worker.
    """
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"expected a Dask scheduler at {address}, none answered within {CONNECT_SECONDS} s "
            f"({error}): start one with `dask scheduler`, it prints its address"
        ) from error
    with client:
        _await_worker(client, address)
        # Without a wait of its own: joblib would take ten seconds without workers, while those that
        # a run has ended are started anew, for an error.
        backend = GridBackend(client=client, wait_for_workers_timeout=0)
        with joblib.parallel_config(backend=backend):
            yield


def attempt_alone(job: Job) -> Outcome:
    """Make one run on a worker, one at a time in each process.

    Runs share torch's random generator and threads: two at once in one process would draw from
    each other's stream. What a run itself does with joblib stays in this process.
    """
    with _alone, joblib.parallel_config(backend="sequential"):
        return attempt(job)


def _await_worker(client: distributed.Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        raise ConnectionError(
            f"the scheduler at {address} has had no worker for {WORKER_SECONDS} s: start some "
            f"with `dask worker {address} --nthreads 1`"
        ) from error


def _given_up(callback: Callable[[Any], None], job: Job, future: Any) -> None:
    error = future.exception()
    if error is not None:
        cause = f" ({describe(error.__cause__)})" if error.__cause__ else ""
        text = f"the cluster gave this run up: {describe(error)}{cause}"
        trace = "".join(traceback.format_exception(error))
        lost = job if isinstance(error, distributed.KilledWorker) else None
        callback([Outcome(*job[:2], error=text, trace=trace, lost=lost)])
