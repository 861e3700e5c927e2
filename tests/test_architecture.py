"""The house stands as DESIGN says: imports run downward, the package's root stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tlcourse"
FLOORS = [
    {"runtime", "errors", "allocation", "metrics", "descriptors", "storage", "corruptions"},
    {"results", "anatomy", "checkpoints"},
    {"lesions", "scanner", "bloodcells"},
    {"phantom", "cellshapes"},
    {"datasets", "families", "weights"},
    {"stages", "preprocessing", "smears"},
    {"backbones"},
    {"similarity", "observe", "batches", "movement", "onestep"},
    {"freezing", "classic", "probes", "calibration", "views", "folding", "augmentations"},
    {"features", "optim", "history", "releasing", "costs"},
    {"settings", "boundary"},
    {"feeding", "describing"},
    {"loop"},
    {"probing", "training", "attribution", "patches", "firststeps"},
    {"inspection", "heads"},
    {"experiments", "plots"},
    {"detectors"},
    {"reports"},
    {"checks", "widgets", "runner", "doctor", "bench"},
    {"__main__"},
]


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def floor_of(name):
    for number, names in enumerate(FLOORS):
        if name in names:
            return number
    raise AssertionError(f"tlcourse/{name} stands on no floor: add it to FLOORS in this test")


def imported(path):
    """Names of the package's modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tlcourse":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: relative import; name tlcourse in full")
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("tlcourse.")}
    return found


def name_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_run_downward(path):
    own = name_of(path)
    for other in imported(path) - {own, "__version__"}:
        assert floor_of(other) < floor_of(own), f"{own} may not import {other}"


def test_there_is_no_cycle_within_the_checks():
    machinery = PACKAGE / "checks" / "machinery.py"
    assert imported(machinery) == set()


def test_only_widgets_imports_ipywidgets():
    users = [p for p in modules() if "ipywidgets" in p.read_text(encoding="utf-8")]
    assert {name_of(p) for p in users} <= {"widgets", "doctor"}


def test_importing_the_package_alone_is_light():
    code = "import sys, tlcourse; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_functions_stay_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= 40, f"{path.name}: {node.name} has {lines} lines"
