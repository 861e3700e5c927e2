"""Compare methods fairly and keep every number; each public name can be imported from here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tlcourse.experiments.functions import load_function
from tlcourse.experiments.grid import Grid, run_key
from tlcourse.experiments.pools import WorkersLost
from tlcourse.experiments.running import RunsFailed, run_grid
from tlcourse.experiments.table import read_failures, read_runs

if TYPE_CHECKING:
    from tlcourse.experiments.curves import fold_means, learning_curve, paired_gain
    from tlcourse.experiments.shifts import rows_by_shift, shift_effects

__all__ = [
    "Grid",
    "RunsFailed",
    "WorkersLost",
    "fold_means",
    "learning_curve",
    "load_function",
    "paired_gain",
    "read_failures",
    "read_runs",
    "rows_by_shift",
    "run_grid",
    "run_key",
    "shift_effects",
]


_LATE = {
    "fold_means": "curves",
    "learning_curve": "curves",
    "paired_gain": "curves",
    "rows_by_shift": "shifts",
    "shift_effects": "shifts",
}


def __getattr__(name: str) -> Any:
    # Learning curves and intervals load torch and scikit-learn, which takes seconds. Workers and
    # `--status` import this package for its grids alone.
    if name in _LATE:
        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
