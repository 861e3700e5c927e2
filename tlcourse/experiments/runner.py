"""Work a grid off: make the runs that its table lacks, from wherever the last call stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from tlcourse.experiments.grid import Grid, Run
from tlcourse.experiments.table import RunTable, read_runs
from tlcourse.experiments.workers import Function, Job, Pool, RunResult, open_pool

POLL_SECONDS = 0.5
"""How often to look whether another process has finished, or given up, the runs it is at."""

SHOWN_FAILURES = 5
"""Failed runs that an error spells out."""


class RunsFailed(RuntimeError):
    """Some runs raised errors; all others have their rows. `failed` holds the results."""

    def __init__(self, failed: list[RunResult], total: int, table: RunTable) -> None:
        self.failed = failed
        named = [f"\n  {result.run}: {result.error}" for result in failed[:SHOWN_FAILURES]]
        more = (
            f"\n  and {len(failed) - SHOWN_FAILURES} more" if len(failed) > SHOWN_FAILURES else ""
        )
        super().__init__(
            f"{len(failed)} of {total} runs failed:{''.join(named)}{more}\n"
            f"tracebacks are in {table.failures_path}, the rows of the others in {table.path}; "
            "the same call tries only the failed ones again"
        )


def run_grid(
    function: Function,
    grid: Grid,
    table_path: str | Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Call a function for every run of a grid that has no row in a table yet; add the rows.

    It can be stopped or killed at any moment and called again: rows are written one by one, by
    the calling process, as soon as they come. Several calls, in several processes, may fill one
    table: each run is made by one of them, and all return when all runs are done.

    Args:
        function: Takes the factors of a run by name; returns its scores by name (numbers, text,
            lists), other names than the factors'. With several workers, other processes must be
            able to import it.
        grid: The runs.
        table_path: The working table, a file that ends in `.jsonl`. It may hold other grids too;
            columns may differ between rows.
        workers: Processes on this machine; 1 calls the function in this one.
        scheduler: Address of a Dask scheduler (`"tcp://host:8786"`), to use its workers in their
            place; see `tlcourse.experiments.workers.open_cluster`.
        progress: Whether to show a bar with the runs done and left, and the time left.

    Returns:
        A row per run, in the order of the grid: `key`, the factors, the scores, `seconds` of wall
        time; see `read_runs`.

    Raises:
        RunsFailed: At the end, if the function raised errors, or workers died over a run even with
            nothing beside it; it names the runs. The next call tries them again.
        WorkersLost: If the scheduler is gone, or processes of this machine cannot take up runs.
        OSError: If a row cannot be written (a full disk). No half row is left.
        ValueError: If `workers` is out of range, or the table holds something else.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table.jsonl"
    >>> grid = Grid({"images": [50, 100], "seed": range(3)})
    >>> table = run_grid(lambda images, seed: {"auc": images / 200}, grid, path, progress=False)
    >>> table.groupby("images")["auc"].mean().to_dict()
    {50: 0.25, 100: 0.5}
    """
    runs = grid.keyed()
    with open_pool(workers, scheduler) as pool, RunTable(Path(table_path)) as table:
        queue = _Queue(function, runs, table)
        with _bar(queue, progress) as bar:
            _work_off(queue, pool, bar)
    if queue.failed:
        raise RunsFailed(queue.failed, len(runs), table)
    return read_runs(table_path, grid)


@dataclass
class _Queue:
    """Deals each run once, unless it is done or another process is at it."""

    function: Function
    runs: dict[str, Run]
    table: RunTable
    tried: set[str] = field(default_factory=set)
    failed: list[RunResult] = field(default_factory=list)
    trouble: Exception | None = None

    def left(self) -> list[str]:
        done = self.table.rows()
        return [key for key in self.runs if key not in done and key not in self.tried]

    def jobs(self) -> Iterator[Job]:
        """Yield runs that are now locked; joblib calls this from threads of its own.

        An error raised there would be lost, and the caller would wait forever: it is kept.
        """
        try:
            for key in self.left():
                if self.table.lock(key):
                    self.tried.add(key)
                    yield key, self.runs[key], self.function
        except Exception as error:
            self.trouble = error

    def take(self, result: RunResult) -> None:
        if result.row is not None:
            self.table.add(result.row)
            return
        self.table.fail(
            {
                "key": result.key,
                "run": result.run,
                "error": result.error,
                "traceback": result.trace,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
        self.failed.append(result)


def _bar(queue: _Queue, progress: bool) -> tqdm:
    # The time left comes from the mean of all runs, since those of a grid differ much in length.
    done = len(queue.runs) - len(queue.left())
    options = {"unit": "run", "smoothing": 0, "disable": not progress}
    return tqdm(total=len(queue.runs), initial=done, **options)


def _work_off(queue: _Queue, pool: Pool, bar: tqdm) -> None:
    while queue.left():
        jobs = queue.jobs()
        first = next(jobs, None)
        if first is not None:
            for result in pool(chain([first], jobs)):
                queue.take(result)
                _show(queue, bar)
        elif queue.trouble is None:
            time.sleep(POLL_SECONDS)
            _show(queue, bar)
        if queue.trouble is not None:
            raise queue.trouble


def _show(queue: _Queue, bar: tqdm) -> None:
    done = queue.table.rows()
    count = sum(key in done for key in queue.runs)
    bar.set_postfix(left=len(queue.runs) - count, failed=len(queue.failed), refresh=False)
    bar.update(count - bar.n)
