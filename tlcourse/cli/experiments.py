"""`tlcourse experiments`: run a grid that is kept as a file, or say how far it is."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from datetime import timedelta
from pathlib import Path

from tlcourse.experiments.grid import Grid, load_function
from tlcourse.experiments.runner import RunsFailed, run_grid
from tlcourse.experiments.table import read_failures, read_runs
from tlcourse.experiments.workers import WorkersLost

REFUSALS = (OSError, ImportError, ValueError)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("grid", type=Path, help="a .toml or .json file of factors and a function")
    parser.add_argument(
        "--out", type=Path, help="working table, .jsonl (default: build/experiments/GRID.jsonl)"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes on this machine")
    parser.add_argument("--scheduler", help="address of a Dask scheduler, such as tcp://host:8786")
    parser.add_argument("--status", action="store_true", help="run nothing, say how far it is")


def run(options: Namespace) -> int:
    """Run the grid of a file, or say how far it is; return 0, or 1 if runs are missing."""
    table = options.out or Path("build") / "experiments" / f"{options.grid.stem}.jsonl"
    grid = Grid.from_file(options.grid)
    if options.status:
        print(status(grid, table))
        return 0
    if grid.function is None:
        raise ValueError(f'{options.grid}: expected function = "package.module:name", got none')
    function = load_function(grid.function)
    read_runs(table)  # a wrong name, or a file that is no table, is found now
    try:
        run_grid(function, grid, table, workers=options.workers, scheduler=options.scheduler)
    except (RunsFailed, WorkersLost, *REFUSALS) as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
    print(status(grid, table))
    return 0 if len(read_runs(table, grid)) == len(grid) else 1


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
    rest = ""
    if left and len(done):
        mean = done["seconds"].mean()
        time_left = timedelta(seconds=round(mean * left))
        rest = f" (about {time_left} of one worker, at {mean:.1f} s a run)"
    lines += [f"left      {left}{rest}"]
    lines += [f"failed    {note['run']}: {note['error']}" for note in failures]
    return "\n".join(lines)
