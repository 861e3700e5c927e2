"""Buttons, sliders and the page that they redraw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from numpy.typing import NDArray

from tlcourse.optim.factory import warmup_cosine
from tlcourse.plots.learning_rates import schedule_curves
from tlcourse.plots.style import as_html

Draw = Callable[[Mapping[str, Any]], str]

RATES = tuple(float(f"{digit}e{power}") for power in range(-6, 0) for digit in (1, 2, 5))
"""Learning rates that a slider offers."""
_LABEL = "9em"
_SLIDER: dict[str, Any] = {
    # Told when it is let go, not at every point on the way: each value costs a drawing.
    "continuous_update": False,
    "style": {"description_width": _LABEL},
    "layout": {"width": "36em"},
}


class Explorer(ipywidgets.VBox):  # type: ignore[misc]
    """Labelled controls above what they show.

    As a notebook's output it also holds what it shows at first as plain HTML, for readers of a
    page where no kernel runs.

    Args:
        controls: Widgets with a `description` of their own and a `value`.
        draw: Called with the values by description whenever one changes; returns HTML.

    Attributes:
        controls: The widgets by their description.
        shown: The widget whose `value` is the HTML that is shown.

    Raises:
        ValueError: If a control has no description, or two have the same.

    >>> number = choice_slider("Number", [("three", 3), ("four", 4)], 3)
    >>> explorer = Explorer([number], lambda values: f"<p>{values['Number'] ** 2}</p>")
    >>> explorer.controls["Number"].value = 4
    >>> explorer.shown.value
    '<p>16</p>'
    """

    def __init__(self, controls: Sequence[ipywidgets.DOMWidget], draw: Draw) -> None:
        self.controls = {control.description: control for control in controls}
        if len(self.controls) < len(controls) or "" in self.controls:
            raise ValueError(
                "expected a description of its own for each control, got "
                f"{[control.description for control in controls]}"
            )
        self.shown = ipywidgets.HTML()
        self._draw = draw
        super().__init__([*controls, self.shown])
        for control in controls:
            control.observe(self._refresh, names="value")
        self._refresh()

    def _refresh(self, _change: object = None) -> None:
        self.shown.value = self._draw({name: c.value for name, c in self.controls.items()})

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, Any]:
        return {**super()._repr_mimebundle_(**kwargs), "text/html": self.shown.value}


def buttons(description: str, options: Sequence[str]) -> Any:
    """Return a row of buttons of which one is down, at first the first: for choices without order.

    Not a drop-down list: JupyterLab 4 keeps the arrow keys from it and moves on to another cell.

    Args:
        description: Its label.
        options: What the buttons say.

    >>> buttons("Way", ["up", "down"]).value
    'up'
    """
    look = {"description_width": _LABEL, "button_width": "auto"}
    return ipywidgets.ToggleButtons(options=options, description=description, style=look)


def choice_slider(description: str, options: Sequence[tuple[str, Any]], value: Any) -> Any:
    """Return a slider over choices in their order.

    Args:
        description: Its label.
        options: Pairs of what the slider says and the value that it has there.
        value: The value at first.

    >>> choice_slider("Decay factor", [("1", 1.0), ("1/2", 0.5)], 0.5).label
    '1/2'
    """
    return ipywidgets.SelectionSlider(
        options=options, value=value, description=description, **_SLIDER
    )


def rate_slider(description: str, value: float) -> Any:
    """Return a slider over the learning rates of `RATES` that starts at `value`, one of them.

    >>> rate_slider("Head rate", 1e-3).label
    '0.001'
    """
    return choice_slider(description, [(f"{rate:g}", rate) for rate in RATES], value)


def step_sliders() -> tuple[Any, Any]:
    """Return sliders of total and of warmup steps, of which the second ends where the first is.

    >>> total, warmup = step_sliders()
    >>> warmup.value = 50
    >>> total.value = 20
    >>> warmup.value
    20
    """
    total = ipywidgets.IntSlider(100, 10, 1000, 10, description="Total steps", **_SLIDER)
    warmup = ipywidgets.IntSlider(10, 0, 100, description="Warmup steps", **_SLIDER)
    ipywidgets.dlink((total, "value"), (warmup, "max"))
    return total, warmup


def schedule(rates: Mapping[str, float], total: int, warmup: int, *, log: bool = False) -> str:
    """Draw warmup and cosine for each group.

    Args:
        rates: Full rate by group.
        total: Optimizer steps of the training.
        warmup: Steps from zero to the full rate, 0 to `total`.
        log: Whether the rates stand on a log axis.

    >>> "From zero to the full rate in 5 steps" in schedule({"head": 1e-3}, 20, 5)
    True
    """
    start = f"From zero to the full rate in {warmup} steps" if warmup else "Full rate at once"
    title = f"{start}, then down to zero at step {total}"
    full = ", ".join(f"{name} {short_rate(rate)}" for name, rate in rates.items())
    factors = _factors(total, warmup)
    curves = {name: rate * factors for name, rate in rates.items()}
    return as_html(
        schedule_curves(curves, title=title, log=log),
        alt=f"Lines of the learning rate over optimizer steps. {title}. Full rates: {full}.",
    )


def table(rows: Mapping[str, str]) -> str:
    """Lay out names and what they are as a table of two columns.

    >>> table({"Epochs": "3"}).count("<tr>")
    1
    """
    cell = '<tr><th scope="row" style="text-align:left; padding-right:1em">{}</th><td>{}</td></tr>'
    return f"<table>{''.join(cell.format(name, text) for name, text in rows.items())}</table>"


def share(part: int, whole: int) -> str:
    """Write a part of a whole as counts and percents.

    >>> share(2_562, 2_226_434)
    '2,562 of 2,226,434 (0.1 %)'
    """
    return f"{part:,} of {whole:,} ({100 * part / whole:.1f} %)"


def short(value: float) -> str:
    """Write a number with no more digits than an estimate deserves.

    >>> short(1234.5), short(2.345), short(0.01234)
    ('1,234', '2.3', '0.012')
    """
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def short_rate(value: float) -> str:
    """Write a learning rate.

    >>> short_rate(1e-3 / 2.6), short_rate(1e-5)
    ('0.00038', '1e-05')
    """
    return f"{value:.2g}"


def _factors(total: int, warmup: int) -> NDArray[np.float64]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    factor = warmup_cosine(optimizer, total, warmup).lr_lambdas[0]
    return np.array([factor(step) for step in range(total + 1)])
