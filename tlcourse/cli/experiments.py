"""What `tlcourse experiments` does: run a grid that is kept as a file, or say how far it is."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from tlcourse.experiments.grid import Grid, load_function
from tlcourse.experiments.runner import RunsFailed, run_grid
from tlcourse.experiments.table import read_failures, read_runs
from tlcourse.experiments.workers import WorkersLost


def default_table(grid_path: Path) -> Path:
    """Return where the rows of a grid file go unless another place is named.

    >>> default_table(Path("grids/freezing.toml")).as_posix()
    'build/experiments/freezing.jsonl'
    """
    return Path("build") / "experiments" / f"{grid_path.stem}.jsonl"


def run_file(grid_path: Path, table_path: Path, *, workers: int, scheduler: str | None) -> int:
    """Run the grid of a file; return 0 (all done), 1 (runs are missing) or 2 (cannot start).

    Args:
        grid_path: A file for `Grid.from_file` that names its function.
        table_path: The working table, a `.jsonl` file.
        workers: Processes on this machine.
        scheduler: Address of a Dask scheduler, or None.
    """
    try:
        grid = Grid.from_file(grid_path)
        if grid.function is None:
            raise ValueError(f'{grid_path}: expected function = "package.module:name", got none')
        function = load_function(grid.function)
        read_runs(table_path)  # a wrong name, or a file that is no table, is found now
    except (OSError, ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        run_grid(function, grid, table_path, workers=workers, scheduler=scheduler)
    except (RunsFailed, WorkersLost, OSError, ImportError, ValueError) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
    print(status(grid, table_path))
    return 0 if len(read_runs(table_path, grid)) == len(grid) else 1


def show_status(grid_path: Path, table_path: Path) -> int:
    """Print how far the grid of a file is; return 0, or 2 if the file cannot be read."""
    try:
        print(status(Grid.from_file(grid_path), table_path))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def status(grid: Grid, table_path: Path) -> str:
    """Say in a few lines what of a grid is done, failed and left, and what the rest will take.

    >>> print(status(Grid({"seed": range(3)}), Path("nowhere.jsonl")))
    table     nowhere.jsonl
    done      0 of 3 runs
    left      3
    """
    done = read_runs(table_path, grid)
    runs = grid.keyed()
    failures = [note for key, note in read_failures(table_path).items() if key in runs]
    left = len(grid) - len(done)
    lines = [f"table     {table_path}", f"done      {len(done)} of {len(grid)} runs"]
    lines += [f"left      {left}{_time_left(done['seconds'].mean(), left) if len(done) else ''}"]
    lines += [f"failed    {note['run']}: {note['error']}" for note in failures]
    return "\n".join(lines)


def _time_left(mean: float, left: int) -> str:
    if not left:
        return ""
    rest = timedelta(seconds=round(mean * left))
    return f" (about {rest} of one worker, at {mean:.1f} s a run)"
