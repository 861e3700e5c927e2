"""pyproject.toml, environment.yml and the locks name the same packages and bounds."""

import re
import tomllib
from pathlib import Path

import pytest
import rattler
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements():
    return [Requirement(line) for line in project()["project"]["dependencies"]]


def conda_lines():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    listed = text.split("dependencies:")[1].split("- pip:")[0]
    return re.findall(r"^  - (.+)$", listed, flags=re.M)


def locked(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return {m.lower() for m in re.findall(r"^([A-Za-z0-9_.-]+)==", text, flags=re.M)}


def test_conda_repeats_every_name_and_bound():
    conda = dict(line.split(" ", 1) for line in conda_lines())
    expected = {CONDA_NAMES.get(r.name, r.name): str(r.specifier) for r in requirements()}
    extra = {"python", "pip"}
    assert {k: v for k, v in conda.items() if k not in extra} == expected
    assert conda["python"] == project()["project"]["requires-python"]


@pytest.mark.parametrize("line", conda_lines())
def test_conda_reads_each_line_strictly(line):
    assert str(rattler.MatchSpec(line, strict=True).name.normalized) == line.split()[0]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_hold_every_dependency_with_hashes_and_no_address(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert {r.name for r in requirements()} <= locked(name)
    assert not re.search(r"https?://|file:|--index|--find-links", text)
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locked_versions_meet_the_bounds(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", text, flags=re.M))
    outside = [str(r) for r in requirements() if not r.specifier.contains(pins[r.name])]
    assert outside == []


def test_the_dev_lock_changes_no_learner_version():
    pins = [
        set(re.findall(r"^(\S+==\S+)", (ROOT / name).read_text(encoding="utf-8"), flags=re.M))
        for name in ("requirements.lock", "requirements-dev.lock")
    ]
    assert pins[0] <= pins[1]


def test_every_bound_has_its_reason():
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    bounds = [line for line in lines if re.match(r'\s+"[a-z0-9-]+[>=]', line)]
    assert len(bounds) >= len(requirements())
    assert [line for line in bounds if "# " not in line] == []
