"""Make the instructor's guide and the timetables from the lessons.

What an instructor needs beside the lesson stands in its source, in cells tagged `instructor`, one
per section, as a list of `Say`, `Wrong` (what people get wrong), `Ask` (the room) and `Late` (what
to skip). Minutes come from the lessons' headers, seconds from `instructor/run_times.csv`, which
`make run` on the machine named there has measured.

    python -m tools.instructor            # writes instructor/guide.md and instructor/timetables.md
    python -m tools.instructor --check    # writes nothing; says whether they are in step
    python -m tools.instructor --times build/run.json    # takes over measured seconds first
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode

from tlcourse.runtime import environment_report
from tools.lessons import ROOT, sources

FOLDER = ROOT / "instructor"
TIMES = FOLDER / "run_times.csv"
PLANS = FOLDER / "timetables.toml"
LABELS = ("Say", "Wrong", "Ask", "Late")
HEADINGS = {
    "Say": "Say",
    "Wrong": "What people get wrong",
    "Ask": "Ask the room",
    "Late": "When late",
}
DERIVED = "<!-- Made by `python -m tools.instructor` from notebooks/src: do not edit. -->"


@dataclass(frozen=True)
class Lesson:
    """What the guide needs of a lesson.

    Attributes:
        stem: Name of its files.
        title: As its first heading says.
        minutes: As its header says.
        goals: What the learner will be able to do.
        sections: Headings with the notes for each, by label.
        exercises: Heading of each exercise, its minutes included.
    """

    stem: str
    title: str
    minutes: int
    goals: list[str]
    sections: dict[str, dict[str, str]]
    exercises: list[str]


def read_lesson(source: Path) -> Lesson:
    """Read a lesson's source.

    Raises:
        ValueError: If the header lacks its minutes, or a note stands before the first section.
    """
    cells = jupytext.read(source, fmt="py:percent").cells
    first = cells[0].source
    minutes = re.search(r"\*\*Minutes:\*\* (\d+)", first)
    if minutes is None:
        raise ValueError(f"{source.name}: expected **Minutes:** in the first cell, found none")
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return Lesson(
        stem=source.stem,
        title=first.splitlines()[0].removeprefix("# "),
        minutes=int(minutes.group(1)),
        goals=re.findall(r"^- (.+(?:\n  .+)*)", first, flags=re.M),
        sections=_sections(cells, source.name),
        exercises=re.findall(r"^### (Exercise \d+ \(\d+ minutes\))", text, flags=re.M),
    )


def _sections(cells: list[NotebookNode], name: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for cell in cells:
        if "instructor" in cell.metadata.get("tags", []):
            if not found:
                raise ValueError(f"{name}: an instructor's note stands before the first section")
            found[list(found)[-1]] |= notes(cell.source, name)
        elif heading := re.search(r"^## (\d.*)$", cell.source, flags=re.M):
            found[heading.group(1)] = {}
    return found


def notes(text: str, where: str) -> dict[str, str]:
    r"""Read the labelled list of an instructor's cell.

    Raises:
        ValueError: If the cell holds anything but labelled items, or a label twice.

    >>> notes("- Say: one\n  line\n- Ask: two", "here")
    {'Say': 'one line', 'Ask': 'two'}
    """
    items = re.findall(r"^- (.+(?:\n  .+)*)", text, flags=re.M)
    pairs = [" ".join(item.split()).partition(": ")[::2] for item in items]
    known = [label for label, _ in pairs if label in LABELS]
    if not items or len(known) < len(items) or len(set(known)) < len(known):
        raise ValueError(f"{where}: expected items from {LABELS}, each once, in the note: {text!r}")
    return dict(pairs)


def guide(lessons: list[Lesson], times: dict[str, dict[str, str]]) -> str:
    """Return the guide: per lesson its minutes, goals and the notes of every section."""
    lines = [DERIVED, "", "# Notes for every lesson"]
    for lesson in lessons:
        lines += _lines(lesson, times.get(lesson.stem, {}))
    return "\n".join([*lines, ""])


def _lines(lesson: Lesson, time: dict[str, str]) -> Iterator[str]:
    seconds = f"; Run All took {float(time['seconds']):.0f} s here" if time else ""
    yield f"\n## {lesson.stem[:2]} {lesson.title}\n"
    yield f"{lesson.minutes} minutes{seconds}. Exercises: {', '.join(lesson.exercises)}.\n"
    yield "They will be able to:\n"
    yield from (f"- {' '.join(goal.split())}" for goal in lesson.goals)
    for heading, noted in lesson.sections.items():
        yield f"\n### {heading}\n"
        yield from (f"- **{HEADINGS[label]}.** {text}" for label, text in noted.items())


def timetables(lessons: list[Lesson], plans: list[dict[str, Any]]) -> str:
    """Return every plan as a table with times of day.

    Args:
        lessons: All lessons.
        plans: Tables of `timetables.toml`: `name`, `start` and `blocks`; a block is a lesson's
            number, or `[what, minutes]`.
    """
    by_number = {lesson.stem[:2]: lesson for lesson in lessons}
    parts = [DERIVED, "", "# Timetables", ""]
    parts += ["Minutes are those of the lessons' headers, exercises included.", ""]
    for plan in plans:
        parts += [f"## {plan['name']}", "", "| from | to | what | minutes |", "|---|---|---|---|"]
        parts += [*_rows(plan, by_number), ""]
    return "\n".join(parts)


def _rows(plan: dict[str, Any], by_number: dict[str, Lesson]) -> Iterator[str]:
    now = datetime.strptime(plan["start"], "%H:%M")
    for block in plan["blocks"]:
        what, minutes = _block(block, by_number)
        later = now + timedelta(minutes=minutes)
        yield f"| {now:%H:%M} | {later:%H:%M} | {what} | {minutes} |"
        now = later


def _block(block: str | list[Any], by_number: dict[str, Lesson]) -> tuple[str, int]:
    if isinstance(block, str):
        lesson = by_number[block]
        return f"{block} {lesson.title}", lesson.minutes
    what, minutes = block
    return what, minutes


def take_times(table: Path) -> None:
    """Write the seconds of `make run`'s table, with the machine, to `run_times.csv`."""
    report = environment_report()
    machine = ", ".join(f"{name} {report[name]}" for name in ("system", "cores", "memory"))
    rows = json.loads(table.read_text(encoding="utf-8"))
    lines = [f"# tlcourse run on {machine}", "lesson,seconds,peak_memory_mb"]
    lines += [f"{row['lesson']},{row['seconds']},{row['peak_memory_mb']:.0f}" for row in rows]
    TIMES.write_text("\n".join([*lines, ""]), encoding="utf-8")


def read_times() -> dict[str, dict[str, str]]:
    """Return the measured seconds by lesson."""
    if not TIMES.is_file():
        return {}
    lines = [
        line for line in TIMES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    return {row["lesson"]: row for row in csv.DictReader(lines)}


def made() -> dict[Path, str]:
    """Return what each derived file is to hold."""
    lessons = [read_lesson(source) for source in sources()]
    plans = tomllib.loads(PLANS.read_text(encoding="utf-8"))["plan"]
    return {
        FOLDER / "guide.md": guide(lessons, read_times()),
        FOLDER / "timetables.md": timetables(lessons, plans),
    }


def main(arguments: list[str]) -> int:
    """Write both files, or with --check compare them."""
    parser = argparse.ArgumentParser(prog="python -m tools.instructor")
    parser.add_argument("--check", action="store_true", help="write nothing, list stale files")
    parser.add_argument("--times", type=Path, help="a table of `make run` to take seconds from")
    options = parser.parse_args(arguments)
    if options.times:
        take_times(options.times)
    stale = [path for path, text in made().items() if not _holds(path, text)]
    if options.check:
        print("\n".join([*(p.name for p in stale), "run: make lessons"]) if stale else "in step")
        return 1 if stale else 0
    for path in stale:
        path.write_text(made()[path], encoding="utf-8")
        print(path.name)
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
