"""Remake the published tables in data/results.

    python -m tools.publish_results           # all lessons, on the real and on the simulated images
    python -m tools.publish_results 01        # one lesson

The real images must be at hand (TLCOURSE_DATA or data/cache); each lesson runs in a process of its
own, once per image set, with the environment that chooses the set.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys

import studies

SETS = ("real", "simulated")


def lessons(prefix: str = "") -> list[str]:
    """Name the modules of `studies` whose lesson number starts with `prefix`.

    >>> lessons("00")
    ['lesson00']
    """
    names = [module.name for module in pkgutil.iter_modules(studies.__path__)]
    return sorted(name for name in names if name.startswith(f"lesson{prefix}"))


def publish(lesson: str, images: str) -> int:
    """Run one lesson's computations on one image set in a fresh process; return its exit code."""
    environment = {**os.environ, "TLCOURSE_IMAGES": images}
    command = [sys.executable, "-m", "tools.publish_results", "--here", lesson]
    return subprocess.run(command, env=environment).returncode


def main(arguments: list[str]) -> int:
    """Publish every lesson that `arguments` name, on both image sets."""
    if arguments[:1] == ["--here"]:
        for path in importlib.import_module(f"studies.{arguments[1]}").publish():
            print(path)
        return 0
    chosen = lessons(arguments[0] if arguments else "")
    if not chosen:
        print(f"no lesson {arguments[0]!r} in studies", file=sys.stderr)
        return 2
    return max(publish(lesson, images) for lesson in chosen for images in SETS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
