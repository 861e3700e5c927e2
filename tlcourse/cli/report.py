"""What `tlcourse report` does."""

from __future__ import annotations

import sys
from argparse import Namespace

import matplotlib as mpl

from tlcourse.reports.page import write_report


def report_command(options: Namespace) -> int:
    """Write the page for a training's folder; return 0 or 2 (there is no finished training).

    Args:
        options: `folder`, and `out` or None.
    """
    mpl.use("Agg")  # draws without a screen
    try:
        print(f"report in {write_report(options.folder, out=options.out)}")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
