"""Make every run of a grid once, on one machine or many, and keep every number."""

from tlcourse.experiments.grid import Grid, load_function, run_key
from tlcourse.experiments.runner import RunsFailed, run_grid
from tlcourse.experiments.table import read_failures, read_runs
from tlcourse.experiments.workers import WorkersLost

__all__ = [
    "Grid",
    "RunsFailed",
    "WorkersLost",
    "load_function",
    "read_failures",
    "read_runs",
    "run_grid",
    "run_key",
]
