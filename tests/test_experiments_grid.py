import json
import subprocess
import sys

import numpy as np
import pytest

from tlcourse.experiments import Grid, load_function, run_key

TOML = """
function = "statistics:mean"
none = "all"
[factors]
strategy = ["cold", "warmup"]
images = [50, 200, "all"]
seed = [0, 1]
"""


def written(tmp_path, text, name="grid.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_last_factor_changes_fastest():
    runs = list(Grid({"strategy": ["a", "b"], "images": [50, None], "seed": range(2)}).runs())
    assert [tuple(run.values()) for run in runs] == [
        *[("a", 50, 0), ("a", 50, 1), ("a", None, 0), ("a", None, 1)],
        *[("b", 50, 0), ("b", 50, 1), ("b", None, 0), ("b", None, 1)],
    ]


def test_keys_are_stable_and_of_one_run_each():
    grid = Grid({"strategy": ["a", "b"], "images": [50, None], "seed": range(2)})
    assert len(grid.keyed()) == len(grid) == 8
    turned = Grid({"seed": range(2), "images": [50, None], "strategy": ["a", "b"]})
    assert set(turned.keyed()) == set(grid.keyed())
    # What tables hold: another key for the same run would repeat every run ever made.
    assert run_key({"strategy": "a", "images": None, "seed": 0}) == "60b45756cb6525ff"


def test_numpy_values_give_the_runs_and_keys_of_plain_ones():
    of_numpy = Grid({"seed": np.arange(3), "lr": np.array([0.1])})
    assert of_numpy == Grid({"seed": range(3), "lr": [0.1]})
    assert all(type(run["seed"]) is int for run in of_numpy.runs())


def test_a_run_can_be_changed_without_changing_the_grid():
    grid = Grid({"rates": [{"head": 0.1}], "seed": [0, 1]})
    next(grid.runs())["rates"]["head"] = 9
    assert [run["rates"] for run in grid.runs()] == [{"head": 0.1}] * 2


def test_toml_and_json_files_hold_the_same_grid(tmp_path):
    factors = {"strategy": ["cold", "warmup"], "images": [50, 200, None], "seed": [0, 1]}
    expected = Grid(factors, "statistics:mean")
    assert Grid.from_file(written(tmp_path, TOML)) == expected
    text = json.dumps({"function": "statistics:mean", "factors": factors})
    assert Grid.from_file(written(tmp_path, text, "grid.json")) == expected


@pytest.mark.parametrize(
    ("factors", "error", "message"),
    [
        ({}, ValueError, "at least one factor"),
        ({"seed": []}, ValueError, "factor 'seed': expected values"),
        ({"seed": [0, 1, 0]}, ValueError, r"each once, got \[0, 1, 0\]"),
        ({"strategy": "cold"}, TypeError, "list of values for factor 'strategy', got 'cold'"),
        ({"steps": 300}, TypeError, "list of values for factor 'steps', got 300"),
        ({"strategy": {"a", "b"}}, TypeError, "list of values"),
        ({"seconds": [1]}, ValueError, r"other than \['key', 'seconds'\]"),
        ({"two words": [1]}, ValueError, "names of arguments"),
        ({"device": [object()]}, TypeError, "factor 'device': expected numbers, text"),
        ({"lr": [float("nan")]}, ValueError, "factor 'lr': .*JSON"),
    ],
)
def test_errors_name_the_factor(factors, error, message):
    with pytest.raises(error, match=message):
        Grid(factors)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("[factors]\nseed = [0", "grid.toml", "grid.toml: "),
        ("{", "grid.json", "grid.json: "),
        ("seed = [0]", "grid.toml", r"expected factors and .*, got \['seed'\]"),
        ("[factors]\nseed = [0]\n[factor]\na = 1", "grid.toml", r"\['factor', 'factors'\]"),
        ("[factors]\nsteps = 300", "grid.toml", "grid.toml: .*'steps', got 300"),
        ("factors = [1]", "grid.toml", "table of factors"),
        ("[]", "grid.json", "got list"),
        ("seed: 0", "grid.yaml", r"ends in .toml or .json"),
    ],
)
def test_errors_name_the_file(tmp_path, text, name, message):
    with pytest.raises(ValueError, match=message):
        Grid.from_file(written(tmp_path, text, name))


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("statistics.mean", ValueError, '"package.module:name"'),
        ("no_such_module:run", ImportError, "'no_such_module:run' cannot be imported.*No module"),
        ("statistics:run", ValueError, "function 'run' in statistics, there are .*'mean'"),
        ("string:digits", ValueError, "function 'digits'"),
    ],
)
def test_a_function_that_is_not_there_is_told(name, error, message):
    with pytest.raises(error, match=message):
        load_function(name)


def test_a_module_that_fails_on_import_is_told(tmp_path, monkeypatch):
    (tmp_path / "broken_strategies.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match="ZeroDivisionError: division by zero"):
        load_function("broken_strategies:run")


def test_a_function_beside_the_working_folder_is_found_by_the_command(tmp_path):
    # As an installed command runs: unlike python -m, it does not look into the working folder.
    (tmp_path / "my_study.py").write_text("def run(seed):\n    return {'auc': seed / 2}\n")
    grid = written(tmp_path, 'function = "my_study:run"\n[factors]\nseed = [0, 1]\n')
    code = "import sys; from tlcourse.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-P", "-c", code, "experiments", grid.name]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "2 of 2 runs" in made.stdout
    apart = [*command, "--out", "again.jsonl", "--workers", "2"]
    made = subprocess.run(apart, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, "processes find it too: " + made.stderr


def test_the_working_folder_hides_no_installed_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "colorsys.py").write_text("def rgb_to_hsv():\n    return 'mine'\n")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert load_function("colorsys:rgb_to_hsv")(0, 0, 0) == (0, 0, 0)
