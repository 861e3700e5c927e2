"""Put what a training came to on one HTML page, and show it in a notebook."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tlcourse.detectors.artifacts import DETECTOR, Artifacts, read_artifacts
from tlcourse.files import written_whole
from tlcourse.metrics.intervals import Interval
from tlcourse.reports import figures as pictures

if TYPE_CHECKING:
    from IPython.display import HTML


REPORT = "report.html"
SCORE_TEXTS = {
    "auc": "AUC (0.5 is guessing, 1 ranks every pair rightly)",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy (mean over classes)",
    "log_loss": "log loss, nats (less is better)",
    "calibration_error": "calibration error (0 is honest)",
}


SPLIT_TEXTS = {
    "grouped": "were dealt out at random, 70/10/20, each class in its share; images that correlate "
    "strongly with each other were kept in one part",
    "official": "stand as they came: only their maker knows whether one patient is in two of them",
    "patient": "were made by patient: all images of one patient are in one part",
    "image": "were dealt out image by image, nothing kept together: images of one patient, or near "
    "copies, stand in two parts, so every score flatters",
}
"""What a page says of each of `datasets.base.PARTITIONS`."""


def escape_markdown(text: object) -> str:
    r"""Return text on one line whose signs Markdown and HTML show and do not obey.

    >>> escape_markdown("a|b <i>_c_")
    'a\\|b &lt;i&gt;\\_c\\_'
    """
    words = escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_|\[\]~#$])", r"\\\1", words)


PAGES = Environment(
    loader=PackageLoader("tlcourse.reports"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
"""The templates of the pages: what is given to HTML is escaped, in Markdown it needs `plain`."""
PAGES.filters["plain"] = escape_markdown


def write_report(folder: Path | str, *, out: Path | str | None = None) -> Path:
    """Write what a finished training came to as one HTML file that opens offline.

    Pictures are inside, with a text each; nothing is fetched, no script runs. Names of classes
    and files are escaped.

    Args:
        folder: What `train_detector` or `tlcourse train` wrote.
        out: The file; None: `report.html` in the folder.

    Returns:
        The file, which is there whole or not at all.

    Raises:
        InvalidOutcome: If the folder holds no finished training.
    """
    artifacts = read_artifacts(folder)
    path = Path(folder) / REPORT if out is None else Path(out)
    page = render(artifacts)
    with written_whole(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def render(artifacts: Artifacts) -> str:
    """Return the page of a training as HTML."""
    run, test = artifacts.run, artifacts.run["scores"]["test"]
    return PAGES.get_template("report.html").render(
        run=run,
        data=run["data"],
        plan=run["training"],
        headline=f"test AUC {_figures(test['auc'])} on {len(artifacts.predictions)} images",
        split_text=SPLIT_TEXTS[run["data"]["partition"]],
        counts=_counts(run["data"]),
        scores=_scores(run["scores"]),
        moves=_moves(run["training"]),
        wrong=int((artifacts.predictions["label"] != artifacts.predictions["answer"]).sum()),
        tested=len(artifacts.predictions),
        detector=DETECTOR,
        pictures={
            "rates": pictures.draw_rates(artifacts),
            "curves": pictures.draw_history(artifacts),
            "confusion": pictures.draw_confusion(artifacts),
            "roc": pictures.draw_roc(artifacts),
            "mistakes": pictures.draw_mistakes(artifacts),
        },
    )


def _figures(score: Any) -> str:
    return str(Interval(**score)) if isinstance(score, dict) else f"{score:.3f}"


def _scores(scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, test figures and validation figure of each score."""
    test, val = scores["test"], scores["val"]
    return [
        (text, _figures(test[key]), _figures(val[key]) if key in val else "")
        for key, text in SCORE_TEXTS.items()
    ]


def _counts(data: dict[str, Any]) -> list[tuple[str, list[int]]]:
    """Return class, images in each part, images in all."""
    parts = data["counts"].values()
    rows = [(name, [part[name] for part in parts]) for name in data["classes"]]
    return [(name, [*counts, sum(counts)]) for name, counts in rows]


def _moves(plan: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return each stage with its rate and the epoch from which it moves."""
    given = {group["name"]: group["lr"] for group in plan["rates"]}
    order, rows = plan["stages"], []
    # A stage is released with all above it.
    unfrozen = {order.index(name): epoch for name, epoch in plan["unfreeze_at"].items()}
    for place, name in enumerate(order):
        since = [epoch for lowest, epoch in unfrozen.items() if lowest <= place]
        start = 1 if name not in plan["frozen"] else min(since, default=None)
        when = "never: frozen" if start is None else f"epoch {start}"
        rows.append((name, f"{given[name]:.3g}" if name in given else "none", when))
    return rows


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
