"""Checks of lesson 02, See what each layer learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlcourse.checks.core import call, check, close, number, require
from tlcourse.similarity import linear_cka

STAGE_TOLERANCE = 0.02
"""How far below the best stage a stage may lie and still do, in AUC."""


@check("take .std(axis=(1, 2)) of both arrays, subtract, then .argmax()")
def check_edge_channel(
    answer: int, on_vertical: NDArray[np.float32], on_horizontal: NDArray[np.float32]
) -> str:
    """Check which channel spreads more on the vertical edge than on the horizontal one."""
    value = number(answer, "the channel")
    upright, lying = (maps.std(axis=(1, 2)) for maps in (on_vertical, on_horizontal))
    gain = upright - lying
    best = int(gain.argmax())
    if value != best:
        named = {
            int(gain.argmin()): "that one prefers horizontal edges: subtract the other way round",
            int(upright.argmax()): "that one spreads most on the vertical picture, but nearly as "
            "much on the horizontal one: subtract",
            int(on_vertical.mean(axis=(1, 2)).argmax()): "that one has the largest mean: it "
            "answers to brightness. Take the standard deviation over rows and columns",
        }
        require(False, named.get(int(value), f"expected one of {len(gain)} channels: compare all"))
    return f"channel {best}: find it among the drawn filters, bright on one side, dark on the other"


@check("the best mean minus 0.02 is the bar; the first stage over it, from the top")
def check_cut_stage(answer: str, means: pd.Series[float]) -> str:
    """Check the earliest stage that comes within 0.02 of the best one."""
    require(answer in means.index, f"expected one of {list(means.index)}, got {answer!r}")
    good = means.index[means >= means.max() - STAGE_TOLERANCE]
    require(
        answer == good[0] or answer not in good,
        f"{answer} is good enough, but an earlier stage is too: you would run more than you need",
    )
    require(answer in good, f"{answer} lies more than {STAGE_TOLERANCE} below the best: go on")
    return f"{answer}: what comes after it costs time and adds little for textures"


@check("subtract x.mean(axis=0) and y.mean(axis=0) first; then the formula, with the square")
def check_cka(function: Callable[..., Any]) -> str:
    """Check linear CKA against the package's."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)) + 3
    y = x[:, :3] @ rng.normal(size=(3, 4)) + rng.normal(size=(40, 4)) + 2
    value = number(call(function, x.copy(), y.copy()), "the CKA")
    expected = linear_cka(x, y, unbiased=False)
    require(not close(value, _ratio(x, y)), "the columns are not centred: take their means off")
    rows = [table - table.mean(axis=1, keepdims=True) for table in (x, y)]
    require(not close(value, _ratio(*rows)), "rows were centred: use mean(axis=0), over images")
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    require(not close(value, _ratio(x, y, power=1)), "the upper norm must be squared")
    require(close(value, expected), f"expected {expected:.4f} on a test table, got {value:.4f}")
    return "the package's linear_cka also corrects the bias of few images, and agrees otherwise"


def _ratio(x: NDArray[np.float64], y: NDArray[np.float64], power: int = 2) -> float:
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** power / own)
