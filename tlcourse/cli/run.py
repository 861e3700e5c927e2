"""`tlcourse run`: execute lessons without a browser and say how each went."""

from __future__ import annotations

import json
import os
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm.auto import tqdm

from tlcourse.files import written_whole
from tlcourse.runtime import repository_root

CELL_TIMEOUT = 600
"""Seconds a single cell may take."""

START_TIMEOUT = 60
"""Seconds a kernel may take until it answers."""

REFUSALS = (FileNotFoundError,)


@dataclass(frozen=True)
class LessonRun:
    """What became of one lesson: name, wall seconds, peak memory in MB, verdict."""

    lesson: str
    seconds: float
    peak_memory_mb: float
    verdict: str

    @property
    def passed(self) -> bool:
        """True if every cell ran."""
        return self.verdict == "passed"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("prefix", nargs="?", default="", help="only lessons that start so, like 02")
    parser.add_argument("--solutions", action="store_true", help="the complete copies")
    table = Path("build/run.json")
    parser.add_argument("--json", type=Path, default=table, help="where the table goes")
    parser.add_argument("--limit", type=float, help="seconds that no lesson may exceed")


def run(options: Namespace) -> int:
    """Execute the lessons and print and save how they went; return 0 if all passed, else 1."""
    runs = run_lessons(
        find_lessons(solutions=options.solutions, prefix=options.prefix), limit=options.limit
    )
    save_json(runs, options.json)
    print(format_table(runs))
    return 0 if all(lesson.passed for lesson in runs) else 1


def find_lessons(*, solutions: bool = False, prefix: str = "") -> list[Path]:
    """List the lesson notebooks of this checkout, in order.

    Args:
        solutions: The complete copies in place of the learner's.
        prefix: Only lessons whose name starts so, such as `"02"`.

    Raises:
        FileNotFoundError: If there is no such lesson.
    """
    root = repository_root()
    folder = (root or Path.cwd()) / "notebooks" / ("solutions" if solutions else "")
    found = sorted(folder.glob(f"{prefix}*.ipynb"))
    if not found:
        raise FileNotFoundError(
            f"no lesson {prefix}*.ipynb in {folder}: run this from the course's checkout"
        )
    return found


def run_lessons(
    paths: list[Path], *, limit: float | None = None, progress: bool = True
) -> list[LessonRun]:
    """Execute the notebooks one after the other; nothing is written to them.

    Args:
        paths: Notebooks.
        limit: Seconds that no lesson may exceed; one that does has not passed.
        progress: Show a bar that advances with every cell.

    Returns:
        One row per notebook, failures included: also of a file that cannot be read and of a
        kernel that does not start.
    """
    books = [(path, _read(path)) for path in paths]
    total = sum(len(book.cells) for _, book in books if not isinstance(book, str))
    with tqdm(total=total, unit="cell", disable=not progress) as bar:
        runs = [
            LessonRun(path.stem, 0.0, 0.0, book)
            if isinstance(book, str)
            else run_lesson(path, book, bar)
            for path, book in books
        ]
    return [_with_verdict(run, limit) for run in runs]


def _read(path: Path) -> nbformat.NotebookNode | str:
    """Return the notebook in a file, or the verdict on a file that holds none."""
    try:
        book: nbformat.NotebookNode = nbformat.read(path, as_version=4)
        nbformat.validate(book)
    # A damaged file makes nbformat raise whatever it stumbles on.
    except Exception as error:
        return f"cannot be read: {_reason(error)}"
    return book


def _with_verdict(run: LessonRun, limit: float | None) -> LessonRun:
    if limit is None or not run.passed or run.seconds <= limit:
        return run
    return replace(run, verdict=f"took {run.seconds:.0f} s, {limit:.0f} are allowed")


def run_lesson(path: Path, book: nbformat.NotebookNode, bar: tqdm | None = None) -> LessonRun:
    """Execute one notebook in a fresh kernel.

    >>> book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    >>> run_lesson(Path("sum.ipynb"), book).verdict
    'passed'
    """
    client = NotebookClient(
        book,
        timeout=CELL_TIMEOUT,
        startup_timeout=START_TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_complete=lambda cell, cell_index: bar.update() if bar is not None else None,
    )
    if bar is not None:
        bar.set_description(path.stem)
    started = time.perf_counter()
    verdict, peak = _execute(client)
    return LessonRun(path.stem, round(time.perf_counter() - started, 1), round(peak, 0), verdict)


def _execute(client: NotebookClient) -> tuple[str, float]:
    """Return verdict and peak memory in MB; whatever goes wrong is a verdict."""
    peak, place = [0.0], "the kernel did not start"
    try:
        with client.setup_kernel(), _watch_memory(client, peak):
            for index, cell in enumerate(client.nb.cells):
                place = f"cell {index + 1}"
                client.execute_cell(cell, index)
            place = "the kernel did not end"
    # Jupyter raises anything from FileNotFoundError to RuntimeError; the other lessons shall run.
    except Exception as error:
        return f"{place}: {_reason(error)}", peak[0]
    return "passed", peak[0]


def _reason(error: Exception) -> str:
    if isinstance(error, CellExecutionError):
        return f"{error.ename}: {error.evalue}"
    if isinstance(error, CellTimeoutError):
        return f"took over {CELL_TIMEOUT} s"
    if isinstance(error, DeadKernelError):
        return "the kernel died (out of memory?)"
    return f"{type(error).__name__}: {error}"


@contextmanager
def _watch_memory(client: NotebookClient, peak: list[float]) -> Iterator[None]:
    """Sample the kernel's resident memory four times a second; the peak in MB goes to `peak[0]`."""
    provisioner = getattr(client.km, "provisioner", None)
    process = psutil.Process(getattr(provisioner, "pid", None) or os.getpid())
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.25):
            try:
                peak[0] = max(peak[0], process.memory_info().rss / 2**20)
            except psutil.Error:
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def format_table(runs: list[LessonRun]) -> str:
    """Lay the runs out as a table for a terminal; of a long verdict, its first line.

    >>> print(format_table([LessonRun("00_meet", 31.2, 812.0, "passed")]))
    lesson                        seconds   peak MB  verdict
    00_meet                          31.2       812  passed
    total                            31.2
    """
    width = max([28, *(len(run.lesson) for run in runs)])
    rows = [f"{'lesson':<{width}}{'seconds':>9}{'peak MB':>10}  verdict"]
    for run in runs:
        verdict = run.verdict.partition("\n")[0]
        row = f"{run.lesson:<{width}}{run.seconds:>9.1f}{run.peak_memory_mb:>10.0f}  {verdict}"
        rows.append(row)
    rows.append(f"{'total':<{width}}{sum(run.seconds for run in runs):>9.1f}")
    return "\n".join(rows)


def save_json(runs: list[LessonRun], path: Path) -> None:
    """Write the runs as JSON, whole or not at all."""
    rows = [{**asdict(run), "passed": run.passed} for run in runs]
    with written_whole(path) as partial:
        partial.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
