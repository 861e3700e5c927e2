"""Write what explorers show: tables and schedules, as HTML."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from tlcourse.optim import warmup_cosine
from tlcourse.plots import schedule_curves
from tlcourse.plots.display import as_html


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
