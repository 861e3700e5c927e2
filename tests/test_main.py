import json
import subprocess
import sys

import nbformat
import pytest

from tlcourse import runner
from tlcourse.__main__ import main
from tlcourse.backbones import WeightsUnavailable


@pytest.fixture
def lessons(monkeypatch, tmp_path):
    """A checkout with two small lessons; the second one fails."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, text in {"00_fine": "1 + 1", "01_broken": "raise ValueError('on purpose')"}.items():
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text)])
        nbformat.write(book, folder / f"{name}.ipynb")
    monkeypatch.setattr(runner, "repository_root", lambda: tmp_path)
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
    from tlcourse import backbones

    monkeypatch.setenv("TLCOURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(backbones, "fetch_checkpoint", lambda name: tmp_path / name)
    assert main(["fetch"]) == 0
    assert "the lessons will use the simulated set" in capsys.readouterr().err

    def unavailable(name):
        raise WeightsUnavailable("nowhere to be had")

    monkeypatch.setattr(backbones, "fetch_checkpoint", unavailable)
    assert main(["fetch"]) == 1
    assert "nowhere to be had" in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys, tlcourse.__main__ as m; m._parser(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
