"""Draw confusion matrices: what was true against what was answered."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.pyplot import figure as new_figure
from numpy.typing import ArrayLike, NDArray

from tlcourse import metrics
from tlcourse.plots.look import WIDTH, canvas, colours_for, headline, ink, style


@style()
def confusion(
    labels: ArrayLike,
    predictions: ArrayLike,
    classes: Sequence[str],
    *,
    title: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw how many images of each true class (rows) got each answer (columns).

    Args:
        labels: True classes `(N,)`.
        predictions: Answered classes `(N,)`, integers: `probs.argmax(axis=1)`.
        classes: Names of the C classes.
        title: What the counts show.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If shapes or classes disagree.

    >>> ax = confusion([0, 1, 1], [0, 1, 0], ["malignant", "benign"], title="One false alarm")
    >>> ax.texts[0].get_text().split()
    ['1', '100', '%']
    """
    table = _counts(labels, predictions, len(classes))
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    ax = canvas(title, ax, height=1.7 + 0.95 * len(classes))
    ax.set_anchor("W")
    ax.imshow(shares, cmap="Greys", vmin=0, vmax=1.25)
    for (i, j), count in np.ndenumerate(table):
        shade = "white" if shares[i, j] > 0.75 else "black"
        text = f"{count:,}\n{100 * shares[i, j]:.0f} %"
        ax.text(j, i, text, ha="center", va="center", color=shade, linespacing=1.3)
    wrapped = [textwrap.fill(name, 14) for name in classes]
    ax.set_xticks(range(len(classes)), labels=wrapped)
    ax.set_yticks(range(len(classes)), labels=wrapped)
    for text_, name in zip(
        [*ax.get_xticklabels(), *ax.get_yticklabels()], [*classes] * 2, strict=True
    ):
        text_.set_color(ink(colours_for(classes)[name]))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xlabel("answered class")
    ax.set_ylabel("true class\n(rows sum to 100 %)")
    return ax


@style()
def confusions(
    labels: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    classes: Sequence[str],
    *,
    title: str,
) -> NDArray[Any]:
    """Draw the confusion matrices of several models side by side, each under its name.

    Args:
        labels: True classes `(N,)`.
        predictions: Answered classes `(N,)` by name.
        classes: Names of the C classes.
        title: What the counts show.

    Returns:
        The axes, one per name.

    Raises:
        ValueError: If there is no name, or shapes or classes disagree.

    >>> answers = {"timid": [1, 1, 1], "bold": [0, 0, 1]}
    >>> axes = confusions([0, 1, 1], answers, ["malignant", "benign"], title="Two answers")
    >>> [ax.get_title() for ax in axes]
    ['timid', 'bold']
    """
    if not predictions:
        raise ValueError("expected the answers of one model or more, got none")
    figure = new_figure(figsize=(WIDTH, 1.5 + WIDTH * 0.8 / len(predictions)))
    headline(figure, title)
    axes = figure.subplots(1, len(predictions), squeeze=False)[0]
    for ax, (name, answers) in zip(axes, predictions.items(), strict=True):
        confusion(labels, answers, classes, title=name, ax=ax)
    for ax in axes[1:]:
        ax.set_ylabel("")
        ax.set_yticks([])
    return np.asarray(axes)


def _counts(labels: ArrayLike, predictions: ArrayLike, count: int) -> NDArray[np.int64]:
    truth, answers = np.asarray(labels), np.asarray(predictions)
    if truth.ndim != 1 or answers.shape != truth.shape:
        raise ValueError(
            f"expected labels (N,) and predictions (N,), got {truth.shape}, {answers.shape}; "
            "of probabilities take probs.argmax(axis=1)"
        )
    if not np.issubdtype(answers.dtype, np.integer):
        raise ValueError(f"predictions must be class numbers, got {answers.dtype}")
    if len(answers) and not 0 <= answers.min() <= answers.max() < count:
        raise ValueError(f"predictions must lie in 0..{count - 1}, the {count} classes named")
    return metrics.confusion(truth, np.eye(count)[answers])
