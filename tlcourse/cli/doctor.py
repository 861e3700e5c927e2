"""Examine this machine: can the course run, and if not, which command mends it.

Torch is imported, as nothing else knows its device; of the other packages the files are examined,
because importing them all takes several times as long.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from tlcourse.datasets.base import InvalidDataset
from tlcourse.datasets.medmnist import DatasetUnavailable, find_breastmnist
from tlcourse.runtime import MINIMUM_MEMORY_GB, data_dirs, environment_report

FETCH = f"{sys.executable} -m tlcourse fetch"
"""Works whether or not the environment is activated."""

REQUIRED = {
    "torchvision": "torchvision",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "matplotlib": "matplotlib",
    "jupyterlab": "jupyterlab",
    "ipywidgets": "ipywidgets",
}
"""What lessons import, with the name under which it is installed; this module imports torch."""

REFUSALS = ()
CHECKPOINT = "mobilenet_v2-b0353104.pth"
"""Torchvision's name of MobileNetV2's weights, stated so that it need not be imported and asked."""


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


def add_arguments(_parser: ArgumentParser) -> None:
    """Declare nothing: the command takes no options."""


def run(_options: Namespace) -> int:
    """Print what was found; return 0 if the course can run, else 1."""
    findings = examine()
    print(report(findings))
    return 0 if can_run(findings) else 1


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
    flaws = {name: _flaw(name, installed) for name, installed in REQUIRED.items()}
    found = "; ".join(f"{name} {flaw}" for name, flaw in flaws.items() if flaw)
    if found:
        return Finding("packages", False, found, "make setup")
    return Finding("packages", True, f"torch and {len(REQUIRED)} more are whole")


def _flaw(name: str, installed: str) -> str:
    """Say what is wrong with a package, without importing it; nothing if it is whole."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:  # without origin: a folder that a removal left behind
        return "is not installed"
    # Not `files`: once a backport of importlib.metadata is loaded, that leaves lost files out.
    lost = [
        row[0]
        for found in metadata.distributions(name=installed)
        for row in csv.reader((found.read_text("RECORD") or "").splitlines())
        if not row[0].endswith(".pyc") and not Path(str(found.locate_file(row[0]))).exists()
    ]
    if lost:
        return f"lacks {len(lost)} of its files, such as {lost[0]}"
    return _operator_flaw(Path(spec.origin).parent) if name == "torchvision" else ""


def _operator_flaw(folder: Path) -> str:
    """Say why torchvision's operators do not load: they were built for one torch and no other."""
    libraries = [file for ending in EXTENSION_SUFFIXES for file in folder.glob(f"_C*{ending}")]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        torch.ops.torchvision.nms  # noqa: B018 - the look-up raises where no library holds it
    except (OSError, AttributeError) as error:
        return f"{metadata.version('torchvision')} does not fit torch {torch.__version__}: {error}"
    return ""


def _memory() -> Finding:
    free = psutil.virtual_memory().available / 2**30
    enough = free >= MINIMUM_MEMORY_GB
    detail = f"{free:.1f} GB free, {MINIMUM_MEMORY_GB:.0f} GB wanted"
    return Finding("memory", True if enough else None, detail, "close other programs")


def _weights() -> Finding:
    path = Path(torch.hub.get_dir()) / "checkpoints" / CHECKPOINT
    if not path.is_file():
        return Finding("weights", False, f"nothing at {path}", FETCH)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(path.stem.rpartition("-")[2]):
        return Finding("weights", False, f"{path} is damaged", f"delete {path}, then {FETCH}")
    return Finding("weights", True, str(path))


def _images() -> Finding:
    try:
        path = find_breastmnist(size=64)
    except (NotADirectoryError, InvalidDataset) as error:
        return Finding("images", False, str(error), "set TLCOURSE_DATA to a folder, or unset it")
    except DatasetUnavailable:
        searched = ", ".join(map(str, data_dirs()))
        detail = f"BreastMNIST not in {searched}: lessons run on the simulated set"
        return Finding("images", None, detail, f"{FETCH}, or set TLCOURSE_DATA")
    return Finding("images", True, str(path))
