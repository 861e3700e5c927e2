"""Everything in the package is reached by a lesson, a command, a study or a benchmark.

What is defined (functions, classes, methods, constants) is a node; an edge leads from it to what
its code names. Reached is what can be come to from the files that use the package. Tests do not
count: what only a test uses is a dead end. Names are resolved through imports; of `thing.name` the
thing's class is unknown, so that every method of that name counts as used. So what is listed is
unreached, while something unreached may be missed if its name is a common one.
"""

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
USERS = ["notebooks/src", "studies", "benchmarks", "tools"]
PROTOCOLS = {
    "forward": "torch calls it for model(images)",
    "submit": "joblib calls it of a backend",
    "effective_n_jobs": "joblib asks a backend for it",
}
"""Methods that a library calls, and which does; `_repr_html_`, `__len__` and the like need none."""
ALLOWED = {"TEXTURE_NAMES": "what the columns of texture_statistics are, for who asks of one"}
"""What may stay without being reached, and why."""


def called_by_others(name):
    return name in PROTOCOLS or re.fullmatch(r"_\w+_", name) is not None


class Module:
    """A file: what it defines at the top, what it imports, what else its top level runs."""

    def __init__(self, path):
        self.path, self.defined, self.imports, self.rest = path, {}, {}, []
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    whole = isinstance(node, ast.ImportFrom) or alias.asname
                    bound = alias.asname or alias.name.split(".")[0]
                    self.imports[bound] = alias.name.split(".")[-1 if whole else 0]
        for node in self.tree.body:
            names = bound_by(node)
            self.defined |= dict.fromkeys(names, node)
            if not names and not isinstance(node, ast.Import | ast.ImportFrom):
                self.rest.append(node)

    def used(self, *nodes):
        """Return what code uses: names of this module, names from others, attributes."""
        own, others, attributes = set(), set(), set()
        for node in (inner for outer in nodes for inner in ast.walk(outer)):
            if isinstance(node, ast.Attribute):
                attributes.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                if node.id in self.imports:
                    others.add(self.imports[node.id])
                elif node.id in self.defined:
                    own.add(node.id)
        return own, others, attributes


def bound_by(node):
    """Names that a statement at the top of a module, or of a class, defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return []


def methods(node):
    """Methods of a class that a caller must name; fields come with the class."""
    body = node.body if isinstance(node, ast.ClassDef) else []
    return {
        part.name: part
        for part in body
        if isinstance(part, ast.FunctionDef) and not called_by_others(part.name)
    }


def unreached(package, users):
    """Return `module:name` of what no user comes to, and `module:Class.method`.

    Args:
        package: Files that define.
        users: Files that use it.
    """
    modules = {path: Module(path) for path in package}
    nodes, by_name, by_method = {}, defaultdict(set), defaultdict(set)
    for path, module in modules.items():
        for name, node in module.defined.items():
            nodes[path, name] = node
            by_name[name].add((path, name))
            for method, inner in methods(node).items():
                nodes[path, f"{name}.{method}"] = inner
                by_method[method].add((path, f"{name}.{method}"))
    named, attributes, todo = set(), set(), []

    def use(module, *code):
        own, others, reads = module.used(*code)
        todo.extend((module.path, name) for name in own)
        for name in (others | reads) - named:
            # An attribute may be of a module: plots.image_grid; private names are not reached so.
            todo.extend(key for key in by_name[name] if name in others or not name.startswith("_"))
        named.update(others)
        attributes.update(reads)

    for path in users:
        module = modules.get(path) or Module(path)
        use(module, module.tree)
    for module in modules.values():
        use(module, *module.rest)
    reached = set()

    def reach(key):
        reached.add(key)
        apart = methods(nodes[key]).values()
        use(modules[key[0]], *(n for n in ast.iter_child_nodes(nodes[key]) if n not in apart))

    while todo:
        while todo:
            if (key := todo.pop()) in nodes.keys() - reached:
                reach(key)
        called = {key for name in attributes for key in by_method[name]} - reached
        todo += [(path, name) for path, name in called if (path, name.split(".")[0]) in reached]
    return {f"{path.stem}:{name}" for path, name in nodes.keys() - reached}


def files(folder, but=""):
    return [path for path in sorted(folder.rglob("*.py")) if path.name != but]


@cache
def listed():
    users = [path for folder in USERS for path in files(ROOT / folder)]
    command = ROOT / "tlcourse" / "__main__.py"
    return unreached(files(ROOT / "tlcourse", but="__init__.py"), [*users, command])


def test_everything_is_reached_by_a_lesson_a_command_a_study_or_a_benchmark():
    unused = {at for at in listed() if at.split(":")[1].split(".")[0] not in ALLOWED}
    assert not unused, "use it, or delete it with its tests"


def test_what_is_allowed_is_still_there_and_unreached():
    there = {at.split(":")[1] for at in listed()}
    assert not ALLOWED.keys() - there, "an exception that is not needed any more goes"


PACKAGE = """
import torch
LIMIT, SPARE = 3, 4
def used(): return _helper() + LIMIT
def _helper(): return Thing().size()
def dead(): return SPARE
class Thing(torch.nn.Module):
    weight: int = 1
    def forward(self, images): return self._inner()
    def _inner(self): return 1
    def size(self): return 2
    def idle(self): return dead()
"""


def test_a_dead_end_is_found_with_what_only_it_uses(tmp_path):
    package, user = tmp_path / "package.py", tmp_path / "user.py"
    package.write_text(PACKAGE, encoding="utf-8")
    user.write_text("from package import used\nused()\n", encoding="utf-8")
    dead = {"package:dead", "package:SPARE", "package:Thing.idle"}
    assert unreached([package], [user]) == dead
    user.write_text("from package import used\ndead = used().idle()\n", encoding="utf-8")
    assert not unreached([package], [user]), "a method leads on to what it calls"
    user.write_text("used = 1\n", encoding="utf-8")
    assert "package:used" in unreached([package], [user]), "a name of one's own is no use of it"
