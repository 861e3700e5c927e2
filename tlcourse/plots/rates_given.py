"""Draw the learning rates that stages are given, and how they run over the steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray

from tlcourse.optim import NO_DECAY
from tlcourse.plots.look import (
    CHANCE,
    OKABE_ITO,
    canvas,
    colours_for,
    label_ends,
    style,
    tick_names,
)

_LOWEST_SHARE = 0.01
"""On a log axis a rate is drawn down to this share of its group's highest: zero has no place."""


@style()
def stage_rates(
    rates: Mapping[str, float | None] | Iterable[Mapping[str, Any]],
    *,
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rate of each stage as a dot with its figure; on the log axis steps are factors.

    Args:
        rates: Rate by stage in the order of the network, None for a frozen stage; or param groups
            with `name` and `lr`, of which the two halves of a stage with and without weight
            decay share a dot.
        title: What the rates show.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If there is no rate, one is not above 0, a group has no name, or the two
            halves of a stage differ.

    >>> ax = stage_rates({"stem": None, "stage1": 1e-4, "head": 1e-3}, title="Top stages move")
    >>> ax.get_yscale(), [text.get_text() for text in ax.texts]
    ('log', ['frozen', '0.0001', '0.001'])
    """
    given = _by_stage(rates)
    values = [rate for rate in given.values() if rate is not None]
    if not values or not all(np.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"expected rates above 0, None for a frozen stage, got {given}")
    ax = canvas(title, ax, height=3.4)
    _log_axis(ax)
    floor = min(values) / 10
    for i, rate in enumerate(given.values()):
        if rate is not None:
            # A dot, not a bar: on a log axis a bar's length would say nothing.
            ax.plot(i, rate, "o", markersize=9, color=OKABE_ITO["blue"])
        text = "frozen" if rate is None else f"{rate:.2g}"
        shade = CHANCE if rate is None else "black"
        spot: dict[str, Any] = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
        ax.annotate(text, (i, rate or floor), **spot, fontsize=10, color=shade)
    ax.set_xlim(-0.6, len(given) - 0.4)
    # Room above the highest bar for its figure, a share of the decades shown.
    ax.set_ylim(floor, max(values) * (max(values) / floor) ** 0.12)
    ax.set_ylabel("learning rate (log scale)")
    ax.set_xlabel("stage of the network, from input to output")
    tick_names(ax, range(len(given)), list(given))
    return ax


@style()
def schedule_curves(
    rates: Mapping[str, ArrayLike],
    *,
    title: str,
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rate of each group over the optimizer steps, its name at its highest rate.

    Groups with equal rates share a line. A dotted line leads from each highest rate to its name.

    Args:
        rates: By group, the rate of each step from 0, `(steps,)`; all of one length.
        title: What the schedule shows.
        log: Whether the rates stand on a log axis, which keeps low ones apart; what lies below a
            hundredth of a group's highest rate, such as zero, is then not drawn.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If there is no group or step, lengths differ, a rate is negative or not
            finite, or a group's rates are all zero and `log` is set.

    >>> ax = schedule_curves({"backbone": [0, 1e-4, 0], "head": [0, 1e-3, 0]}, title="Up and down")
    >>> [text.get_text() for text in ax.texts]
    ['backbone: 0.0001', 'head: 0.001']
    """
    lines = _merged(_checked(rates, log))
    ax = canvas(title, ax, height=3.4)
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


def _by_stage(
    rates: Mapping[str, float | None] | Iterable[Mapping[str, Any]],
) -> dict[str, float | None]:
    if isinstance(rates, Mapping):
        return dict(rates)
    found: dict[str, float | None] = {}
    for group in rates:
        if "name" not in group or "lr" not in group:
            raise ValueError(
                f"expected groups with name and lr, got one with {sorted(group)}: use param_groups"
            )
        stage, rate = str(group["name"]).removesuffix(NO_DECAY), float(group["lr"])
        if found.setdefault(stage, rate) != rate:
            raise ValueError(f"{stage} has two rates, {found[stage]} and {rate}: draw them apart")
    return found


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
