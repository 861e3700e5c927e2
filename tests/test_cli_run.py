import json
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from tlcourse.cli import run as lessons
from tlcourse.cli.run import LessonRun, format_table, run_lessons

PAUSE = "import time; time.sleep(5)"


def notebook(*texts):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(t) for t in texts])


def test_a_failing_cell_is_named_and_the_others_are_not_run():
    run = lessons.run_lesson(Path("bad.ipynb"), notebook("1", "1 / 0", "print('no')"))
    assert not run.passed
    assert run.verdict == "cell 2: ZeroDivisionError: division by zero"


def test_memory_is_that_of_the_kernel():
    text = "import numpy as np, time\nkept = np.ones(40_000_000)\ntime.sleep(0.6)"
    run = lessons.run_lesson(Path("big.ipynb"), notebook(text))
    assert run.passed
    assert 300 < run.peak_memory_mb < 900


def test_one_failure_does_not_hide_the_rest(tmp_path):
    for name, text in {"00_a": "raise ValueError('x')", "01_b": "1"}.items():
        nbformat.write(notebook(text), tmp_path / f"{name}.ipynb")
    runs = lessons.run_lessons(sorted(tmp_path.glob("*.ipynb")), progress=False)
    assert [run.passed for run in runs] == [False, True]


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """Return a function that puts another command, or a damaged file, behind "python3"."""

    def install(command):
        folder = tmp_path / "jupyter" / "kernels" / "python3"
        folder.mkdir(parents=True)
        spec = {"argv": command, "display_name": "broken", "language": "python"}
        text = command if isinstance(command, str) else json.dumps(spec)
        (folder / "kernel.json").write_text(text, encoding="utf-8")
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
        monkeypatch.setattr(lessons, "START_TIMEOUT", 2, raising=False)

    return install


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["/no/such/python"], "No such file or directory"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "Kernel died before replying"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "Kernel didn't respond in 2"),
        ("{damaged", "JSONDecodeError"),
        ('{"argv": 3}', ""),
    ],
)
def test_a_kernel_that_does_not_start_is_a_verdict(kernel, tmp_path, command, reason):
    kernel(command)
    nbformat.write(notebook("1"), tmp_path / "00_a.ipynb")
    (run,) = run_lessons([tmp_path / "00_a.ipynb"], progress=False)
    assert run.verdict.startswith("the kernel did not start: ")
    assert reason in run.verdict


def test_a_kernel_that_nobody_installed_is_a_verdict(monkeypatch):
    def nowhere(_self, name):
        raise NoSuchKernel(name)

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", nowhere)
    run = lessons.run_lesson(Path("sum.ipynb"), notebook("1"))
    assert run.verdict == "the kernel did not start: NoSuchKernel: No such kernel named python3"


def test_a_folder_that_is_gone_is_a_verdict(tmp_path):
    run = lessons.run_lesson(tmp_path / "gone" / "sum.ipynb", notebook("1"))
    assert run.verdict.startswith("the kernel did not start: ")


@pytest.mark.parametrize(
    ("texts", "place"),
    [
        (["1", "import os; os._exit(1)", "2"], "cell 2"),
        (["import os, threading; threading.Timer(0.2, os._exit, [1]).start()", PAUSE, "2"], "cell"),
    ],
)
def test_a_kernel_that_dies_on_the_way_is_a_verdict(texts, place):
    run = lessons.run_lesson(Path("dies.ipynb"), notebook(*texts))
    assert run.verdict.startswith(place)
    assert "the kernel died" in run.verdict


def test_a_cell_that_takes_too_long_is_a_verdict(monkeypatch):
    monkeypatch.setattr(lessons, "CELL_TIMEOUT", 1)
    run = lessons.run_lesson(Path("slow.ipynb"), notebook("import time; time.sleep(30)"))
    assert run.verdict == "cell 1: took over 1 s"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b'{"nbformat": 4, "cells": 3}', None]
)
def test_a_file_that_is_no_notebook_is_a_verdict_and_the_others_run(tmp_path, content):
    if content is None:
        (tmp_path / "00_broken.ipynb").mkdir()
    else:
        (tmp_path / "00_broken.ipynb").write_bytes(content)
    broken, other = tmp_path / "00_broken.ipynb", tmp_path / "01_gone.ipynb"
    verdicts = [run.verdict for run in run_lessons([broken, other], progress=False)]
    assert all(verdict.startswith("cannot be read: ") for verdict in verdicts)


def test_absent_lessons_are_an_error():
    with pytest.raises(FileNotFoundError, match="run this from the course's checkout"):
        lessons.find_lessons(prefix="77")


def test_json_holds_every_row(tmp_path):
    lessons.save_json([LessonRun("00_a", 1.5, 300.0, "passed")], tmp_path / "build" / "run.json")
    rows = json.loads((tmp_path / "build" / "run.json").read_text())
    assert rows == [
        {
            "lesson": "00_a",
            "seconds": 1.5,
            "peak_memory_mb": 300.0,
            "verdict": "passed",
            "passed": True,
        }
    ]


def test_a_lesson_over_the_limit_has_not_passed(tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    path = tmp_path / "00_sum.ipynb"
    nbformat.write(book, path)
    strict, generous = (run_lessons([path], limit=s, progress=False)[0] for s in (0.01, 600))
    assert not strict.passed
    assert "0 are allowed" in strict.verdict
    assert generous.passed


def test_a_table_stays_a_table_whatever_the_names_and_errors():
    long = "02_see_what_each_layer_learned"
    runs = [
        LessonRun(long, 1.0, 10.0, "cell 3: ValueError: first\nrest"),
        LessonRun("00", 2.0, 9, "passed"),
    ]
    lines = format_table(runs).splitlines()
    assert len(lines) == 4
    assert {line.index("passed") for line in lines if "passed" in line} == {
        lines[0].index("verdict")
    }
    assert "rest" not in "".join(lines)
