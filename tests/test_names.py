"""A public name means one thing: no two modules of the package define the same one."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tlcourse"
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
