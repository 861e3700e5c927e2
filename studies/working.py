"""Make a grid's missing runs, kept in `build/experiments`: a stopped publication goes on there."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import torch

from tlcourse.experiments import Grid, read_runs, run_grid
from tlcourse.experiments.workers import Function
from tlcourse.runtime import usable_cores

WORKING = Path("build") / "experiments"


def completed(function: Function, grid: Grid, name: str) -> pd.DataFrame:
    """Return a row per run, of which only the missing ones are made.

    Every run has one thread, in this process as in a worker. Beside their table lies the grid as a
    file, so that `tlcourse experiments` on another machine can make a part of the runs.

    Args:
        function: Makes a run, importable by its name.
        grid: All runs.
        name: Of the table; grids may share one.
    """
    torch.set_num_threads(1)  # published seconds are those of one thread
    WORKING.mkdir(parents=True, exist_ok=True)
    table = WORKING / f"{name}.jsonl"
    named = f"{function.__module__}:{function.__qualname__}"
    text = json.dumps({"function": named, "factors": grid.factors}, indent=1)
    (WORKING / f"{name}_{len(grid)}.json").write_text(text, encoding="utf-8")
    run_grid(function, grid, table, workers=usable_cores())
    return read_runs(table, grid)
