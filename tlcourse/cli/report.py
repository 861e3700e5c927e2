"""`tlcourse report`: put what `tlcourse train` came to on one page."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import matplotlib as mpl

from tlcourse.reports.page import write_report

REFUSALS = (OSError, ValueError)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("folder", type=Path, help="what `tlcourse train --out` names")
    parser.add_argument("--out", type=Path, help="an .html file (default: report.html there)")


def run(options: Namespace) -> int:
    """Write the page for the folder of a finished training; return 0."""
    mpl.use("Agg")  # draws without a screen
    print(f"report in {write_report(options.folder, out=options.out)}")
    return 0
