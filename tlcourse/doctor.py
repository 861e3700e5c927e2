"""Examine this machine: can the course run, and if not, which command mends it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import psutil

from tlcourse import backbones, datasets
from tlcourse.runtime import MINIMUM_MEMORY_GB, data_dirs, environment_report

FETCH = f"{sys.executable} -m tlcourse fetch"
"""Works whether or not the environment is activated."""

REQUIRED = ("torch", "torchvision", "sklearn", "skimage", "matplotlib", "jupyterlab", "ipywidgets")


class Finding(NamedTuple):
    """One thing examined: `ok` True, False (the course cannot run) or None (it can, with less)."""

    what: str
    ok: bool | None
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        sign = {True: "ok     ", False: "MISSING", None: "note   "}[self.ok]
        mend = f"\n         mend it: {self.remedy}" if self.remedy and not self.ok else ""
        return f"{sign}  {self.what}: {self.detail}{mend}"


def examine() -> list[Finding]:
    """Examine packages, memory, weights and images; every finding is reported, none raises."""
    examiners: list[Callable[[], Finding]] = [_packages, _memory, _weights, _images]
    return [_guarded(examiner) for examiner in examiners]


def report(findings: list[Finding]) -> str:
    """Lay out the machine's facts and the findings for a terminal."""
    facts = "\n".join(f"         {key}: {value}" for key, value in environment_report().items())
    end = "the course can run" if can_run(findings) else "the course cannot run yet"
    return "\n".join(["machine", facts, *map(str, findings), end])


def can_run(findings: list[Finding]) -> bool:
    """Tell whether nothing that the course needs is missing.

    >>> can_run([Finding("images", None, "simulated")])
    True
    """
    return all(finding.ok is not False for finding in findings)


def _guarded(examiner: Callable[[], Finding]) -> Finding:
    try:
        return examiner()
    except Exception as error:  # a doctor that stops at the first wound helps nobody
        name = examiner.__name__.lstrip("_")
        return Finding(name, False, f"{type(error).__name__}: {error}", "make setup")


def _packages() -> Finding:
    missing = [name for name in REQUIRED if not _imports(name)]
    if missing:
        return Finding("packages", False, f"cannot import {', '.join(missing)}", "make setup")
    return Finding("packages", True, f"{len(REQUIRED)} import")


def _imports(name: str) -> bool:
    try:
        import_module(name)
    except Exception:  # a broken install raises anything, an ABI error among it
        return False
    return True


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 2**30
    enough = free >= MINIMUM_MEMORY_GB
    detail = f"{free:.1f} GB free, {MINIMUM_MEMORY_GB:.0f} GB wanted"
    return Finding("memory", True if enough else None, detail, "close other programs")


def _weights() -> Finding:
    path = backbones.checkpoint_path("mobilenet_v2")
    if not path.is_file():
        return Finding("weights", False, f"nothing at {path}", FETCH)
    if not _sha256(path.read_bytes()).startswith(path.stem.rpartition("-")[2]):
        return Finding("weights", False, f"{path} is damaged", f"delete {path}, then {FETCH}")
    return Finding("weights", True, str(path))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _images() -> Finding:
    try:
        path = datasets.find_breastmnist(size=64)
    except (NotADirectoryError, datasets.InvalidDataset) as error:
        return Finding("images", False, str(error), "set TLCOURSE_DATA to a folder, or unset it")
    except datasets.DatasetUnavailable:
        searched = ", ".join(map(str, data_dirs()))
        detail = f"BreastMNIST not in {searched}: lessons run on the simulated set"
        return Finding("images", None, detail, f"{FETCH}, or set TLCOURSE_DATA")
    return Finding("images", True, str(path))
