"""Keep the rows of a grid in a file that several processes may fill at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from tlcourse.experiments.grid import Grid
from tlcourse.experiments.journal import Journal, Record, RunLocks

TABLE_LOCK_SECONDS = 600.0
"""How long another process may hold the table; it needs milliseconds."""


class RunTable:
    """A working table of runs: rows by key, failures beside it, locks while runs are made.

    Beside `table.jsonl` stand `table.failures.jsonl`, and while it is in use a lock and a folder
    of locks, both hidden. Use it in a `with` block, which gives every lock back at its end.

    Args:
        path: A file that ends in `.jsonl`; its folder is made.

    Raises:
        ValueError: If the ending is another.

    >>> import tempfile
    >>> with RunTable(Path(tempfile.mkdtemp()) / "table.jsonl") as table:
    ...     table.lock("a1"), table.add({"key": "a1", "auc": 0.8}), table.lock("a1")
    (True, True, False)
    """

    def __init__(self, path: Path) -> None:
        self.path, self.failures_path = _checked(path), _failures_path(path)
        self._rows, self._failures = Journal(self.path), Journal(self.failures_path)
        self._locks = RunLocks(path.with_name(f".{path.name}.locks"))
        self._lock_path = path.with_name(f".{path.name}.lock")
        self._threads = threading.RLock()

    def __enter__(self) -> RunTable:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._rows.repair()
            self._failures.repair()
        return self

    def __exit__(self, *_error: object) -> None:
        with self._locked():
            self._locks.drop_all()

    def rows(self) -> dict[str, Record]:
        """Return the rows by key, those that other processes have added included.

        Raises:
            ValueError: If a line is no row, or a run has two.
        """
        with self._threads:
            return _by_key(self._rows)

    def lock(self, key: str) -> bool:
        """Say whether this process may make a run: it has no row, and nobody is at it."""
        with self._locked(), _told_what_to_do(self.path):
            return key not in self.rows() and self._locks.take(key)

    def add(self, row: Record) -> bool:
        """Add the row of a run and drop its lock; False if the run has a row already.

        Raises:
            OSError: If the row cannot be written; none of it is left in the file.
        """
        with self._locked():
            new = row["key"] not in self.rows()
            if new:
                with _told_what_to_do(self.path):
                    self._rows.append(row)
            self._locks.drop(row["key"])
        return new

    def fail(self, failure: Record) -> None:
        """Note why a run has no row and drop its lock, so that it can be tried again.

        Raises:
            OSError: If the note cannot be written.
        """
        with self._locked():
            with _told_what_to_do(self.failures_path):
                self._failures.append(failure)
            self._locks.drop(failure["key"])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            # Threads wait for each other without polling; processes poll the file.
            with self._threads, FileLock(self._lock_path, timeout=TABLE_LOCK_SECONDS):
                yield
        except Timeout as error:
            raise OSError(
                f"another process has held {self._lock_path} for {TABLE_LOCK_SECONDS:.0f} s: "
                "see whether it stands still, end it and start again"
            ) from error


def read_runs(path: str | Path, grid: Grid | None = None) -> pd.DataFrame:
    """Read a working table as it stands, even while it is being filled.

    Args:
        path: The `.jsonl` file of `run_grid`; without one there are no rows.
        grid: Only the rows of this grid, in its order; None for all rows in the order written.

    Returns:
        A row per run: `key`, the factors, the scores, `seconds`. A factor that is None reads as
        pandas has it: group by it with `dropna=False`.

    Raises:
        ValueError: If a line is no row, or a run has two.
    """
    rows = _by_key(Journal(_checked(Path(path))))
    if grid is not None:
        rows = {key: rows[key] for key in grid.keyed() if key in rows}
    return pd.DataFrame(list(rows.values()))


def read_failures(path: str | Path) -> dict[str, Record]:
    """Return why runs failed that have no row in the table at `path`: the last note by key.

    Each holds `key`, `run`, `error`, `traceback` and `at`.
    """
    notes = {note["key"]: note for note in Journal(_failures_path(Path(path))).refresh()}
    done = _by_key(Journal(_checked(Path(path))))
    return {key: note for key, note in notes.items() if key not in done}


def _by_key(journal: Journal) -> dict[str, Record]:
    rows: dict[str, Record] = {}
    for number, row in enumerate(journal.refresh(), 1):
        key: Any = row.get("key")
        if not isinstance(key, str) or key in rows:
            raise ValueError(
                f"{journal.path}, row {number}: expected one row for each run, with its key, "
                f"got key {key!r} {'again' if key in rows else ''}: mend or remove that row"
            )
        rows[key] = row
    return rows


@contextmanager
def _told_what_to_do(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} could not be added to ({error.strerror or error}); the lines before are "
            "whole: make room on the disk and start again, which repeats only what is not there",
        ) from error


def _checked(path: Path) -> Path:
    if path.suffix != ".jsonl":
        raise ValueError(f"expected a working table that ends in .jsonl, got {path}")
    return path


def _failures_path(path: Path) -> Path:
    return path.with_suffix(".failures.jsonl")
