"""Draw class counts, and scores with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tlcourse.metrics.intervals import Interval
from tlcourse.plots.style import CHANCE_COLOUR, GUESS, MARKERS, canvas, colour, colours_for, style

if TYPE_CHECKING:
    from tlcourse.datasets.base import ImageSet


@style()
def class_counts(data: ImageSet, *, title: str, ax: Axes | None = None) -> Axes:
    """Draw how many images of each class every split holds, the count on each bar.

    Args:
        data: What `load_images` returned: parts `train`, `val`, `test`, and `classes`.
        title: What the counts show.
        ax: Draw here instead of in a new figure.

    >>> from types import SimpleNamespace as Part
    >>> part = Part(labels=np.array([0, 1, 1]))
    >>> data = Part(train=part, val=part, test=part, classes=("malignant", "benign"))
    >>> len(class_counts(data, title="One in three is malignant").patches)
    6
    """
    ax = canvas(title, ax, height=3.4)
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


@style()
def score_bars(
    scores: Mapping[str, Interval] | pd.DataFrame,
    *,
    title: str,
    xlabel: str = "test AUC",
    ylabel: str = "method",
    reference: Mapping[str, float] | None = None,
    reference_name: str = "published",
    guess: Mapping[str, float | EllipsisType] | None = None,
    chance: float | None = None,
    colours: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a dot with its interval per name, the figures written at the right.

    Args:
        scores: `Interval(estimate, low, high)` per name, or a table indexed by name with columns
            estimate, low, high.
        title: What the scores show.
        xlabel: What the score is.
        ylabel: What the names are.
        reference: Published scores by name, drawn as open diamonds.
        reference_name: What the reference is, for the legend.
        guess: What the learner expected, by name, marked with a star; `...` draws none.
        chance: The score of guessing, drawn dashed.
        colours: Colour per name; names without one get the course's.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If columns lack, an estimate lies outside its interval, or reference or guess
            name something else.

    >>> ax = score_bars({"pretrained": Interval(0.9, 0.8, 0.95)}, title="Far above guessing")
    >>> [text.get_text() for text in ax.texts]
    ['0.90 [0.80, 0.95]']
    """
    table = _intervals(scores)
    names = [str(name) for name in table.index]
    guesses = {k: v for k, v in (guess or {}).items() if not isinstance(v, EllipsisType)}
    ax = canvas(title, ax, height=1.5 + 0.48 * len(names) + 0.3 * bool(reference or guesses))
    # Names stand beside their dots, so two of one meaning may share its colour.
    meant = {name: shade for name in names if (shade := colour(name))}
    shades = colours_for(names, {**meant, **(colours or {})})
    for i, (name, row) in enumerate(zip(names, table.to_numpy(dtype=float), strict=True)):
        estimate, low, high = row
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


def _intervals(scores: Mapping[str, Interval] | pd.DataFrame) -> pd.DataFrame:
    if not isinstance(scores, pd.DataFrame):
        scores = pd.DataFrame.from_dict(
            {name: tuple(values) for name, values in scores.items()},
            orient="index",
            columns=["estimate", "low", "high"],
        )
    missing = [c for c in ("estimate", "low", "high") if c not in scores.columns]
    if missing:
        raise ValueError(f"scores need columns estimate, low, high, found {list(scores.columns)}")
    if scores.empty:
        raise ValueError("scores must hold at least one name, got none")
    wrong = scores[
        ~((scores["low"] <= scores["estimate"]) & (scores["estimate"] <= scores["high"]))
    ]
    if len(wrong):
        raise ValueError(f"the estimate of {wrong.index[0]!r} lies outside its interval")
    return scores[["estimate", "low", "high"]]


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
    unknown = [name for name in values if name not in names]
    if unknown:
        raise ValueError(f"{what} names {unknown[0]!r}; the scores have {list(names)}")
    rows = [names.index(name) for name in values]
    ax.plot(list(values.values()), rows, marker, ls="none", label=label, **({"ms": 9} | look))  # type: ignore[arg-type]
