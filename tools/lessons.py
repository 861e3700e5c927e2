"""Make the learner and the solution copy of every lesson from its source.

A lesson is written once, as `notebooks/src/NN_verb_object.py` in jupytext's percent format:

* a cell tagged `instructor` goes into neither copy;
* between `# BEGIN SOLUTION` and `# END SOLUTION` stand the solution's lines and, as comments that
  start with `# STUB: `, what the learner's copy holds in their place;
* every other cell is the same in both copies.

nbgrader's ClearSolutions does the same with one stub text for all; here each exercise needs its
own (`answer = ...`), and nbgrader would bring its menus into Lab.

    python -m tools.lessons            # learner copies, solution copies run and stored with outputs
    python -m tools.lessons 01         # only the lessons whose name starts so
    python -m tools.lessons --check    # writes nothing; says which copies are out of step
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from tlcourse.files import written_whole

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "notebooks" / "src"
LEARNER = ROOT / "notebooks"
SOLUTIONS = ROOT / "notebooks" / "solutions"
BEGIN, STUB, END = "# BEGIN SOLUTION", "# STUB:", "# END SOLUTION"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def sources(prefix: str = "") -> list[Path]:
    """List the lesson sources whose name starts with `prefix`, in order."""
    return sorted(SOURCES.glob(f"{prefix}[0-9]*.py" if not prefix else f"{prefix}*.py"))


def learner_copy(source: Path) -> NotebookNode:
    """Return what a learner gets: stubs in place of solutions, no outputs."""
    return derive(source, learner_text)


def solution_copy(source: Path) -> NotebookNode:
    """Return the complete lesson, not yet executed."""
    return derive(source, solution_text)


def derive(source: Path, change: Callable[[str], str]) -> NotebookNode:
    """Read `source`, drop the instructor's cells and change the text of each code cell."""
    read = jupytext.read(source, fmt="py:percent")
    book: NotebookNode = nbformat.v4.new_notebook(
        metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    seen: Counter[str] = Counter()
    for cell in read.cells:
        tags = cell.metadata.get("tags", [])
        if "instructor" in tags:
            continue
        made = made_cell(cell, change, cell_id(source.stem, cell.source, seen))
        if tags:
            made.metadata["tags"] = list(tags)
        book.cells.append(made)
    nbformat.validate(book)
    return book


def made_cell(cell: NotebookNode, change: Callable[[str], str], name: str) -> NotebookNode:
    """Return the cell with the id `name`; code is changed, text is not."""
    if cell.cell_type == "code":
        made: NotebookNode = nbformat.v4.new_code_cell(change(cell.source), id=name)
        return made
    text: NotebookNode = nbformat.v4.new_markdown_cell(cell.source, id=name)
    return text


def cell_id(stem: str, text: str, seen: Counter[str]) -> str:
    """Return an id that stays the same while lesson and text stay the same: quiet diffs."""
    seen[text] += 1
    return hashlib.sha256(f"{stem}|{seen[text]}|{text}".encode()).hexdigest()[:12]


def learner_text(text: str) -> str:
    """Put the stubs in the place of the solutions."""
    return "\n".join(
        re.sub(rf"{STUB} ?", "", line) for line, role in lines(text) if role in {"both", "stub"}
    )


def solution_text(text: str) -> str:
    """Keep the solutions, drop the stubs and the markers."""
    return "\n".join(line for line, role in lines(text) if role in {"both", "solution"})


def lines(text: str) -> list[tuple[str, str]]:
    """Give each line its role: both, solution, stub or marker.

    Raises:
        ValueError: If a marker has no partner or a solution has no stub.
    """
    found, inside, stubs = [], False, 0
    for line in text.splitlines():
        bare = line.strip()
        if bare in (BEGIN, END):
            if (bare == BEGIN) == inside or (bare == END and stubs == 0):
                raise ValueError(f"marker without partner, or solution without stub:\n{text}")
            inside, stubs = bare == BEGIN, 0
            found.append((line, "marker"))
            continue
        is_stub = inside and bare.startswith(STUB)
        stubs += is_stub
        found.append((line, "stub" if is_stub else "solution" if inside else "both"))
    if inside:
        raise ValueError(f"{BEGIN} without {END}:\n{text}")
    return found


def execute(book: NotebookNode) -> NotebookNode:
    """Run every cell on the simulated set, so that no patient's image enters the outputs."""
    from nbclient import NotebookClient

    os.environ["TLCOURSE_IMAGES"] = "simulated"
    os.environ.pop("TLCOURSE_DATA", None)
    client = NotebookClient(book, timeout=300, kernel_name="python3", record_timing=False)
    client.execute(cwd=str(SOLUTIONS))
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        drop_dead_widgets(cell)
    book.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return book


def drop_dead_widgets(cell: NotebookNode) -> None:
    """Drop progress bars, and of explorers all but their picture: no kernel is behind them."""
    if cell.cell_type != "code":
        return
    view = "application/vnd.jupyter.widget-view+json"
    kept = []
    for output in cell.outputs:
        if view not in output.get("data", {}):
            kept.append(output)
        elif "text/html" in output.data and "<img" in output.data["text/html"]:
            del output.data[view]
            kept.append(output)
    cell.outputs = kept


def same_cells(made: NotebookNode, stored: Path) -> bool:
    """Tell whether the stored notebook has the cells that the source gives, outputs aside."""
    if not stored.is_file():
        return False
    there = nbformat.read(stored, as_version=4)
    return [key(cell) for cell in made.cells] == [key(cell) for cell in there.cells]


def key(cell: NotebookNode) -> tuple[object, ...]:
    """Return what makes a cell the same cell."""
    return cell.cell_type, cell.id, cell.source, tuple(cell.metadata.get("tags", []))


def write(book: NotebookNode, path: Path) -> None:
    """Write the notebook, whole or not at all."""
    with written_whole(path) as partial:
        nbformat.write(book, partial)


def build(source: Path, *, run: bool) -> None:
    """Write both copies of one lesson."""
    name = f"{source.stem}.ipynb"
    write(learner_copy(source), LEARNER / name)
    solution = solution_copy(source)
    force = bool(os.environ.get("FORCE"))
    if run and (force or not same_cells(solution, SOLUTIONS / name)):
        if not carry_outputs(solution, SOLUTIONS / name):
            solution = execute(solution)
        write(solution, SOLUTIONS / name)
    print(f"{name}: built", flush=True)


def carry_outputs(solution: NotebookNode, stored: Path) -> bool:
    """Take the stored outputs over if only prose changed since; tell whether that was so.

    FORCE=1 in the environment asks for a new run whatever changed.
    """
    if os.environ.get("FORCE") or not stored.is_file():
        return False
    there = nbformat.read(stored, as_version=4)
    old, new = ([c for c in book.cells if c.cell_type == "code"] for book in (there, solution))
    if [cell.source for cell in old] != [cell.source for cell in new]:
        return False
    for cell, run in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = run.outputs, run.execution_count
    return True


def out_of_step() -> list[str]:
    """List the copies that differ from what their source gives, and those without a source."""
    stale = []
    for source in sources():
        name = f"{source.stem}.ipynb"
        if not same_cells(learner_copy(source), LEARNER / name):
            stale.append(f"notebooks/{name}")
        if not same_cells(solution_copy(source), SOLUTIONS / name):
            stale.append(f"notebooks/solutions/{name}")
    names = {source.stem for source in sources()}
    for copy in [*LEARNER.glob("*.ipynb"), *SOLUTIONS.glob("*.ipynb")]:
        if copy.stem not in names:
            stale.append(f"{copy.relative_to(ROOT).as_posix()} (no source)")
    return stale


def main(arguments: list[str]) -> int:
    """Build, or with --check only compare."""
    parser = argparse.ArgumentParser(prog="python -m tools.lessons")
    parser.add_argument("prefix", nargs="?", default="", help="build only lessons that start so")
    parser.add_argument("--check", action="store_true", help="write nothing, list stale copies")
    parser.add_argument("--no-run", action="store_true", help="learner copies only")
    options = parser.parse_args(arguments)
    if options.check:
        stale = out_of_step()
        print("\n".join([*stale, "run: make lessons"]) if stale else "all copies are in step")
        return 1 if stale else 0
    for source in sources(options.prefix):
        build(source, run=not options.no_run)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
