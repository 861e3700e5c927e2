"""Keep small tables of published results: numbers with the command that remakes them."""

from __future__ import annotations

import os
import subprocess
from itertools import takewhile
from pathlib import Path

import pandas as pd

from tlcourse.files import written_whole
from tlcourse.runtime import chosen_folder, environment_report, repository_root, versions


class ResultUnavailable(FileNotFoundError):
    """A published table is not where it should be."""


def results_dir() -> Path:
    """Return the folder of published tables: `TLCOURSE_RESULTS`, or `data/results` here.

    Raises:
        ResultUnavailable: If the package does not run from a checkout of the course.
    """
    chosen = os.environ.get("TLCOURSE_RESULTS")
    if chosen:
        return chosen_folder(chosen)
    root = repository_root()
    if root is None:
        raise ResultUnavailable(
            "published results live in data/results of the course's checkout: "
            "run from one, or set TLCOURSE_RESULTS to that folder"
        )
    return root / "data" / "results"


def save_table(table: pd.DataFrame, name: str, *, command: str, note: str) -> Path:
    """Write `table` as `name`.csv, headed by comment lines that say how it was made.

    Args:
        table: Tidy rows; a column a variable. Floats are kept to five digits.
        name: File name without ending, such as `"01_learning_curves"`.
        command: The command that remakes the table.
        note: What was measured: data set, seeds, settings, in one line.

    Returns:
        The path written. The file appears whole or not at all.
    """
    used = ", ".join(f"{package} {version}" for package, version in versions().items())
    lines = [f"# {note}", f"# command: {command}", f"# versions: {used}"]
    lines += [f"# machine: {_machine()}", f"# commit: {_commit()}"]
    rows = table.to_csv(index=False, float_format="%.5g", lineterminator="\n")
    path = results_dir() / f"{name}.csv"
    with written_whole(path) as partial:
        partial.write_text("\n".join([*lines, rows]), encoding="utf-8")
    return path


def load_table(name: str) -> pd.DataFrame:
    """Read a published table; its comment lines are in `.attrs` (note, command, versions, ...).

    Raises:
        ResultUnavailable: If there is no such table; the message lists those there are.
    """
    path = results_dir() / f"{name}.csv"
    if not path.is_file():
        there = sorted(p.stem for p in results_dir().glob("*.csv"))
        raise ResultUnavailable(
            f"no published table {name!r} in {results_dir()}; there are: {there}"
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("# ") for line in takewhile(lambda x: x.startswith("#"), lines)]
    table = pd.read_csv(path, skiprows=len(comments))
    table.attrs["note"] = "".join(comments[:1])
    table.attrs.update(comment.partition(": ")[::2] for comment in comments[1:])
    return table


def _machine() -> str:
    report = environment_report()
    names = ("system", "device", "cores", "memory")
    return ", ".join(f"{name} {report[name]}" for name in names)


def _commit() -> str:
    """Name the code that computes: its commit, and whether files differ from it."""
    root = repository_root()
    if root is None:
        return "none: not run from a checkout"
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown: git does not know this checkout"
