"""Draw scores over images, stages or epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tlcourse.metrics.intervals import fold_interval, mean_interval
from tlcourse.plots.style import (
    CHANCE_COLOUR,
    GUESS,
    MARKERS,
    canvas,
    check_names,
    colours_for,
    course_style,
    ink,
    label_ends,
    sheet,
    tick_names,
    tick_sizes,
)

AXIS_NAMES = {
    "images": "training images (log scale)",
    "auc": "test AUC",
    "accuracy": "test accuracy",
    "stage": "stage of the network, from input to output",
    "score": "score",
    "cka": "similarity (linear CKA)",
}
"""What stands on an axis for a column of that name."""


@course_style()
def learning_curves(
    frame: pd.DataFrame | None,
    x: str = "images",
    y: str = "auc",
    group: str = "method",
    *,
    title: str,
    interval: bool = True,
    folds: int | None = None,
    reference: pd.DataFrame | None = None,
    reference_name: str = "published",
    guess: tuple[float, float | EllipsisType] | None = None,
    chance: float | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    ylim: tuple[float, float] | None = None,
) -> Axes:
    """Draw the mean score of each method against the number of training images, log scale.

    Args:
        frame: Tidy: a row per run (fold, seed); or one row per point with columns `low` and
            `high` for a known interval. None draws the reference alone.
        x: Column of sizes, all above 0.
        y: Column of scores.
        group: Column of names, one line each.
        title: What the curves show.
        interval: Draw 95 % intervals over the runs of a point; a point of one run has none.
        folds: Folds of a dealing, where the runs are folds: intervals are then those of
            `metrics.fold_interval`. None where runs are independent.
        reference: A published result with the same columns, drawn dashed with open markers.
        reference_name: What the reference is, for the legend.
        guess: `(size, score)` that the learner expected, marked with a star; a score of `...`
            draws none.
        chance: The score of guessing, drawn dashed.
        xlabel: Text of the x axis where the column's name does not say enough.
        ylabel: Text of the y axis, likewise.
        ylim: Ends of the y axis, so that figures can be compared.

    Raises:
        ValueError: If a column is missing, a value is, a size is not above 0, or neither frame
            nor reference is given.

    >>> runs = pd.DataFrame({"images": [50, 50, 100, 100], "auc": [0.7, 0.8, 0.8, 0.9],
    ...                      "method": "pretrained"})
    >>> learning_curves(runs, title="More images, better").get_xscale()
    'log'
    """
    if frame is None and reference is None:
        raise ValueError("expected a frame, a reference or both, got neither")
    own = {} if frame is None else _lines(summarise(frame, x, y, group, folds=folds))
    other = {} if reference is None else _lines(summarise(reference, x, y, group))
    sizes = sorted({size for line in [*own.values(), *other.values()] for size in line["x"]})
    if sizes[0] <= 0:
        raise ValueError(f"sizes in column {x!r} must be above 0 for a log axis, got {sizes[0]}")
    ax = canvas(title, height=4.3)
    ax.set(
        xscale="log", xlabel=xlabel or AXIS_NAMES.get(x, x), ylabel=ylabel or AXIS_NAMES.get(y, y)
    )
    shades = _draw(ax, own, other, reference_name, interval=interval)
    tick_sizes(ax, sizes)
    if ylim is not None:
        ax.set_ylim(ylim)
    _finish(ax, own or other, shades, given(guess), chance)
    return ax


@course_style()
def stage_curves(
    frame: pd.DataFrame,
    x: str = "stage",
    y: str = "score",
    group: str = "task",
    *,
    title: str,
    folds: int | None = None,
    reference: pd.DataFrame | None = None,
    reference_name: str = "published",
    guess: tuple[str, float | EllipsisType] | None = None,
    chance: float | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Axes:
    """Draw one line per task (or pair of networks) over the stages, in the order they come.

    Args:
        frame: Tidy: a row per stage, task and run; or one row per point with `low` and `high`.
        x: Column of stages; their first appearance sets the order.
        y: Column of scores or similarities.
        group: Column of names, one line each.
        title: What the curves show.
        folds: Folds of a dealing, where the runs are folds: intervals are then those of
            `metrics.fold_interval`. None where runs are independent.
        reference: A published result with the same columns, drawn dashed with open markers.
        reference_name: What the reference is, for the legend.
        guess: `(stage, score)` that the learner expected, marked with a star; a score of `...`
            draws none.
        chance: The score of guessing, drawn dashed.
        xlabel: Text of the x axis where the column's name does not say enough.
        ylabel: Text of the y axis, likewise.

    Raises:
        ValueError: If a column, a value or a stage named by guess or reference is missing.

    >>> probes = pd.DataFrame({"stage": ["stem", "head"], "score": [0.6, 0.9], "task": "cancer"})
    >>> ax = stage_curves(probes, title="Late stages tell cancer apart")
    >>> [tick.get_text() for tick in ax.get_xticklabels()]
    ['stem', 'head']
    """
    points, other, star = summarise(frame, x, y, group, folds=folds), {}, given(guess)
    order = {stage: float(place) for place, stage in enumerate(dict.fromkeys(points["x"]))}
    if reference is not None:
        published = summarise(reference, x, y, group)
        check_names(published["x"], order, "reference")
        other = _lines(published.assign(x=published["x"].map(order)))
    if star is not None:
        check_names([star[0]], order, "guess")
        star = order[star[0]], star[1]
    ax = canvas(title, height=4.3)
    ax.set(xlabel=xlabel or AXIS_NAMES.get(x, x), ylabel=ylabel or AXIS_NAMES.get(y, y))
    own = _lines(points.assign(x=points["x"].map(order)))
    shades = _draw(ax, own, other, reference_name)
    tick_names(ax, list(order.values()), [str(name) for name in order])
    _finish(ax, own, shades, star, chance)
    return ax


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


def require_columns(table: pd.DataFrame, needed: Sequence[str], what: str) -> None:
    """Say which of the `needed` columns a table lacks, and that it must hold a row."""
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise ValueError(f"{what} needs columns {list(needed)}, found {list(table.columns)}")
    if table.empty:
        raise ValueError(f"{what} must hold at least one row, got none")


def _mean_low_high(part: pd.DataFrame, y: str, folds: int | None) -> tuple[float, float, float]:
    if len(part) > 1:
        values = part[y].to_numpy(dtype=float)
        return tuple(mean_interval(values) if folds is None else fold_interval(values, folds=folds))  # type: ignore[return-value]
    row = part.iloc[0]
    return float(row[y]), float(row.get("low", np.nan)), float(row.get("high", np.nan))


def _lines(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the points of each name, from left to right."""
    parts = points.groupby("name", sort=False)
    return {str(name): line.sort_values("x") for name, line in parts}


def given(guess: tuple[Any, Any | EllipsisType] | None) -> tuple[Any, Any] | None:
    """Return the guess, or None if the learner left it blank (`...`).

    >>> given((50, 0.8)), given((50, ...)), given(None)
    ((50, 0.8), None, None)
    """
    return None if guess is None or any(value is ... for value in guess) else guess


def _draw(
    ax: Axes,
    own: Mapping[str, pd.DataFrame],
    other: Mapping[str, pd.DataFrame],
    other_name: str,
    *,
    interval: bool = True,
) -> dict[str, str]:
    """Draw lines with their intervals, and the reference's dashed; return the colours."""
    shades = colours_for([*own, *other])
    for i, (name, line) in enumerate(own.items()):
        # Bars of neighbours would hide each other at the very same x.
        step = i - (len(own) - 1) / 2
        place = line["x"] * 1.02**step if ax.get_xscale() == "log" else line["x"] + 0.04 * step
        ax.plot(place, line["mean"], marker=MARKERS[i % len(MARKERS)], color=shades[name])
        if interval and line["low"].notna().any():
            reach = np.array([line["mean"] - line["low"], line["high"] - line["mean"]])
            look: dict[str, Any] = {"fmt": "none", "capsize": 3, "elinewidth": 1}
            ax.errorbar(place, line["mean"], reach, ecolor=shades[name], **look)
    dashed: dict[str, Any] = {"ls": "--", "marker": "o", "mfc": "white", "lw": 1.3}
    for name, line in other.items():
        ax.plot(line["x"], line["mean"], color=shades[name], **dashed)
    if other:
        ax.plot([], [], color="#444444", label=other_name, **dashed)
    return shades


def _finish(
    ax: Axes,
    lines: Mapping[str, pd.DataFrame],
    shades: Mapping[str, str],
    guess: tuple[float, float] | None,
    chance: float | None,
) -> None:
    if ax.containers:
        ax.set_ylabel(f"{ax.get_ylabel()}, 95 % interval")
    if chance is not None:
        chance_line(ax, chance)
    if guess is not None:
        x, y = guess
        ax.plot([x], [y], "*", ms=17, color=GUESS, mec="black", mew=1, zorder=5, label="your guess")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best")
    last = {name: line.iloc[-1] for name, line in lines.items()}
    label_ends(ax, {name: (float(p["x"]), float(p["mean"])) for name, p in last.items()}, shades)


def chance_line(ax: Axes, level: float) -> None:
    """Draw the score of guessing as a dashed horizontal line with its name on it."""
    ax.axhline(level, ls="--", lw=1.2, color=CHANCE_COLOUR, zorder=1)
    ax.annotate(
        "chance",
        (0.99, level),
        (0, 3),
        xycoords=ax.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=9,
        color=ink(CHANCE_COLOUR),
    )


class TrainingLog(Protocol):
    """A training's history as `fit` returns it: its tables."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per epoch: columns epoch, train_loss, val_loss, val_auc."""

    @property
    def steps(self) -> pd.DataFrame:
        """One row per optimizer step: columns step and `lr/NAME`, one for each group."""


@course_style()
def history_curves(history: TrainingLog | pd.DataFrame, *, title: str) -> NDArray[Any]:
    """Draw training and validation loss, and validation AUC, by epoch, side by side.

    Args:
        history: What `fit` returned, or its table: columns epoch, train_loss, val_loss (nats),
            val_auc.
        title: What the curves show.

    Returns:
        The two axes, shape `(2,)`.

    >>> log = pd.DataFrame({"epoch": [1, 2], "train_loss": [0.7, 0.5],
    ...                     "val_loss": [0.7, 0.6], "val_auc": [0.6, 0.8]})
    >>> [ax.get_ylabel() for ax in history_curves(log, title="Loss falls, AUC rises")]
    ['loss (cross-entropy, nats)', 'validation AUC']
    """
    table = history if isinstance(history, pd.DataFrame) else history.table
    require_columns(table, ["epoch", "train_loss", "val_loss", "val_auc"], "history")
    loss, auc = sheet(title, 3.4).subplots(1, 2)
    epochs = table["epoch"]
    loss.plot(epochs, table["train_loss"], "o:", color="black", mfc="white", label="training")
    loss.plot(epochs, table["val_loss"], "o-", color="black", label="validation")
    loss.legend(loc="best")
    loss.set_ylabel("loss (cross-entropy, nats)")
    loss.set_ylim(bottom=0)
    auc.plot(epochs, table["val_auc"], "o-", color="black")
    auc.set_ylim(min(0.45, float(table["val_auc"].min()) - 0.05), 1.01)
    chance_line(auc, 0.5)
    auc.set_ylabel("validation AUC")
    for ax in (loss, auc):
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return np.array([loss, auc])
