"""The house stands as docs/architecture.md says: floors, no circle, a small package."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from tlcourse.__main__ import COMMANDS
from tools import architecture
from tools.architecture import PAGE, dotted, imported, modules, room_of, rooms

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tlcourse"
BUILDINGS = {"tlcourse": {"tlcourse"}, "studies": {"tlcourse", "studies"}}
"""Which of this repository's packages each may import; tools and benchmarks may import all."""
LONGEST_FUNCTION = 40
MOST_LINES = 10_700
"""Lines of code the package may have: what it has. The plan is 10,000; lower it, never raise it."""
SMALL = 60
"""Lines of code below which a module is a fragment rather than a room."""


FLOORS = {name: room.floor for name, room in rooms().items()}


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


@by_name(inner_modules())
def test_the_package_imports_from_the_module_that_defines_a_name(path):
    if path.name == "__init__.py":
        return  # a room's own exports
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "tlcourse":
            room = ROOT.joinpath(*node.module.split("."))
            for name in (alias.name for alias in node.names if room.is_dir()):
                module = (room / name).is_dir() or (room / f"{name}.py").is_file()
                assert module or name == "__version__", f"{node.module} only hands {name} on"


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
    assert sum(sizes.values()) <= MOST_LINES
    small = [dotted(p) for p, size in sizes.items() if size < SMALL and p.name != "__init__.py"]
    assert len(small) <= 15, small


def test_only_widgets_imports_ipywidgets():
    users = [p for p in inner_modules() if "import ipywidgets" in p.read_text(encoding="utf-8")]
    assert {room_of(dotted(p)) for p in users} == {"widgets"}


@cache
def started(code, turns=3):
    """Run code in a Python of its own; return the modules it loads and its processor seconds.

    Seconds are user and system time of the process and all it starts: another program's work on
    the machine counts less there than in wall time. The best of some turns counts.
    """
    ending = "\nimport json, os, sys; print(json.dumps([sum(os.times()[:4]), [*sys.modules]]))"
    told = []
    for _ in range(turns):
        command = [sys.executable, "-c", code + ending]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        told.append(json.loads(run.stdout.splitlines()[-1]))
    return set(told[0][1]), min(seconds for seconds, _ in told)


def of_command(word):
    """Return code that runs `tlcourse` with this word."""
    return f"""
from tlcourse.__main__ import main
try:
    main([{word!r}])
except SystemExit:
    pass
"""


def test_importing_the_package_alone_is_light():
    loaded, seconds = started("import tlcourse")
    assert not {"torch", "numpy", "pandas"} & loaded
    assert seconds < 0.1 + started("")[1]


def test_help_loads_nothing_heavy():
    loaded, seconds = started(of_command("--help"))
    assert "tlcourse.__main__" in loaded
    assert not {"torch", "numpy", "pandas"} & loaded
    assert seconds < 0.2 + started("")[1]


@pytest.mark.slow
def test_the_doctor_comes_soon():
    loaded, seconds = started(of_command("doctor"), turns=2)
    assert "tlcourse.cli.doctor" in loaded
    assert not {"sklearn", "skimage", "matplotlib"} & loaded, "it looks at their files instead"
    # Seconds of torch's own import, as processors and what else they do differ by more than that.
    assert seconds < 2 * started("import torch, pandas", turns=2)[1]


def test_training_loads_neither_simulator_nor_image_tools():
    loaded, _ = started("from tlcourse.training import fit, predict", turns=1)
    own = {name for name in loaded if name.split(".")[0] == "tlcourse"}
    assert len(own) <= 35, sorted(own)
    assert not {name for name in own if name.startswith("tlcourse.simulation")}
    # pandas brings pandas.plotting itself, which is thin; what it would draw with must not come.
    assert not {"skimage", "matplotlib"} & loaded


@by_name([*modules(), *modules("studies")])
def test_functions_stay_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
            assert lines <= LONGEST_FUNCTION, f"{path.name}: {node.name} has {lines} lines"


def test_picture_and_list_of_imports_are_in_step():
    assert not architecture.stale(), "run: make lessons"


def test_the_picture_shows_every_room_and_none_over_another():
    layout = architecture.laid_out(architecture.reduced(architecture.arrows()))
    for number, floor in enumerate(layout.floors):
        there = [place for place in floor if isinstance(place, str)]
        assert set(there) == {name for name, level in FLOORS.items() if level == number}
        at = [layout.x[place] for place in there]
        assert all(right - left >= architecture.BOX for left, right in pairwise(at))
    assert max(layout.x.values()) + architecture.BOX / 2 <= architecture.WIDTH


@cache
def defined(path):
    """Names that a file defines: `function`, `CONSTANT`, `Class`, `Class.method`, `Class.field`."""
    found = set()

    def note(body, within=""):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(within + node.name)
            if isinstance(node, ast.ClassDef):
                note(node.body, f"{node.name}.")
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(within + t.id for t in targets if isinstance(t, ast.Name))

    note(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


@cache
def sources():
    """All code of the repository as one text, and all names that it defines."""
    files = [path for top in architecture.OWN for path in modules(top)]
    names = set().union(*map(defined, files), *(dotted(path).split(".") for path in files))
    texts = [path.read_text(encoding="utf-8") for path in [*files, *modules("notebooks/src")]]
    return "\n".join(texts), names


def is_there(said):
    """Tell whether what a page says in backticks exists."""
    text, names = sources()
    words = said.split()
    if words[0] == "make":
        return re.search(rf"^{words[1]}\b|\b{words[1]}\b.*:$", MAKEFILE, flags=re.M) is not None
    if words[:2] == ["python", "-m"]:
        return (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file()
    if words[0] == "tlcourse" and len(words) > 1:
        return words[1] in COMMANDS
    if re.search(r"/|\.(?:py|md|svg|toml)$", said):
        pattern = said.replace("NN", "[0-9][0-9]").rstrip("/")
        return any(any(root.glob(pattern)) for root in (ROOT, ROOT / "studies"))
    return said in names or (not said.isidentifier() and said in text) or f'"{said}"' in text


MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def named_in(page):
    return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", (ROOT / page).read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", ["docs/architecture.md", "studies/README.md"])
def test_what_a_page_names_is_there(page):
    said = {name for name in named_in(page) if not name.startswith("build/")}
    assert len(said) > 10
    assert not {name for name in said if not is_there(name)}


def test_paths_and_commands_in_contributing_are_there():
    said = {n for n in named_in("CONTRIBUTING.md") if re.match(r"make |python -m |\w+/", n)}
    assert len(said) > 10
    assert not {name for name in said if not is_there(name)}


def test_a_page_that_names_what_is_gone_is_found():
    gone = [
        "fitt",
        "fit.run",
        "tlcourse/fit.py",
        "make coffee",
        "tlcourse dance",
        "python -m tools.x",
    ]
    assert not [name for name in gone if is_there(name)]


def test_the_way_of_an_image_goes_through_these_functions():
    rows = re.findall(
        r"^\| `(tlcourse/\S+\.py)` \| ([^|]+) \|", PAGE.read_text("utf-8"), flags=re.M
    )
    assert [Path(path).stem for path, _ in rows][:: len(rows) - 1] == ["loading", "fit"]
    for path, names in rows:
        assert set(re.findall(r"`([\w.]+)`", names)) <= defined(ROOT / path), path
