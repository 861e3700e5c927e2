"""Show a report inside a notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML


def preview(page: Path | str, *, height: int = 420) -> HTML:
    """Return a report as a frame that a notebook draws under the cell.

    The page is copied into the frame, so it stays when the file is removed, and the frame is
    closed to scripts.

    Args:
        page: What `write_report` wrote.
        height: Of the frame, in pixels; the page scrolls inside.

    Returns:
        What to leave as the last line of a cell.

    Raises:
        FileNotFoundError: If there is no such file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     page = Path(folder) / "report.html"
        ...     _ = page.write_text("<p>AUC &lt; 1</p>", encoding="utf-8")
        ...     "&lt;p&gt;AUC &amp;lt; 1" in preview(page).data
        True
    """
    # IPython comes with JupyterLab; a script that only writes reports does without
    from IPython.display import HTML

    text = escape(Path(page).read_text(encoding="utf-8"))
    style = f"width: 100%; height: {height}px; border: 1px solid #999999"
    # in a div: IPython advises against a bare iframe, but IFrame can only point to a file
    frame = f'<iframe title="Report" sandbox="" style="{style}" srcdoc="{text}"></iframe>'
    return HTML(f"<div>{frame}</div>")  # type: ignore[no-untyped-call]
