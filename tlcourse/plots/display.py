"""Show a figure in a notebook with a text for readers who do not see it."""

from __future__ import annotations

import base64
import html
import io
import sys
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


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
    if not _in_notebook():
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


def _in_notebook() -> bool:
    # Only a kernel has a front end that can show pictures; a terminal or a script has none.
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return hasattr(get_ipython(), "kernel")
