"""Draw what a detector is worth: confusion matrices, ROC curves, reliability."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from tlcourse.metrics.calibration import reliability
from tlcourse.metrics.operating_points import OperatingPoint
from tlcourse.metrics.scores import confusion, precision_recall, roc_points
from tlcourse.plots.style import (
    CHANCE_COLOUR,
    MARKERS,
    WIDTH,
    canvas,
    colours_for,
    course_style,
    ink,
    sheet,
)

_DASHED: dict[str, Any] = {"ls": "--", "lw": 1.2, "color": CHANCE_COLOUR, "zorder": 1}


@course_style()
def confusion_matrix(
    labels: ArrayLike, predictions: ArrayLike, classes: Sequence[str], *, title: str
) -> Axes:
    """Draw how many images of each true class (rows) got each answer (columns).

    Args:
        labels: True classes `(N,)`.
        predictions: Answered classes `(N,)`, integers: `probs.argmax(axis=1)`.
        classes: Names of the C classes.
        title: What the counts show.

    Raises:
        ValueError: If shapes or classes disagree.

    >>> ax = confusion_matrix([0, 1, 1], [0, 1, 0], ["malignant", "benign"], title="A false alarm")
    >>> ax.texts[0].get_text().split()
    ['1', '100', '%']
    """
    counts = _counts(labels, predictions, len(classes))
    ax = canvas(title, height=1.7 + 0.95 * len(classes))
    _draw_counts(ax, counts, classes)
    return ax


@course_style()
def confusion_matrices(
    labels: ArrayLike, predictions: Mapping[str, ArrayLike], classes: Sequence[str], *, title: str
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

    >>> predicted = {"timid": [1, 1, 1], "bold": [0, 0, 1]}
    >>> axes = confusion_matrices([0, 1, 1], predicted, ["malignant", "benign"], title="Two models")
    >>> [ax.get_title() for ax in axes]
    ['timid', 'bold']
    """
    if not predictions:
        raise ValueError("expected the answers of one model or more, got none")
    figure = sheet(title, 1.5 + WIDTH * 0.8 / len(predictions))
    axes = figure.subplots(1, len(predictions), squeeze=False)[0]
    for ax, (name, predicted) in zip(axes, predictions.items(), strict=True):
        _draw_counts(ax, _counts(labels, predicted, len(classes)), classes)
        ax.set_title(textwrap.fill(name, 42))
    for ax in axes[1:]:
        ax.set_ylabel("")
        ax.set_yticks([])
    return np.asarray(axes)


def _counts(labels: ArrayLike, predictions: ArrayLike, count: int) -> NDArray[np.int64]:
    truth, predicted = np.asarray(labels), np.asarray(predictions)
    if truth.ndim != 1 or predicted.shape != truth.shape:
        raise ValueError(
            f"expected labels (N,) and predictions (N,), got {truth.shape}, {predicted.shape}; "
            "of probabilities take probs.argmax(axis=1)"
        )
    if not np.issubdtype(predicted.dtype, np.integer):
        raise ValueError(f"predictions must be class numbers, got {predicted.dtype}")
    if len(predicted) and not 0 <= predicted.min() <= predicted.max() < count:
        raise ValueError(f"predictions must lie in 0..{count - 1}, the {count} classes named")
    return confusion(truth, np.eye(count)[predicted])


def _draw_counts(ax: Axes, counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.set_anchor("W")
    ax.imshow(shares, cmap="Greys", vmin=0, vmax=1.25)
    for (i, j), count in np.ndenumerate(counts):
        shade = "white" if shares[i, j] > 0.75 else "black"
        text = f"{count:,}\n{100 * shares[i, j]:.0f} %"
        ax.text(j, i, text, ha="center", va="center", color=shade, linespacing=1.3)
    wrapped = [textwrap.fill(name, 14) for name in classes]
    shades = colours_for(classes)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(range(len(classes)), labels=wrapped)
        for label, name in zip(axis.get_ticklabels(), classes, strict=True):
            label.set_color(ink(shades[name]))
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_xlabel("answered class")
    ax.set_ylabel("true class\n(rows sum to 100 %)")


Mark = OperatingPoint | Mapping[str, OperatingPoint]


@course_style()
def roc(
    labels: ArrayLike,
    probs: ArrayLike | Mapping[str, ArrayLike],
    *,
    title: str,
    positive: int = 0,
    positive_name: str = "malignant",
    mark: Mark | None = None,
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
    several = _by_name(probs)
    tables = {n: roc_points(labels, rows, positive=positive) for n, rows in several.items()}
    marks = _checked_marks(mark, tables, labels, positive)
    lines, points = {}, {}
    for name, table in tables.items():
        alarms, found = 1 - table["specificity"].to_numpy(), table["sensitivity"].to_numpy()
        lines[f"{name}: AUC {np.trapezoid(found, alarms):.2f}"] = alarms, found
    for name, point in marks.items():
        words = _words(name, point, f"specificity {point.specificity:.2f}")
        points[words] = 1 - point.specificity, point.sensitivity
    ax = _in_square(title, lines, ("guessing: AUC 0.50", (0, 1)), points)
    ax.set_xlabel(f"false alarms: share of the others called {positive_name}")
    ax.set_ylabel(f"sensitivity: share of {positive_name} found")
    return ax


@course_style()
def precision_recall_curve(
    labels: ArrayLike,
    probs: ArrayLike | Mapping[str, ArrayLike],
    *,
    title: str,
    positive: int = 0,
    positive_name: str = "malignant",
    mark: Mark | None = None,
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

    Raises:
        ValueError: If shapes disagree, `labels` lack the class or everything else, or a mark lies
            on none of the curves.

    >>> probs = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]])
    >>> ax = precision_recall_curve([0, 1, 1], probs, title="No false alarm needed")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['model: average precision 1.00', 'guessing: 0.33']
    """
    several = _by_name(probs)
    tables = {n: precision_recall(labels, rows, positive=positive) for n, rows in several.items()}
    marks = _checked_marks(mark, tables, labels, positive)
    lines, points = {}, {}
    for name, table in tables.items():
        recall, precision = table["recall"].to_numpy(), table["precision"].to_numpy()
        mean = np.diff(recall, prepend=0) @ precision
        steps = np.append(0, recall), np.append(precision[0], precision)
        lines[f"{name}: average precision {mean:.2f}"] = steps
    for name, point in marks.items():
        words = _words(name, point, f"precision {point.precision:.2f}")
        points[words] = point.sensitivity, point.precision
    share = float(np.mean(np.asarray(labels) == positive))
    guessing = f"guessing: {share:.2f}", (share, share)
    ax = _in_square(title, lines, guessing, points, drawstyle="steps-pre")
    ax.set_xlabel(f"sensitivity (recall): share of {positive_name} found")
    ax.set_ylabel("precision: share of calls that are right")
    return ax


def _by_name(probs: ArrayLike | Mapping[str, ArrayLike]) -> Mapping[str, ArrayLike]:
    return probs if isinstance(probs, Mapping) else {"model": probs}


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


def _words(name: str, point: OperatingPoint, second: str) -> str:
    heading = f"{name}, threshold {point.threshold:.3f}:".removeprefix(", ")
    return f"{_wrapped(heading)}\nsensitivity {point.sensitivity:.2f}, {second}"


def _wrapped(words: str) -> str:
    return textwrap.fill(words, 34)  # what fits beside the square


def _in_square(
    title: str,
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    guessing: tuple[str, tuple[float, float]],
    points: Mapping[str, tuple[float, float]],
    **look: Any,
) -> Axes:
    """Draw curves, the line of guessing and marks by their words in the legend, all from 0 to 1."""
    ax = canvas(title, height=4.6)
    shades = colours_for(lines)
    for words, (x, y) in lines.items():
        ax.plot(x, y, color=shades[words], label=_wrapped(words), **look)
    ax.plot([0, 1], guessing[1], label=guessing[0], **_DASHED)
    for i, (words, place) in enumerate(points.items()):
        shape = MARKERS[i % len(MARKERS)]
        ax.plot(*place, shape, ms=9, mfc="white", mec="black", mew=1.8, zorder=5, label=words)
    ax.set_aspect("equal", anchor="W")
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    # Beside the square, where no curve can run through the words.
    ax.legend(loc="lower left", bbox_to_anchor=(1.02, 0))
    return ax


@course_style()
def reliability_curve(
    labels: ArrayLike,
    probs: ArrayLike | Mapping[str, ArrayLike],
    *,
    title: str,
    bins: int = 10,
    positive: int | None = None,
    positive_name: str = "malignant",
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

    Raises:
        ValueError: If shapes disagree, `bins` is below 1 or `positive` is no class.

    >>> probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    >>> ax = reliability_curve([0, 1, 1], probs, title="Surer than right")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['model: off by 0.33', 'honest']
    """
    several = _by_name(probs)
    tables = {n: reliability(labels, rows, bins, positive=positive) for n, rows in several.items()}
    ax = canvas(title, height=4.6)
    shades = colours_for(several)
    most = max(int(table["images"].max()) for table in tables.values())
    for i, (name, table) in enumerate(tables.items()):
        said, true, images = (table[c].to_numpy() for c in ("confidence", "observed", "images"))
        reach = np.array([true - table["low"], table["high"] - true]).clip(0)
        look: dict[str, Any] = {"color": shades[name], "marker": MARKERS[i % len(MARKERS)]}
        gap = float(np.average(abs(said - true), weights=images))
        words = _wrapped(f"{name}: off by {gap:.2f}")
        ax.plot(said, true, ms=6, lw=1.2, label=words, **look)
        ax.scatter(said, true, s=20 + 160 * images / most, zorder=3, **look)
        ax.errorbar(said, true, reach, fmt="none", ecolor=shades[name], capsize=3, elinewidth=1)
    ax.plot([0, 1], [0, 1], label="honest", **_DASHED)
    least = 0.0 if positive is not None else 1 / np.shape(next(iter(several.values())))[1]
    ax.set(xlim=(least - 0.02, 1.02), ylim=(-0.02, 1.02))
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
