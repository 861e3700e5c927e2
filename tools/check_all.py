"""Run every check of the repository and say how long each took.

    make test        (or: python -m tools.check_all [--lessons])

Style, types, unit tests with doctests, then every learner and solution notebook under nbval.
`--lessons` runs the notebooks alone (CI does so a second time where the real images are).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STYLE = ["tlcourse", "studies", "tools", "benchmarks", "tests", "notebooks/src"]


def unit_steps() -> dict[str, list[str]]:
    """Return the steps that need no lesson, as arguments of `python -m`."""
    return {
        "ruff check": ["ruff", "check", *STYLE, *notebooks()],
        "ruff format": ["ruff", "format", "--check", *STYLE, *notebooks()],
        "mypy": ["mypy"],
        "unit tests": ["pytest", "-q", *parallel(), "tests", "tlcourse", "studies", "tools"],
    }


def lesson_steps() -> dict[str, list[str]]:
    """Return the step that runs every lesson: lax, since outputs are held by assertions."""
    nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600"]
    return {"lessons (nbval)": ["pytest", "-q", *nbval, *parallel(), *notebooks()]}


def notebooks() -> list[str]:
    """List learner and solution copies."""
    folders = [ROOT / "notebooks", ROOT / "notebooks" / "solutions"]
    return [p.relative_to(ROOT).as_posix() for f in folders for p in sorted(f.glob("*.ipynb"))]


def parallel() -> list[str]:
    """Spread files over the cores; loadfile keeps a notebook's cells on one worker."""
    return ["-n", str(cores()), "--dist", "loadfile"]


def cores() -> int:
    """Count usable cores, four at most: each worker holds a torch of its own in memory."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(2)
    return max(1, min(4, len(usable)))


def run(steps: dict[str, list[str]]) -> int:
    """Run the steps, all of them, and print a table; return 0 if every one passed."""
    # One thread a worker: several workers with all cores each only wait for each other.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    rows = []
    for name, arguments in steps.items():
        print(f"\n== {name}", flush=True)
        started = time.perf_counter()
        if "nbval" in name:
            environment.pop("MPLBACKEND", None)  # notebooks draw inline
        code = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=environment)
        minutes = (time.perf_counter() - started) / 60
        rows.append((name, minutes, code.returncode))
    print(f"\n{'step':<20}{'minutes':>9}  verdict")
    for name, minutes, returned in rows:
        print(f"{name:<20}{minutes:>9.1f}  {'passed' if returned == 0 else 'FAILED'}")
    return max(returned != 0 for _, _, returned in rows)


def main(arguments: list[str]) -> int:
    """Run all steps, or with --lessons the lessons alone."""
    parser = argparse.ArgumentParser(prog="python -m tools.check_all")
    parser.add_argument("--lessons", action="store_true", help="only the notebooks")
    options = parser.parse_args(arguments)
    return run(lesson_steps() if options.lessons else {**unit_steps(), **lesson_steps()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
