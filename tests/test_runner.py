import json
from pathlib import Path

import nbformat
import pytest

from tlcourse import runner
from tlcourse.runner import LessonRun, format_table, run_lessons


def notebook(*texts):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(t) for t in texts])


def test_a_failing_cell_is_named_and_the_others_are_not_run():
    run = runner.run_lesson(Path("bad.ipynb"), notebook("1", "1 / 0", "print('no')"))
    assert not run.passed
    assert run.verdict == "cell 2: ZeroDivisionError: division by zero"


def test_memory_is_that_of_the_kernel():
    text = "import numpy as np, time\nkept = np.ones(40_000_000)\ntime.sleep(0.6)"
    run = runner.run_lesson(Path("big.ipynb"), notebook(text))
    assert run.passed
    assert 300 < run.peak_memory_mb < 900


def test_one_failure_does_not_hide_the_rest(tmp_path):
    for name, text in {"00_a": "raise ValueError('x')", "01_b": "1"}.items():
        nbformat.write(notebook(text), tmp_path / f"{name}.ipynb")
    runs = runner.run_lessons(sorted(tmp_path.glob("*.ipynb")), progress=False)
    assert [run.passed for run in runs] == [False, True]


def test_absent_lessons_are_an_error():
    with pytest.raises(FileNotFoundError, match="run this from the course's checkout"):
        runner.find_lessons(prefix="77")


def test_json_holds_every_row(tmp_path):
    runner.save_json([LessonRun("00_a", 1.5, 300.0, "passed")], tmp_path / "build" / "run.json")
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
