"""Draw what a model answers: probabilities, the most probable names."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from tlcourse.metrics.scores import check_predictions
from tlcourse.plots.grids import framed, pictures_of
from tlcourse.plots.style import CHANCE_COLOUR, OKABE_ITO, canvas, colours_for, ink, style


@style()
def score_distribution(
    labels: ArrayLike,
    probs: ArrayLike,
    classes: Sequence[str],
    *,
    title: str,
    of: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw each image's predicted probability of class `of`, a row per true class, a dot per image.

    Args:
        labels: `(N,)`.
        probs: `(N, C)`.
        classes: Names of the C classes.
        title: What the dots show.
        of: The class whose probability is drawn; 0 is malignant in the course's sets.
        ax: Draw here instead of in a new figure.

    Raises:
        ValueError: If shapes disagree.

    >>> probs = np.array([[0.9, 0.1], [0.3, 0.7]])
    >>> ax = score_distribution([0, 1], probs, ["malignant", "benign"], title="Told apart")
    >>> ax.get_xlabel()
    'predicted probability of malignant'
    """
    labels, probs = check_predictions(labels, probs)
    _check_classes(classes, probs.shape[1], of)
    ax = canvas(title, ax, height=1.4 + 0.9 * len(classes))
    shades = colours_for(classes)
    rng = np.random.default_rng(0)
    for i, name in enumerate(classes):
        score = probs[labels == i, of]
        height = i + rng.uniform(-0.28, 0.28, len(score))
        ax.scatter(score, height, s=22, color=shades[name], alpha=0.65, edgecolors="none")
        if len(score):
            ax.plot([np.median(score)] * 2, [i - 0.38, i + 0.38], color="black", lw=2)
    if len(classes) == 2:
        ax.axvline(0.5, ls="--", lw=1.2, color=CHANCE_COLOUR, zorder=0)
        ax.text(0.51, -0.5, f"called {classes[of]} →", va="top", fontsize=9, color=CHANCE_COLOUR)
    counts = [int((labels == i).sum()) for i in range(len(classes))]
    names = [f"{textwrap.fill(c, 16)}\n({n} images)" for c, n in zip(classes, counts, strict=True)]
    ax.set_yticks(range(len(classes)), labels=names)
    for text, name in zip(ax.get_yticklabels(), classes, strict=True):
        text.set_color(ink(shades[name]))
    ax.set_ylim(len(classes) - 0.45, -0.62)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(f"predicted probability of {classes[of]}")
    ax.set_ylabel("true class (bar: median)")
    return ax


@style()
def top_predictions(
    probs: ArrayLike,
    names: Sequence[str],
    *,
    title: str,
    k: int = 5,
    image: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the `k` most probable answers of one image as horizontal bars.

    Args:
        probs: `(C,)`, of one image.
        names: The C class names.
        title: What the answers show.
        k: How many answers, at most C.
        image: The image itself, `(H, W)` or `(H, W, 3)`, drawn in the corner that bars leave free.
        ax: Draw here instead of in a new figure.

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
    ax = canvas(title, ax, height=1.3 + 0.38 * k)
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
        picture = pictures_of(np.asarray(image)[None])[0]
        framed(ax.inset_axes((0.66, 0.04, 0.33, 0.74), anchor="SE"), picture, "#999999", 0.8)
    return ax


def _check_classes(classes: Sequence[str], count: int, of: int) -> None:
    if len(classes) != count:
        raise ValueError(
            f"expected {count} class names, one per column of probs, got {len(classes)}"
        )
    if not 0 <= of < count:
        raise ValueError(f"of must name a class in 0..{count - 1}, got {of}")
