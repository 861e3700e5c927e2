"""Draw what thresholds can do: ROC and precision-recall curves, with chosen points on them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from tlcourse.metrics import OperatingPoint, precision_recall, roc_points
from tlcourse.plots.look import CHANCE, MARKERS, canvas, colours_for, style

Mark = OperatingPoint | Mapping[str, OperatingPoint]


@style()
def roc(
    labels: ArrayLike,
    probs: ArrayLike | Mapping[str, ArrayLike],
    *,
    title: str,
    positive: int = 0,
    positive_name: str = "malignant",
    mark: Mark | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the ROC curve of one model or of several by name, with the line of guessing.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`, or such an array per name.
        title: What the curves show.
        positive: The class to be found; 0 is malignant in the course's sets.
        positive_name: Its name, for the axes.
        mark: An operating point on a curve, or several by name: what `metrics.at_threshold` says
            of these predictions, or the `ChosenThreshold` itself where they are those it was
            chosen on.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If shapes disagree, `labels` lack the class or everything else, or a mark lies
            on none of the curves.

    >>> from tlcourse.metrics import at_threshold
    >>> probs = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    >>> point = at_threshold([0, 1, 1], probs, 0.5)
    >>> ax = roc([0, 1, 1], {"pretrained": probs}, title="Every pair ranked rightly", mark=point)
    >>> for text in ax.get_legend().get_texts():
    ...     print(text.get_text())
    pretrained: AUC 1.00
    guessing: AUC 0.50
    threshold 0.500:
    sensitivity 1.00, specificity 0.50
    """
    several = probs if isinstance(probs, Mapping) else {"model": probs}
    curves = {name: roc_points(labels, rows, positive=positive) for name, rows in several.items()}
    marks = _checked_marks(mark, curves, labels, positive)
    ax = canvas(title, ax, height=4.6)
    shades = colours_for(several)
    for name, table in curves.items():
        alarms, found = 1 - table["specificity"].to_numpy(), table["sensitivity"].to_numpy()
        area = float(np.trapezoid(found, alarms))
        ax.plot(alarms, found, color=shades[name], label=_wrapped(f"{name}: AUC {area:.2f}"))
    ax.plot([0, 1], [0, 1], ls="--", lw=1.2, color=CHANCE, label="guessing: AUC 0.50", zorder=1)
    for i, (name, point) in enumerate(marks.items()):
        reached = f"sensitivity {point.sensitivity:.2f}, specificity {point.specificity:.2f}"
        _mark(ax, i, 1 - point.specificity, point.sensitivity, f"{_named(name, point)}\n{reached}")
    _frame(ax)
    ax.set_xlabel(f"false alarms: share of the others called {positive_name}")
    ax.set_ylabel(f"sensitivity: share of {positive_name} found")
    return ax


@style()
def precision_recall_curve(
    labels: ArrayLike,
    probs: ArrayLike | Mapping[str, ArrayLike],
    *,
    title: str,
    positive: int = 0,
    positive_name: str = "malignant",
    mark: Mark | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the precision-recall curve of one model or of several, with the line of guessing.

    Drawn in steps, because precision between two thresholds is attained by none (Davis and
    Goadrich 2006). The area under the steps is the average precision. Guessing has the precision
    of calling everybody ill, which is their share: compare curves of one part only.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`, or such an array per name.
        title: What the curves show.
        positive: The class to be found; 0 is malignant in the course's sets.
        positive_name: Its name, for the axes.
        mark: An operating point on a curve, or several by name, as in `roc`.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If shapes disagree, `labels` lack the class or everything else, or a mark lies
            on none of the curves.

    >>> probs = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    >>> ax = precision_recall_curve([0, 1, 1], probs, title="No false alarm needed")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['model: average precision 1.00', 'guessing: 0.33']
    """
    several = probs if isinstance(probs, Mapping) else {"model": probs}
    curves = {n: precision_recall(labels, rows, positive=positive) for n, rows in several.items()}
    marks = _checked_marks(mark, curves, labels, positive)
    ax = canvas(title, ax, height=4.6)
    shades = colours_for(several)
    for name, table in curves.items():
        recall, precision = table["recall"].to_numpy(), table["precision"].to_numpy()
        mean = float(np.diff(recall, prepend=0) @ precision)
        steps = np.append(0, recall), np.append(precision[0], precision)
        words = _wrapped(f"{name}: average precision {mean:.2f}")
        ax.plot(*steps, drawstyle="steps-pre", color=shades[name], label=words)
    share = float(np.mean(np.asarray(labels) == positive))
    ax.axhline(share, ls="--", lw=1.2, color=CHANCE, label=f"guessing: {share:.2f}", zorder=1)
    for i, (name, point) in enumerate(marks.items()):
        reached = f"sensitivity {point.sensitivity:.2f}, precision {point.precision:.2f}"
        _mark(ax, i, point.sensitivity, point.precision, f"{_named(name, point)}\n{reached}")
    _frame(ax)
    ax.set_xlabel(f"sensitivity (recall): share of {positive_name} found")
    ax.set_ylabel("precision: share of calls that are right")
    return ax


def _checked_marks(
    mark: Mark | None, curves: Mapping[str, pd.DataFrame], labels: ArrayLike, positive: int
) -> Mapping[str, OperatingPoint]:
    marks = {} if mark is None else mark if isinstance(mark, Mapping) else {"": mark}
    ill = int((np.asarray(labels) == positive).sum())
    for point in marks.values():
        counted = point.found + point.missed == ill and point.positive == positive
        if not counted or not any(_on(table, point) for table in curves.values()):
            raise ValueError(
                f"the mark lies on none of the curves ({point}): count it on these predictions "
                f"with metrics.at_threshold, positive={positive}; a precision-recall curve has no "
                "point where nobody is called ill"
            )
    return marks


def _on(table: pd.DataFrame, point: OperatingPoint) -> bool:
    # The last row calls everybody, so it knows how many others there are.
    others = point.alarms + point.cleared == table["alarms"].iloc[-1]
    return bool(
        others & ((table["found"] == point.found) & (table["alarms"] == point.alarms)).any()
    )


def _named(name: str, point: OperatingPoint) -> str:
    return _wrapped(f"{name}, threshold {point.threshold:.3f}:".removeprefix(", "))


def _wrapped(words: str) -> str:
    return textwrap.fill(words, 34)  # what fits beside the square


def _mark(ax: Axes, number: int, x: float, y: float, words: str) -> None:
    shape = MARKERS[number % len(MARKERS)]
    ax.plot([x], [y], shape, ms=9, mfc="white", mec="black", mew=1.8, zorder=5, label=words)


def _frame(ax: Axes) -> None:
    ax.set_aspect("equal", anchor="W")
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(-0.01, 1.01)
    # Beside the square, where no curve can run through the words.
    ax.legend(loc="lower left", bbox_to_anchor=(1.02, 0))
