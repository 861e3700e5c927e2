"""Draw whether probabilities mean what they say."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from tlcourse.metrics import reliability
from tlcourse.plots.look import CHANCE, MARKERS, canvas, colours_for, style


@style()
def reliability_curve(
    labels: ArrayLike,
    probs: ArrayLike | Mapping[str, ArrayLike],
    *,
    title: str,
    bins: int = 10,
    positive: int | None = None,
    positive_name: str = "malignant",
    ax: Axes | None = None,
) -> Axes:
    """Draw how often a model is right against how sure it is, for one model or several by name.

    A dot is a bin of `metrics.reliability` with its 95 % interval; below the diagonal the model
    is surer than it may be. The legend names the mean gap, weighted by images: with
    `positive=None` this is the expected calibration error.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`, or such an array per name: before and after temperature scaling.
        title: What the curves show.
        bins: Number of bins of equal width from 0 to 1; those without images are left out.
        positive: None for the confidence of the answer; a class for its probability.
        positive_name: The name of that class, for the axes.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If shapes disagree, `bins` is below 1 or `positive` is no class.

    >>> probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    >>> ax = reliability_curve([0, 1, 1], probs, title="Surer than right")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['model: off by 0.33', 'honest']
    """
    several = probs if isinstance(probs, Mapping) else {"model": probs}
    tables = {n: reliability(labels, rows, bins, positive=positive) for n, rows in several.items()}
    ax = canvas(title, ax, height=4.6)
    shades = colours_for(several)
    most = max(int(table["images"].max()) for table in tables.values())
    for i, (name, table) in enumerate(tables.items()):
        said, true, images = (table[c].to_numpy() for c in ("confidence", "observed", "images"))
        reach = np.array([true - table["low"], table["high"] - true]).clip(0)
        look: dict[str, Any] = {"color": shades[name], "marker": MARKERS[i % len(MARKERS)]}
        gap = float(np.average(abs(said - true), weights=images))
        words = textwrap.fill(f"{name}: off by {gap:.2f}", 34)
        ax.plot(said, true, ms=6, lw=1.2, label=words, **look)
        ax.scatter(said, true, s=20 + 160 * images / most, zorder=3, **look)
        ax.errorbar(said, true, reach, fmt="none", ecolor=shades[name], capsize=3, elinewidth=1)
    ax.plot([0, 1], [0, 1], ls="--", lw=1.2, color=CHANCE, label="honest", zorder=1)
    least = 0.0 if positive is not None else 1 / np.shape(next(iter(several.values())))[1]
    ax.set_xlim(least - 0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    what = "confidence of the answer", "share of answers that are right"
    if positive is not None:
        what = f"predicted probability of {positive_name}", f"share that is {positive_name}"
    ax.set_xlabel(what[0])
    ax.set_ylabel(f"{what[1]}, 95 % interval")
    ax.set_box_aspect(1)
    ax.set_anchor("W")
    ax.legend(
        loc="lower left", bbox_to_anchor=(1.02, 0), title="large dot: many images", alignment="left"
    )
    return ax
