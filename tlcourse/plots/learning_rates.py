"""Draw learning rates: of stages, over steps, and the loss that each gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray

from tlcourse.optim.groups import NO_DECAY
from tlcourse.plots.curves import TrainingLog, require_columns
from tlcourse.plots.style import (
    CHANCE_COLOUR,
    OKABE_ITO,
    canvas,
    colours_for,
    course_style,
    ink,
    label_ends,
    tick_names,
)

if TYPE_CHECKING:
    from tlcourse.optim.lr_finder import RateTest

_LOWEST_SHARE = 0.01
"""On a log axis a rate is drawn down to this share of its group's highest: zero has no place."""


@course_style()
def stage_rates(rates: Mapping[str, float | None], *, title: str) -> Axes:
    """Draw the rate of each stage as a dot with its figure; on the log axis steps are factors.

    Args:
        rates: Rate by stage in the order of the network, None for a frozen stage.
        title: What the rates show.

    Raises:
        ValueError: If there is no rate, or one is not above 0.

    >>> ax = stage_rates({"stem": None, "stage1": 1e-4, "head": 1e-3}, title="Top stages move")
    >>> ax.get_yscale(), [text.get_text() for text in ax.texts]
    ('log', ['frozen', '0.0001', '0.001'])
    """
    values = [rate for rate in rates.values() if rate is not None]
    if not values or not all(np.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"expected rates above 0, None for a frozen stage, got {dict(rates)}")
    ax = canvas(title, height=3.4)
    _log_axis(ax)
    floor = min(values) / 10
    for i, rate in enumerate(rates.values()):
        if rate is not None:
            # A dot, not a bar: on a log axis a bar's length would say nothing.
            ax.plot(i, rate, "o", markersize=9, color=OKABE_ITO["blue"])
        text = "frozen" if rate is None else f"{rate:.2g}"
        shade = CHANCE_COLOUR if rate is None else "black"
        spot: dict[str, Any] = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
        ax.annotate(text, (i, rate or floor), **spot, fontsize=10, color=shade)
    ax.set_xlim(-0.6, len(rates) - 0.4)
    # Room above the highest bar for its figure, a share of the decades shown.
    ax.set_ylim(floor, max(values) * (max(values) / floor) ** 0.12)
    ax.set_ylabel("learning rate (log scale)")
    ax.set_xlabel("stage of the network, from input to output")
    tick_names(ax, range(len(rates)), list(rates))
    return ax


@course_style()
def schedule_curves(rates: Mapping[str, ArrayLike], *, title: str, log: bool = False) -> Axes:
    """Draw the rate of each group over the optimizer steps, its name at its highest rate.

    Groups with equal rates share a line. A dotted line leads from each highest rate to its name.

    Args:
        rates: By group, the rate of each step from 0, `(steps,)`; all of one length.
        title: What the schedule shows.
        log: Whether the rates stand on a log axis, which keeps low ones apart; what lies below a
            hundredth of a group's highest rate, such as zero, is then not drawn.

    Raises:
        ValueError: If there is no group or step, lengths differ, a rate is negative or not
            finite, or a group's rates are all zero and `log` is set.

    >>> ax = schedule_curves({"backbone": [0, 1e-4, 0], "head": [0, 1e-3, 0]}, title="Up and down")
    >>> [text.get_text() for text in ax.texts]
    ['backbone: 0.0001', 'head: 0.001']
    """
    lines = _merged(_checked(rates, log))
    ax = canvas(title, height=3.4)
    shades, last = colours_for(lines), len(next(iter(lines.values()))) - 1
    if log:
        _log_axis(ax)
    ends, named = {}, {}
    for name, values in lines.items():
        top = float(values.max())
        drawn = np.where(values >= _LOWEST_SHARE * top, values, np.nan) if log else values
        ax.plot(drawn, color=shades[name], drawstyle="steps-post")  # a rate holds for a whole step
        ax.hlines(top, int(values.argmax()), last, ls=":", lw=1, color=shades[name])
        label = f"{name}: {top:.2g}"
        ends[label], named[label] = (float(last), top), shades[name]
    ax.set_xlim(0, max(last, 1))
    if not log:
        ax.set_ylim(bottom=0)
    ax.set_ylabel("learning rate (log scale)" if log else "learning rate")
    ax.set_xlabel("optimizer step")
    label_ends(ax, ends, named)
    return ax


def _log_axis(ax: Axes) -> None:
    ax.set_yscale("log")
    # A decade or more is always in sight: figures between decades would be clutter.
    ax.yaxis.set_minor_formatter(NullFormatter())


def _checked(rates: Mapping[str, ArrayLike], log: bool) -> dict[str, NDArray[np.float64]]:
    lines = {name: np.asarray(values, dtype=float) for name, values in rates.items()}
    shapes = {values.shape for values in lines.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or shapes == {(0,)}:
        raise ValueError(f"expected rates (steps,) of one length, got {sorted(shapes)}")
    for name, values in lines.items():
        if not (np.isfinite(values) & (values >= 0)).all() or (log and not values.any()):
            raise ValueError(
                f"expected finite rates of 0 or more, on a log axis not all 0, for {name}"
            )
    return lines


def _merged(lines: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Give groups with the same rates one line under a common name."""
    alike: dict[bytes, list[str]] = {}
    for name, values in lines.items():
        alike.setdefault(values.tobytes(), []).append(name)
    order = list(lines)
    merged = {}
    for names in alike.values():
        start = order.index(names[0])
        run = order[start : start + len(names)] == names
        common = f"{names[0]} to {names[-1]}" if run and len(names) > 2 else " and ".join(names)
        merged[common] = lines[names[0]]
    return merged


RATE = "lr/"
"""What the name of a column of `History.steps` with a group's rates begins with."""
SHADES = {"loss at each step": OKABE_ITO["grey"], "smoothed loss": OKABE_ITO["blue"]}


@course_style()
def rate_test(result: RateTest, *, title: str) -> Axes:
    """Draw the loss against the rate it was reached with, log scale, and mark the suggestion.

    The axis ends at twice the first smoothed loss; a loss that breaks out leaves it.

    Args:
        result: What `optim.find_lr` returned.
        title: What the curve shows.

    Raises:
        ValueError: If the table lacks a column or a row, or no loss is a finite number.

    >>> from types import SimpleNamespace
    >>> table = pd.DataFrame({"lr": [1e-4, 1e-3, 1e-2], "loss": [0.7, 0.4, 0.9]})
    >>> result = SimpleNamespace(table=table.assign(smoothed=table["loss"]), suggestion=1e-3)
    >>> rate_test(result, title="The loss falls best near 0.001").get_xscale()
    'log'
    """
    table = result.table
    require_columns(table, ["lr", "loss", "smoothed"], "rate test")
    table = table[np.isfinite(table["smoothed"])]
    if table.empty:
        raise ValueError("expected a finite loss in the rate test, got none: nothing to draw")
    ax = canvas(title)
    # A loss that broke out must not press flat what comes before: its line leaves at the top.
    highest, first = float(table["smoothed"].max()), float(table["smoothed"].iloc[0])
    top = min(1.1 * highest, 2 * first) or 1.0
    ax.plot(table["lr"], table["loss"], ".", ms=4, color=SHADES["loss at each step"])
    ax.plot(table["lr"], table["smoothed"], color=SHADES["smoothed loss"])
    ax.set(xscale="log", xlabel="learning rate (log scale)", ylabel="loss (cross-entropy, nats)")
    ax.set_ylim(0, top)
    _mark(ax, result.suggestion)
    ends = {}
    for name, column in {"loss at each step": "loss", "smoothed loss": "smoothed"}.items():
        seen = table[table[column] <= top].iloc[-1]
        ends[name] = (float(seen["lr"]), float(seen[column]))
    label_ends(ax, ends, SHADES)
    return ax


def rate_schedule(history: TrainingLog | pd.DataFrame, *, title: str) -> Axes:
    """Draw the rate that each group of parameters had in each optimizer step, log scale.

    Groups whose rates agree in every step share a line. For rates near zero, which have no place
    on a log axis, see `schedule_curves`.

    Args:
        history: What `fit` returned, or its table of steps with columns `lr/NAME`.
        title: What the schedule shows.

    Raises:
        ValueError: If there is no step, no column of rates, or a group's rates are all 0.

    >>> steps = pd.DataFrame({"step": [0, 1], "lr/stem": [0.0, 1e-4], "lr/head": [0.0, 1e-3]})
    >>> ax = rate_schedule(steps, title="Ten times slower below")
    >>> [text.get_text() for text in ax.texts]
    ['stem: 0.0001', 'head: 0.001']
    """
    steps = history if isinstance(history, pd.DataFrame) else history.steps
    require_columns(steps, ["step"], "history.steps")
    rates = {
        str(column).removeprefix(RATE): steps[column].to_numpy(dtype=float)
        for column in steps.columns
        if str(column).startswith(RATE)
    }
    if not rates:
        raise ValueError(f"expected columns {RATE}NAME in history.steps, got {list(steps.columns)}")
    return schedule_curves(_by_stage(rates), title=title, log=True)


def _by_stage(rates: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Leave out the half of a stage without weight decay where the other half has its rates."""
    return {
        group: values
        for group, values in rates.items()
        if not group.endswith(NO_DECAY)
        or not np.array_equal(values, rates.get(group.removesuffix(NO_DECAY), np.empty(0)))
    }


def _mark(ax: Axes, suggestion: float) -> None:
    if math.isnan(suggestion):
        return
    shade = OKABE_ITO["vermillion"]
    ax.axvline(suggestion, ls="--", lw=1.4, color=shade, zorder=1)
    ax.annotate(
        f"suggested: {suggestion:.2g}",
        (suggestion, 0.04),
        (6, 0),
        xycoords=ax.get_xaxis_transform(),
        textcoords="offset points",
        color=ink(shade),
    )
