"""Draw class counts, scores with their intervals, and the most probable answers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from tlcourse.metrics.intervals import Interval
from tlcourse.plots.grids import framed, picture_of
from tlcourse.plots.style import (
    CHANCE_COLOUR,
    GUESS,
    MARKERS,
    OKABE_ITO,
    canvas,
    check_names,
    colour,
    colours_for,
    course_style,
)

if TYPE_CHECKING:
    from tlcourse.datasets.base import ImageSet


@course_style()
def class_counts(data: ImageSet, *, title: str) -> Axes:
    """Draw how many images of each class every split holds, the count on each bar.

    Args:
        data: What `load_images` returned: parts `train`, `val`, `test`, and `classes`.
        title: What the counts show.

    >>> from types import SimpleNamespace as Part
    >>> part = Part(labels=np.array([0, 1, 1]))
    >>> data = Part(train=part, val=part, test=part, classes=("malignant", "benign"))
    >>> len(class_counts(data, title="One in three is malignant").patches)
    6
    """
    ax = canvas(title, height=3.4)
    shades = colours_for(data.classes)
    splits = {"training": data.train, "validation": data.val, "test": data.test}
    width = 0.8 / len(data.classes)
    for i, name in enumerate(data.classes):
        counts = [int((np.asarray(part.labels) == i).sum()) for part in splits.values()]
        places = np.arange(3) + (i - (len(data.classes) - 1) / 2) * width
        bars = ax.bar(places, counts, width * 0.94, color=shades[name], label=name)
        ax.bar_label(bars, fontsize=10, padding=2)
    ax.set_xticks(range(3), labels=list(splits))
    ax.set_xlabel("split")
    ax.set_ylabel("images")
    ax.margins(y=0.12)
    ax.legend(title="class", alignment="left")
    return ax


@course_style()
def score_bars(
    scores: Mapping[str, Interval],
    *,
    title: str,
    xlabel: str = "test AUC",
    ylabel: str = "method",
    reference: Mapping[str, float] | None = None,
    reference_name: str = "published",
    guess: Mapping[str, float | EllipsisType] | None = None,
    chance: float | None = None,
    colours: Mapping[str, str] | None = None,
) -> Axes:
    """Draw a dot with its interval per name, the figures written at the right.

    Args:
        scores: `Interval(estimate, low, high)` per name.
        title: What the scores show.
        xlabel: What the score is.
        ylabel: What the names are.
        reference: Published scores by name, drawn as open diamonds.
        reference_name: What the reference is, for the legend.
        guess: What the learner expected, by name, marked with a star; `...` draws none.
        chance: The score of guessing, drawn dashed.
        colours: Colour per name; names without one get the course's.

    Raises:
        ValueError: If there is no name, an estimate lies outside its interval, or reference or
            guess name something else.

    >>> ax = score_bars({"pretrained": Interval(0.9, 0.8, 0.95)}, title="Far above guessing")
    >>> [text.get_text() for text in ax.texts]
    ['0.90 [0.80, 0.95]']
    """
    _check_intervals(scores)
    names = list(scores)
    guesses = {k: v for k, v in (guess or {}).items() if not isinstance(v, EllipsisType)}
    ax = canvas(title, height=1.5 + 0.48 * len(names) + 0.3 * bool(reference or guesses))
    # Names stand beside their dots, so two of one meaning may share its colour.
    meant = {name: shade for name in names if (shade := colour(name))}
    shades = colours_for(names, {**meant, **(colours or {})})
    for i, (name, (estimate, low, high)) in enumerate(scores.items()):
        ax.plot([low, high], [i, i], lw=3, color=shades[name], solid_capstyle="butt")
        ax.plot(estimate, i, MARKERS[0], ms=9, color=shades[name], mec="white")
        figures = f"{estimate:.2f} [{low:.2f}, {high:.2f}]"
        ax.text(1.02, i, figures, transform=ax.get_yaxis_transform(), va="center", fontsize=10)
    _marks(ax, names, reference, "D", reference_name, "reference", {"mfc": "none", "mec": "black"})
    _marks(ax, names, guesses, "*", "your guess", "guess", {"mfc": GUESS, "mec": "black", "ms": 16})
    if chance is not None:
        ax.axvline(chance, ls="--", lw=1.2, color=CHANCE_COLOUR, zorder=0, label="chance")
    ax.set_yticks(range(len(names)), labels=[textwrap.fill(name, 26) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel(f"{xlabel}, 95 % interval")
    ax.set_ylabel(ylabel)
    ax.tick_params(axis="y", length=0)
    if ax.get_legend_handles_labels()[0]:
        drop = -0.6 / ax.figure.figure.get_figheight()
        ax.legend(loc="upper left", bbox_to_anchor=(0, drop), ncols=3)
    return ax


def _check_intervals(scores: Mapping[str, Interval]) -> None:
    if not scores:
        raise ValueError("scores must hold at least one name, got none")
    for name, (estimate, low, high) in scores.items():
        if not low <= estimate <= high:
            raise ValueError(f"the estimate of {name!r} lies outside its interval")


def _marks(
    ax: Axes,
    names: Sequence[str],
    values: Mapping[str, float] | None,
    marker: str,
    label: str,
    what: str,
    look: dict[str, object],
) -> None:
    if not values:
        return
    check_names(values, names, what, of="the scores have")
    rows = [names.index(name) for name in values]
    ax.plot(list(values.values()), rows, marker, ls="none", label=label, **({"ms": 9} | look))  # type: ignore[arg-type]


@course_style()
def top_predictions(
    probs: ArrayLike,
    names: Sequence[str],
    *,
    title: str,
    k: int = 5,
    image: ArrayLike | None = None,
) -> Axes:
    """Draw the `k` most probable answers of one image as horizontal bars.

    Args:
        probs: `(C,)`, of one image.
        names: The C class names.
        title: What the answers show.
        k: How many answers, at most C.
        image: The image itself, `(H, W)` or `(H, W, 3)`, drawn in the corner that bars leave free.

    Raises:
        ValueError: If shapes disagree.

    >>> ax = top_predictions([0.1, 0.7, 0.2], ["cat", "cup", "dog"], title="A cup", k=2)
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['cup', 'dog']
    """
    row = np.asarray(probs, dtype=float)
    if row.ndim != 1 or len(row) != len(names):
        raise ValueError(f"expected probs ({len(names)},), one per name, got {row.shape}")
    if not 1 <= k <= len(row):
        raise ValueError(f"k must lie in 1..{len(row)}, got {k}")
    best = np.argsort(-row, kind="stable")[:k]
    ax = canvas(title, height=1.3 + 0.38 * k)
    bars = ax.barh(range(k), row[best], 0.7, color=OKABE_ITO["green"])
    shares = [f"{100 * p:.1f} %" if p >= 0.0005 else "< 0.1 %" for p in row[best]]
    ax.bar_label(bars, shares, fontsize=10, padding=4)
    ax.set_yticks(range(k), labels=[textwrap.fill(names[i], 30) for i in best])
    ax.invert_yaxis()
    # Up to 1, or a timid 4 % would look like a sure answer.
    ax.set_xlim(0, 1)
    ax.set_xlabel(f"probability among {len(row):,} classes")
    ax.set_ylabel("answer")
    if image is not None:
        # Probabilities add up to one, so below the first bar none reaches far to the right.
        framed(ax.inset_axes((0.66, 0.04, 0.33, 0.74), anchor="SE"), picture_of(image))
    return ax
