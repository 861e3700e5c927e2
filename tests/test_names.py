"""A public name means one thing: no two modules of the package define the same one."""

import ast
import re
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tlcourse"
PAGES = [
    *(path for top in ("tlcourse", "studies") for path in sorted((ROOT / top).rglob("*.py"))),
    *sorted((ROOT / "notebooks" / "src").glob("*.py")),
    *(path for top in (".", "docs", "data", "instructor") for path in (ROOT / top).glob("*.md")),
    *(path for top in ("studies", "benchmarks") for path in (ROOT / top).glob("*.md")),
]
"""What names parts of the package."""
HELD = {"data", "history", "loss", "model", "module", "nn", "np", "probs", "schedule", "table"}
"""Variables, and libraries by their short names, whose attributes are named."""
SHARED = {
    "REFUSALS": "each command says what it refuses",
    "add_arguments": "each command declares its own",
    "run": "each command does its work",
    "FORMAT": "each kind of file counts its own versions",
    "KIND": "each kind of file says what it is",
    "Factors": "one alias, in two modules that know nothing of each other",
    "Features": "one alias, written out where the other module is no dependency",
    "Generator": "numpy's own name, shortened",
}


def bound(node):
    """Names that a statement at the top of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return set()


def definitions():
    """The modules that define each public name."""
    found = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for name in bound(node):
                if not name.startswith("_"):
                    found[name].add(path.relative_to(PACKAGE).as_posix())
    return found


def test_no_public_name_is_defined_in_two_modules():
    twice = {name: sorted(at) for name, at in definitions().items() if len(at) > 1}
    surplus = {name: at for name, at in twice.items() if name not in SHARED}
    assert not surplus, "give one of them a name of its own, or import it from the other"
    assert SHARED.keys() <= twice.keys(), "a name that is unique again needs no exception"


def modules():
    """Dotted names of all modules of the package and of the studies, by their last part."""
    found = defaultdict(set)
    for top in ("tlcourse", "studies"):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[parts[-1]].add(".".join(parts))
    return found


def resolves(name):
    """Tell whether a module, or what a module or class has, is called so."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            fields = getattr(thing, "__annotations__", {})  # without a default: no attribute
            if not hasattr(thing, part) and part not in fields:
                return False
            thing = getattr(thing, part, None)
        return True
    return False


def gone(text):
    """Names of parts of the package in a text, in full or as `module.name`, that lead nowhere."""
    known = modules()
    lost = {
        name for name in re.findall(r"\btlcourse(?:\.[a-zA-Z_]\w*)+", text) if not resolves(name)
    }
    for name in re.findall(r"(?<!`)`([a-z_]+(?:\.[A-Za-z_]\w*)+)(?:\([^`]*)?`(?!`)", text):
        first, _, rest = name.partition(".")
        ending = re.search(r"\.(?:pyi?|md|csv|json|jsonl|toml|npz|pt|html|yml)$", name)
        if first in HELD | {"__init__", "tlcourse"} or ending or resolves(name):
            continue
        if not any(resolves(f"{module}.{rest}") for module in known[first]):
            lost.add(name)
    return lost


def test_a_name_that_leads_nowhere_is_found():
    text = (
        "see `phantom.simulate`, `phantoms.simulate`, `probe.fit`, tlcourse.fit and tlcourse.files"
    )
    assert gone(text) == {"phantoms.simulate", "probe.fit", "tlcourse.fit"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_named_in_full_or_by_module_is_there(path):
    assert not gone(path.read_text(encoding="utf-8"))
