"""Draw scores over images, stages or epochs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import EllipsisType
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.pyplot import figure as new_figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tlcourse.plots.style import (
    CHANCE_COLOUR,
    MARKERS,
    WIDTH,
    canvas,
    chance_line,
    colours_for,
    given,
    guess_star,
    headline,
    label_ends,
    style,
    tick_names,
    tick_sizes,
)
from tlcourse.plots.summary import require_columns, summarise

AXIS_NAMES = {
    "images": "training images (log scale)",
    "auc": "test AUC",
    "accuracy": "test accuracy",
    "stage": "stage of the network, from input to output",
    "score": "score",
    "cka": "similarity (linear CKA)",
}
"""What stands on an axis for a column of that name."""


@style()
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
    colours: Mapping[str, str] | None = None,
    ax: Axes | None = None,
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
        colours: Colour per name; names without one get the course's.
        ax: Draw here instead of in a new figure.

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
    points = None if frame is None else summarise(frame, x, y, group, folds=folds)
    other = None if reference is None else summarise(reference, x, y, group)
    drawn = pd.concat([part for part in (points, other) if part is not None])
    sizes = sorted({*drawn["x"]})
    if sizes[0] <= 0:
        raise ValueError(f"sizes in column {x!r} must be above 0 for a log axis, got {sizes[0]}")
    ax = canvas(title, ax, height=4.3)
    ax.set_xscale("log")
    ax.set_xlabel(xlabel or AXIS_NAMES.get(x, x))
    own = drawn.iloc[:0] if points is None else points
    shades = _draw(ax, own, other, reference_name, interval, colours, dodge="log")
    tick_sizes(ax, sizes)
    if ylim is not None:
        ax.set_ylim(ylim)
    ends = drawn if points is None else points
    bars = interval and points is not None
    _finish(ax, ends, ylabel or AXIS_NAMES.get(y, y), bars, given(guess), chance, shades)
    return ax


@style()
def stage_curves(
    frame: pd.DataFrame,
    x: str = "stage",
    y: str = "score",
    group: str = "task",
    *,
    title: str,
    interval: bool = True,
    folds: int | None = None,
    reference: pd.DataFrame | None = None,
    reference_name: str = "published",
    guess: tuple[str, float | EllipsisType] | None = None,
    chance: float | Mapping[str, float] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    colours: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one line per task (or pair of networks) over the stages, in the order they come.

    Args:
        frame: Tidy: a row per stage, task and run; or one row per point with `low` and `high`.
        x: Column of stages; their first appearance sets the order.
        y: Column of scores or similarities.
        group: Column of names, one line each.
        title: What the curves show.
        interval: Draw 95 % intervals over the runs of a point.
        folds: Folds of a dealing, where the runs are folds: intervals are then those of
            `metrics.fold_interval`. None where runs are independent.
        reference: A published result with the same columns, drawn dashed with open markers.
        reference_name: What the reference is, for the legend.
        guess: `(stage, score)` that the learner expected, marked with a star; a score of `...`
            draws none.
        chance: The score of guessing: one for all, or one per name of `group`.
        xlabel: Text of the x axis where the column's name does not say enough.
        ylabel: Text of the y axis, likewise.
        colours: Colour per name; names without one get the course's.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If a column, a value or a stage named by guess or reference is missing.

    >>> probes = pd.DataFrame({"stage": ["stem", "head"], "score": [0.6, 0.9], "task": "cancer"})
    >>> ax = stage_curves(probes, title="Late stages tell cancer apart")
    >>> [tick.get_text() for tick in ax.get_xticklabels()]
    ['stem', 'head']
    """
    points, other = summarise(frame, x, y, group, folds=folds), None
    order = {name: float(i) for i, name in enumerate(dict.fromkeys(points["x"]))}
    points["x"] = points["x"].map(order)
    if reference is not None:
        other = summarise(reference, x, y, group)
        _known(other["x"], order, "reference")
        other["x"] = other["x"].map(order)
    place = given(guess)
    star = None if place is None else (_known([place[0]], order, "guess"), place[1])
    ax = canvas(title, ax, height=4.3)
    ax.set_xlabel(xlabel or AXIS_NAMES.get(x, x))
    shades = _draw(ax, points, other, reference_name, interval, colours, dodge="linear")
    tick_names(ax, list(order.values()), [str(name) for name in order])
    _finish(ax, points, ylabel or AXIS_NAMES.get(y, y), interval, star, chance, shades)
    return ax


def _known(names: Sequence[Hashable] | pd.Series[Any], order: dict[Any, float], what: str) -> float:
    unknown = [name for name in names if name not in order]
    if unknown:
        raise ValueError(f"{what} names {unknown[0]!r}; the frame has {list(order)}")
    return order[next(iter(names))]


def _draw(
    ax: Axes,
    points: pd.DataFrame,
    other: pd.DataFrame | None,
    other_name: str,
    interval: bool,
    colours: Mapping[str, str] | None,
    dodge: str,
) -> dict[str, str]:
    names = list(dict.fromkeys(points["name"]))
    extra = [] if other is None else list(dict.fromkeys(other["name"]))
    shades = colours_for([*names, *extra], colours)
    for i, name in enumerate(names):
        line = points[points["name"] == name].sort_values("x")
        # Bars of neighbours would hide each other at the very same x.
        step = i - (len(names) - 1) / 2
        place = line["x"] * 1.02**step if dodge == "log" else line["x"] + 0.04 * step
        ax.plot(place, line["mean"], marker=MARKERS[i % len(MARKERS)], color=shades[name])
        if interval and line["low"].notna().any():
            reach = np.array([line["mean"] - line["low"], line["high"] - line["mean"]])
            ax.errorbar(
                place, line["mean"], reach, fmt="none", ecolor=shades[name], capsize=3, elinewidth=1
            )
    for name in extra if other is not None else ():
        line = other[other["name"] == name].sort_values("x")  # type: ignore[index]
        ax.plot(line["x"], line["mean"], "--", marker="o", mfc="white", lw=1.3, color=shades[name])
    if other is not None:
        ax.plot([], [], "--", marker="o", mfc="white", lw=1.3, color="#444444", label=other_name)
    return shades


def _finish(
    ax: Axes,
    points: pd.DataFrame,
    ylabel: str,
    interval: bool,
    guess: tuple[float, float] | None,
    chance: float | Mapping[str, float] | None,
    shades: Mapping[str, str],
) -> None:
    with_bars = interval and bool(points["low"].notna().any())
    ax.set_ylabel(f"{ylabel}, 95 % interval" if with_bars else ylabel)
    _chance_lines(ax, chance, shades)
    if guess is not None:
        guess_star(ax, *guess)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="best")
    ends = {}
    for name in dict.fromkeys(points["name"]):
        last = points[points["name"] == name].sort_values("x").iloc[-1]
        ends[name] = (float(last["x"]), float(last["mean"]))
    label_ends(ax, ends, shades)


def _chance_lines(
    ax: Axes, chance: float | Mapping[str, float] | None, shades: Mapping[str, str]
) -> None:
    if chance is None:
        return
    levels = chance if isinstance(chance, Mapping) else {"": chance}
    unknown = [name for name in levels if name and name not in shades]
    if unknown:
        raise ValueError(f"chance names {unknown[0]!r}; the frame has {list(shades)}")
    for level in dict.fromkeys(levels.values()):
        names = [name for name, value in levels.items() if value == level]
        alone = len(names) == 1 and names[0] and len(levels) > 1
        text = f"chance, {' and '.join(names)}" if len(set(levels.values())) > 1 else "chance"
        chance_line(ax, level, name=text, shade=shades[names[0]] if alone else CHANCE_COLOUR)


class HasTable(Protocol):
    """A training's history: anything that holds one row per epoch in `table`."""

    @property
    def table(self) -> pd.DataFrame:
        """Columns epoch, train_loss, val_loss, val_auc."""


@style()
def history_curves(history: HasTable | pd.DataFrame, *, title: str) -> NDArray[Any]:
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
    figure = new_figure(figsize=(WIDTH, 3.4))
    headline(figure, title)
    loss, auc = figure.subplots(1, 2)
    loss.plot(
        table["epoch"], table["train_loss"], "o:", color="black", mfc="white", label="training"
    )
    loss.plot(table["epoch"], table["val_loss"], "o-", color="black", label="validation")
    loss.legend(loc="best")
    loss.set_ylabel("loss (cross-entropy, nats)")
    loss.set_ylim(bottom=0)
    auc.plot(table["epoch"], table["val_auc"], "o-", color="black")
    auc.set_ylim(min(0.45, float(table["val_auc"].min()) - 0.05), 1.01)
    chance_line(auc, 0.5)
    auc.set_ylabel("validation AUC")
    for ax in (loss, auc):
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return np.array([loss, auc])
