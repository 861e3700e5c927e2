"""Draw how a training went, epoch by epoch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.pyplot import figure as new_figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tlcourse.plots.look import (
    WIDTH,
    chance_line,
    headline,
    style,
)
from tlcourse.plots.points import require_columns


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
