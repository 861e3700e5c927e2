"""How every picture of the course looks, and how it is shown with its alt text."""

from __future__ import annotations

import base64
import html
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from tlcourse.runtime import in_notebook

WIDTH = 7.5
"""Width of a figure in inches: fits JupyterLab's cells beside an open file browser."""
OKABE_ITO = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky blue": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#7F7F7F",
}


GUESS = OKABE_ITO["yellow"]
CHANCE_COLOUR = "#555555"
MARKERS = "osD^vPX<>"

# The first row whose words occur in a name gives its colour: "fine-tuned from ImageNet" is
# fine-tuned. Tasks wear the colour of what they are about: cancer as malignant, texture as HOG.
_MEANINGS = (
    (r"your guess", "yellow"),
    (r"malignant|cancers?|tumou?rs?", "vermillion"),
    (r"benign|normal", "blue"),
    (r"fine-?tun\w*", "purple"),
    (r"random|scratch|untrained", "grey"),
    (r"pretrained|imagenet|frozen", "green"),
    (r"hog|hand-?made|textures?", "orange"),
    (r"pixels?", "sky blue"),
    (r"edges?|orientation", "black"),
)


_SPARE = ("black", "purple", "sky blue", "orange", "green", "blue", "vermillion", "grey")
_LOOK: Any = {
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "figure.titlesize": 13,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "image.cmap": "viridis",
    "figure.figsize": (WIDTH, 4.0),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    # A dark Lab theme must not swallow black text: the figure brings its own white paper.
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def course_style() -> Iterator[None]:
    """Draw in the look of the course: as a context, or as a decorator of a function that draws.

    Font 11, 7.5 inches wide, 110 dots per inch, no top and right spines, white paper in light
    and dark themes. What was set before comes back afterwards.

    >>> with course_style():
    ...     plt.rcParams["figure.dpi"]
    110.0
    """
    with plt.rc_context(_LOOK):
        yield


def colour(name: str) -> str | None:
    """Return the colour that `name` wears throughout the course, or None if it has none.

    >>> colour("malignant"), colour("ImageNet features"), colour("brick")
    ('#D55E00', '#009E73', None)
    """
    for words, key in _MEANINGS:
        if re.search(rf"(?<![a-z])(?:{words})(?![a-z])", name.lower()):
            return OKABE_ITO[key]
    return None


def colours_for(names: Iterable[str], chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a colour per name: `chosen`, else the fixed meaning, else one not yet in the figure.

    >>> colours_for(["pretrained", "random", "brick"])
    {'pretrained': '#009E73', 'random': '#7F7F7F', 'brick': '#000000'}
    """
    names = list(dict.fromkeys(names))
    found = dict(chosen or {})
    for name in names:
        meant = colour(name)
        if name not in found and meant is not None and meant not in found.values():
            found[name] = meant
    free = [OKABE_ITO[key] for key in _SPARE if OKABE_ITO[key] not in found.values()]
    left = [name for name in names if name not in found]
    found |= {name: (free or ["#000000"])[i % max(len(free), 1)] for i, name in enumerate(left)}
    return {name: found[name] for name in names}


def ink(shade: str) -> str:
    """Return `shade` darkened until text in it reads on white (contrast 4.5, WCAG 2.2 AA).

    >>> ink("#000000"), ink("#E69F00") != "#E69F00"
    ('#000000', True)
    """
    rgb = np.array(to_rgb(shade))
    while (1.05 / (_luminance(rgb) + 0.05)) < 4.5:
        rgb = rgb * 0.95
    return to_hex((rgb[0], rgb[1], rgb[2]))


def canvas(title: str, height: float = 4.0) -> Axes:
    """Return the axes of a new figure under `title`, about `height` inches high.

    Raises:
        ValueError: If `title` is empty.
    """
    return sheet(title, height).add_subplot()


def sheet(title: str, height: float) -> Figure:
    """Return a new figure, its `title` over all of it from the left edge, wrapped to its width."""
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f"title must say what the figure shows, got {title!r}")
    wrapped = textwrap.fill(title.strip(), int(10 * WIDTH))
    # Room for what was wrapped, so that a long title costs the picture nothing.
    figure = plt.figure(figsize=(WIDTH, height + 0.22 * wrapped.count("\n")))
    figure.suptitle(wrapped, x=0.01, ha="left")
    return figure


def check_names(
    names: Iterable[object], known: Iterable[object], what: str, *, of: str = "the frame has"
) -> None:
    """Say which of the `names` that `what` gives is none of the `known` ones."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"{what} names {name!r}; {of} {known}")


def label_ends(
    ax: Axes, ends: Mapping[str, tuple[float, float]], shades: Mapping[str, str]
) -> None:
    """Write each name right of its line's last point `(x, y)`, moved apart where they would touch.

    Call it last: it takes the limits of the axes as they are.
    """
    # Reading the limits makes matplotlib settle them; before that transData is out of date.
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    names = sorted(ends, key=lambda name: ends[name][1])
    to_axes = ax.transData + ax.transAxes.inverted()
    wanted = np.array([to_axes.transform(ends[name])[1] for name in names])
    texts = [textwrap.fill(name, 20, break_on_hyphens=False) for name in names]
    places = _apart(wanted, [text.count("\n") + 1 for text in texts], ax)
    for name, text, place in zip(names, texts, places, strict=True):
        ax.annotate(
            text,
            ends[name],
            (1.04, float(place)),
            textcoords="axes fraction",
            va="center",
            color=ink(shades[name]),
            fontsize=10,
            arrowprops={"arrowstyle": "-", "color": shades[name], "lw": 0.7, "shrinkB": 5},
        )


def tick_names(ax: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    """Name ticks on the x axis; where names would touch, lean them over."""
    letters = sum(len(name) + 2 for name in names)
    crowded = letters * 0.08 > 0.75 * _width(ax)
    look: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(list(places), labels=list(names), **(look if crowded else {}))


def tick_sizes(ax: Axes, sizes: Sequence[float]) -> None:
    """Mark sizes on a log x axis in plain figures; where two would touch, the larger is named."""
    inches = 0.7 * _width(ax) / (np.log(sizes[-1] / sizes[0]) or 1.0)
    labels = [f"{size:,.0f}" for size in sizes]
    for i in range(len(sizes) - 2, -1, -1):
        following = next(j for j in range(i + 1, len(sizes)) if labels[j])
        needed = 0.045 * (len(labels[i]) + len(labels[following]) + 2)
        if inches * np.log(sizes[following] / sizes[i]) < needed:
            labels[i] = ""
    ax.set_xticks(list(sizes), labels=labels)
    ax.minorticks_off()


def _width(ax: Axes) -> float:
    return float(ax.get_position().width * ax.figure.figure.get_figwidth())


def _luminance(rgb: np.ndarray[Any, Any]) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _apart(wanted: np.ndarray[Any, Any], lines: list[int], ax: Axes) -> np.ndarray[Any, Any]:
    # The nearest places, in least squares, that keep the order and leave a line's height between
    # neighbours: an isotonic regression once the needed gaps are taken off.
    figure = ax.figure.figure
    line = 14 / 72 / (ax.get_position().height * figure.get_figheight() * 0.9)
    heights = np.array(lines) * line
    offsets = np.concatenate([[0.0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
    return np.asarray(isotonic_regression(wanted - offsets).x + offsets)


def show(target: Axes | Figure | Iterable[Any], *, alt: str = "") -> None:
    """Display a figure in a notebook with `alt` as the text that screen readers speak.

    The picture is sent as an HTML image, because JupyterLab 4.6 ignores the `alt` metadata that
    `IPython.display.Image` attaches to a PNG, and so does nbconvert's Lab template
    (github.com/jupyter/enhancement-proposals/issues/120). The figure is closed after that, so
    that the notebook does not show it again. Outside notebooks nothing is shown or closed.

    Args:
        target: What a function of `plots` returned: axes, an array of axes, or a figure.
        alt: What a reader who does not see the figure must know: kind of plot, axes, finding.

    Raises:
        ValueError: If `alt` is missing or empty.
        TypeError: If `target` is no figure and holds no axes.

    >>> show(plt.figure(), alt="An empty sheet.")
    >>> show(plt.figure())
    Traceback (most recent call last):
    ValueError: alt must describe the figure for readers who do not see it, got ''
    """
    figure, words = _figure_of(target), _checked_alt(alt)
    if not in_notebook():
        return
    from IPython.display import display

    bundle = {"text/html": as_html(figure, alt=words), "text/plain": words}
    display(bundle, raw=True)  # type: ignore[no-untyped-call]


def as_html(target: Axes | Figure | Iterable[Any], *, alt: str) -> str:
    """Return a figure as an HTML image with its text, and close it: for pages and widgets.

    Args:
        target: What a function of `plots` returned: axes, an array of axes, or a figure.
        alt: What a reader who does not see the figure must know: kind of plot, axes, finding.

    Raises:
        ValueError: If `alt` is missing or empty.
        TypeError: If `target` is no figure and holds no axes.

    >>> page = as_html(plt.figure(), alt="An empty sheet.")
    >>> page[:32], page[-23:]
    ('<img src="data:image/png;base64,', ' alt="An empty sheet.">')
    """
    figure, words = _figure_of(target), html.escape(" ".join(_checked_alt(alt).split()), quote=True)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=figure.dpi, bbox_inches="tight", pad_inches=0.08)
    plt.close(figure)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{words}">'


def _checked_alt(alt: str) -> str:
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt must describe the figure for readers who do not see it, got {alt!r}")
    return alt.strip()


def _figure_of(target: Any) -> Figure:
    if isinstance(target, Figure):
        return target
    axes = [target] if isinstance(target, Axes) else list(np.ravel(np.array(target, dtype=object)))
    if not axes or not all(isinstance(ax, Axes) for ax in axes):
        raise TypeError(f"show needs axes or a figure, got {type(target).__name__}")
    return axes[0].figure.figure
