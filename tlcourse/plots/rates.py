"""Draw learning rates: the test that finds one, and the schedule that each group followed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from tlcourse.optim import NO_DECAY
from tlcourse.plots.look import OKABE_ITO, canvas, ink, label_ends, style
from tlcourse.plots.points import require_columns
from tlcourse.plots.rates_given import schedule_curves

RATE = "lr/"
"""What the name of a column of `History.steps` with a group's rates begins with."""

SHADES = {"loss at each step": OKABE_ITO["grey"], "smoothed loss": OKABE_ITO["blue"]}


class HasRateTest(Protocol):
    """A learning-rate range test: what `optim.find_lr` returns."""

    @property
    def table(self) -> pd.DataFrame:
        """Columns lr, loss, smoothed: one row per step."""

    @property
    def suggestion(self) -> float:
        """A rate, or NaN."""


class HasSteps(Protocol):
    """A training's history: anything that holds one row per optimizer step in `steps`."""

    @property
    def steps(self) -> pd.DataFrame:
        """Columns step and `lr/NAME`, one for each group."""


@style()
def rate_test(result: HasRateTest, *, title: str, ax: Axes | None = None) -> Axes:
    """Draw the loss against the rate it was reached with, log scale, and mark the suggestion.

    The axis ends at twice the first smoothed loss; a loss that breaks out leaves it.

    Args:
        result: What `optim.find_lr` returned.
        title: What the curve shows.
        ax: Draw here instead of in a new figure.

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
    ax = canvas(title, ax)
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


def rate_schedule(history: HasSteps | pd.DataFrame, *, title: str, ax: Axes | None = None) -> Axes:
    """Draw the rate that each group of parameters had in each optimizer step, log scale.

    Groups whose rates agree in every step share a line. For rates near zero, which have no place
    on a log axis, see `schedule_curves`.

    Args:
        history: What `fit` returned, or its table of steps with columns `lr/NAME`.
        title: What the schedule shows.
        ax: Draw here instead of in a new figure.

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
    return schedule_curves(_by_stage(rates), title=title, log=True, ax=ax)


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
