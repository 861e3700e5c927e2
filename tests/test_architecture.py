"""The house stands as docs/architecture.md says: floors, no circle, a small package."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tlcourse"
BUILDINGS = {"tlcourse": {"tlcourse"}, "studies": {"tlcourse", "studies"}}
"""Which of this repository's packages each may import; tools and benchmarks may import all."""
LONGEST_FUNCTION = 40
SMALL = 60
"""Lines of code below which a module is a fragment rather than a room."""


def floors():
    """Rooms by floor, from the one table that says so."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", text, flags=re.M)
    return {room: int(floor) for floor, rooms in rows for room in re.findall(r"`(\w+)", rooms)}


FLOORS = floors()


def modules(building="tlcourse"):
    return sorted((ROOT / building).rglob("*.py"))


def dotted(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def room_of(name):
    """The room of a module's dotted name, such as backbones of tlcourse.backbones.stages."""
    return name.split(".")[1]


def imported(path):
    """Dotted names of this repository's modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; name tlcourse in full"
            inner = node.module in ("tlcourse", "studies")
            found |= {f"{node.module}.{a.name}" for a in node.names} if inner else {node.module}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    own = {
        name for name in found if name and name.split(".")[0] in ("tlcourse", "studies", "tools")
    }
    return own - {"tlcourse.__version__"}


def code_lines(path):
    """Count lines of code: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    strings = [
        range(node.lineno, node.end_lineno + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (*skipped, tokenize.ENDMARKER)
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines - {line for span in strings for line in span})


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=[dotted(path) for path in paths])


def inner_modules():
    return [p for p in modules() if p != PACKAGE / "__init__.py"]


@by_name(inner_modules())
def test_imports_run_downward(path):
    own = room_of(dotted(path))
    assert own in FLOORS, f"tlcourse/{own} stands on no floor: add it to docs/architecture.md"
    for name in imported(path):
        assert name.startswith("tlcourse."), f"{own} may not import {name}: it is no part of it"
        other = room_of(name)
        if other != own:
            assert FLOORS[other] < FLOORS[own], f"{own} may not import {other}"


@by_name(modules("studies"))
def test_studies_import_only_the_package_and_each_other(path):
    assert {name.split(".")[0] for name in imported(path)} <= BUILDINGS["studies"]


def test_every_room_on_a_floor_exists():
    there = {p.name.removesuffix(".py") for p in PACKAGE.iterdir()}
    assert set(FLOORS) <= there


def test_no_module_imports_itself_by_a_detour():
    arrows = defaultdict(set)
    for path in inner_modules():
        for name in imported(path):
            arrows[dotted(path)] |= {name} - {dotted(path)}
    done = set()

    def visit(name, way):
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(arrows[name]):
                visit(other, [*way, name])
            done.add(name)

    for name in sorted(arrows):
        visit(name, [])


def test_the_package_stays_small():
    entries = [p for p in PACKAGE.iterdir() if p.name != "__pycache__"]
    assert len(entries) <= 24, f"{len(entries)} entries in tlcourse/"
    assert len(set(FLOORS.values())) <= 9
    sizes = {p: code_lines(p) for p in modules()}
    assert sum(sizes.values()) <= 10_000
    small = [dotted(p) for p, size in sizes.items() if size < SMALL and p.name != "__init__.py"]
    assert len(small) <= 15, small


def test_only_widgets_imports_ipywidgets():
    users = [p for p in inner_modules() if "import ipywidgets" in p.read_text(encoding="utf-8")]
    assert {room_of(dotted(p)) for p in users} == {"widgets"}


def loaded_by(code):
    """Names of all modules that a fresh Python holds after `code`."""
    code += "; import sys; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_package_alone_is_light():
    assert not {"torch", "numpy"} & loaded_by("import tlcourse")


def test_training_loads_neither_simulator_nor_image_tools():
    loaded = loaded_by("from tlcourse.training import fit, predict")
    own = {name for name in loaded if name.split(".")[0] == "tlcourse"}
    assert len(own) <= 35, sorted(own)
    assert not {n for n in loaded if n.startswith(("tlcourse.simulation", "skimage"))}
    assert "pandas.plotting" not in loaded or "matplotlib" not in loaded


@by_name([*modules(), *modules("studies")])
def test_functions_stay_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= LONGEST_FUNCTION, f"{path.name}: {node.name} has {lines} lines"
