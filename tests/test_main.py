import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import nbformat
import pytest

from tlcourse.__main__ import COMMANDS, main
from tlcourse.backbones import WeightsUnavailable


@pytest.fixture
def lessons(monkeypatch, tmp_path):
    """A checkout with two small lessons; the second one fails."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, text in {"00_fine": "1 + 1", "01_broken": "raise ValueError('on purpose')"}.items():
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text)])
        nbformat.write(book, folder / f"{name}.ipynb")
    monkeypatch.setattr("tlcourse.cli.run.repository_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_run_prints_a_table_and_writes_json(lessons, capsys):
    assert main(["run", "00"]) == 0
    assert "00_fine" in capsys.readouterr().out
    (row,) = json.loads((lessons / "build" / "run.json").read_text())
    assert row["passed"] is True


def test_run_says_which_lesson_failed(lessons, capsys):
    assert main(["run", "--json", "out.json"]) == 1
    assert "cell 1: ValueError: on purpose" in capsys.readouterr().out
    assert [row["passed"] for row in json.loads((lessons / "out.json").read_text())] == [
        True,
        False,
    ]


def test_run_without_lessons_is_an_error(lessons, capsys):
    assert main(["run", "77"]) == 2
    assert "no lesson 77*.ipynb" in capsys.readouterr().err


def test_fetch_fails_without_weights_but_not_without_images(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TLCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr("tlcourse.cli.fetch.fetch_checkpoint", lambda name: tmp_path / name)
    assert main(["fetch"]) == 0
    assert "the lessons will use the simulated set" in capsys.readouterr().err

    def unavailable(name):
        raise WeightsUnavailable("nowhere to be had")

    monkeypatch.setattr("tlcourse.cli.fetch.fetch_checkpoint", unavailable)
    assert main(["fetch"]) == 1
    assert "nowhere to be had" in capsys.readouterr().err


GRID = """
function = "{}"
[factors]
x = [0, 1, 4]
"""


@pytest.fixture
def grid_file(monkeypatch, tmp_path):
    """Return a function that writes a grid file and says where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "roots.py").write_text("def root(x): return {'root': x**0.5, 'part': 1 / (x - 4)}")
    (tmp_path / "mended.py").write_text("def root(x): return {'root': x**0.5}")

    def write(function):
        path = tmp_path / "grid.toml"
        path.write_text(GRID.format(function), encoding="utf-8")
        return str(path)

    return write


def test_experiments_run_say_what_failed_and_go_on(grid_file, tmp_path, capsys):
    assert main(["experiments", grid_file("roots:root")]) == 1
    shown = capsys.readouterr()
    assert "1 of 3 runs failed" in shown.err
    assert "3/3" not in shown.err
    assert "done      2 of 3 runs\nleft      1 (about 0:00:00" in shown.out
    assert "failed    {'x': 4}: ZeroDivisionError" in shown.out
    assert main(["experiments", grid_file("mended:root")]) == 0
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert shown.out == (
        f"table     {Path('build/experiments/grid.jsonl')}\ndone      3 of 3 runs\nleft      0\n"
    )
    assert (tmp_path / "build" / "experiments" / "grid.jsonl").is_file()


def test_experiments_status_runs_nothing(grid_file, tmp_path, capsys):
    arguments = ["experiments", grid_file("mended:root"), "--out", "rows.jsonl"]
    assert main([*arguments, "--status"]) == 0
    assert "done      0 of 3 runs\nleft      3\n" in capsys.readouterr().out
    assert not (tmp_path / "rows.jsonl").exists()
    assert main([*arguments, "--workers", "2"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--status"]) == 0
    assert "done      3 of 3 runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "extra", "message"),
    [
        ("no_such_module:root", [], "function 'no_such_module:root' cannot be imported"),
        ("mended:power", [], "expected a function 'power' in mended"),
        ("mended:root", ["--out", "rows.csv"], "ends in .jsonl, got rows.csv"),
    ],
)
def test_experiments_that_cannot_start_say_why(grid_file, capsys, function, extra, message):
    assert main(["experiments", grid_file(function), *extra]) == 2
    assert message in capsys.readouterr().err


def test_experiments_need_a_grid_file_with_a_function(tmp_path, capsys):
    missing = str(tmp_path / "missing.toml")
    assert main(["experiments", missing]) == 2
    assert main(["experiments", missing, "--status"]) == 2
    assert capsys.readouterr().err.count("missing.toml") == 2
    (tmp_path / "grid.json").write_text('{"factors": {"x": [1]}}')
    assert main(["experiments", str(tmp_path / "grid.json")]) == 2
    assert 'expected function = "package.module:name"' in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
    code += "from tlcourse.__main__ import main; main(['--help'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "put what `train` came to on one page" in run.stdout
    assert {"torch", "numpy", "pandas", "jinja2"}.isdisjoint(run.stdout.split())


def test_every_command_is_a_module_that_declares_its_options_and_works():
    for name in COMMANDS:
        command = import_module(f"tlcourse.cli.{name}")
        assert all(hasattr(command, part) for part in ("add_arguments", "run", "REFUSALS"))


@pytest.mark.parametrize("words", [[], ["no_such_command"], ["train"], ["fetch", "--size", "3"]])
def test_what_is_no_command_exits_with_the_usage(words, capsys):
    with pytest.raises(SystemExit) as info:
        main(words)
    assert info.value.code == 2
    assert "usage: tlcourse" in capsys.readouterr().err


def test_bench_prints_its_table_or_what_is_wrong(capsys):
    small = ["--images", "20", "--size", "32", "--epochs", "1", "--rounds", "1"]
    assert main(["bench", "--backbone", "shufflenet_v2_x0_5", *small]) == 0
    assert "head and last stage" in capsys.readouterr().out
    assert main(["bench", "--backbone", "no_such_net", *small]) == 2
    assert "no_such_net" in capsys.readouterr().err
    assert main(["bench", "--rounds", "0"]) == 2
