"""Turn tables of runs into points with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tlcourse.metrics.intervals import fold_interval, mean_interval


def require_columns(table: pd.DataFrame, needed: Sequence[str], what: str) -> None:
    """Say which of the `needed` columns a table lacks, and that it must hold a row."""
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise ValueError(f"{what} needs columns {list(needed)}, found {list(table.columns)}")
    if table.empty:
        raise ValueError(f"{what} must hold at least one row, got none")


def summarise(
    frame: pd.DataFrame, x: str, y: str, group: str, *, folds: int | None = None
) -> pd.DataFrame:
    """Return columns x, name, mean, low, high: a row per point, NaN where no interval exists.

    Args:
        frame: A row per run, or one per point with columns `low` and `high`.
        x: Column of places.
        y: Column of values.
        group: Column of names.
        folds: Folds of a dealing if the rows of a point are folds, for `metrics.fold_interval`;
            None if they are independent runs, for `metrics.mean_interval`.

    Raises:
        ValueError: If a column lacks or holds a missing value, or rows are no whole dealings.

    >>> runs = pd.DataFrame({"n": [10, 10, 20], "auc": [0.7, 0.9, 0.8], "m": "a"})
    >>> summarise(runs, "n", "auc", "m")["mean"].round(2).tolist()
    [0.8, 0.8]
    """
    require_columns(frame, [x, y, group], "frame")
    if frame[[x, y, group]].isna().any(axis=None):
        raise ValueError(f"columns {x!r}, {y!r}, {group!r} must hold no missing value")
    rows = [
        (size, str(name), *_mean_low_high(part, y, folds))
        for (size, name), part in frame.groupby([x, group], sort=False)
    ]
    return pd.DataFrame(rows, columns=["x", "name", "mean", "low", "high"])


def _mean_low_high(part: pd.DataFrame, y: str, folds: int | None) -> tuple[float, float, float]:
    if len(part) > 1:
        values = part[y].to_numpy(dtype=float)
        return tuple(mean_interval(values) if folds is None else fold_interval(values, folds=folds))  # type: ignore[return-value]
    row = part.iloc[0]
    return float(row[y]), float(row.get("low", np.nan)), float(row.get("high", np.nan))
