"""Every name and argument of the package that a lesson uses exists: found without running it."""

import ast
import inspect
import types
from importlib import import_module

import pytest

from tools import lessons

SOURCES = lessons.sources()


def looked_up(module, name):
    """The attribute of a module, or the module below it, as `from module import name` has it."""
    found = import_module(module)
    return getattr(found, name) if hasattr(found, name) else import_module(f"{module}.{name}")


def imported(tree):
    """What the lesson takes from the package, by the name that it has there."""
    return {
        alias.asname or alias.name: looked_up(node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tlcourse")
        for alias in node.names
    }


def target(node, known):
    """The object that an expression such as `plots.show` or `fit` stands for, if it is known."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return getattr(known.get(node.value.id), node.attr, None)
    return None


def missing(tree):
    """Attributes and keyword arguments that are not there, with their lines."""
    known, found = imported(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            holder = known.get(node.value.id)
            ours = isinstance(holder, types.ModuleType | types.FunctionType)
            if ours and not hasattr(holder, node.attr):
                found.append(f"line {node.lineno}: {node.value.id}.{node.attr}")
        elif isinstance(node, ast.Call):
            function = target(node.func, known)
            if isinstance(function, types.FunctionType):
                taken = inspect.signature(function).parameters.values()
                names = {p.name for p in taken}
                open_ended = any(p.kind == p.VAR_KEYWORD for p in taken)
                given = {k.arg for k in node.keywords if k.arg}
                unknown = set() if open_ended else given - names
                found += [f"line {node.lineno}: {function.__name__}({a}=)" for a in unknown]
    return found


@pytest.mark.parametrize("source", SOURCES, ids=[source.stem for source in SOURCES])
def test_what_a_lesson_uses_of_the_package_exists(source):
    assert not missing(ast.parse(source.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        ("from tlcourse import plots\nplots.shown(1)", "plots.shown"),
        ("from tlcourse.features import probe\nprobe.probe(1)", "probe.probe"),
        ("from tlcourse.training import fit\nfit(1, 2, epoch=3)", r"fit(epoch=)"),
    ],
)
def test_a_name_that_is_gone_is_found(cell, what):
    assert [what in line for line in missing(ast.parse(cell))] == [True]


def test_a_name_that_is_there_is_not():
    cell = "from tlcourse import metrics, plots\nplots.show(metrics.auc([0], [1]), alt='none')"
    assert missing(ast.parse(cell)) == []
