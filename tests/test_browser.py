"""Lesson 00 as a learner meets it: JupyterLab in a real browser."""

import pytest

from tools import browse_lesson


@pytest.mark.browser
@pytest.mark.slow
def test_lesson_00_runs_in_jupyterlab(tmp_path, monkeypatch):
    if browse_lesson.find_chromium() is None:
        pytest.skip("no Chromium on this machine: install one to run the browser test")
    monkeypatch.setenv("TLCOURSE_IMAGES", "simulated")
    # One worker of several: the browser and the other tests need the cores, too.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = browse_lesson.browse("notebooks/00_meet_the_problem.ipynb", shots=tmp_path, seconds=500)
    assert seen["errors"] == []
    assert seen["foreign"] == [], "the lesson asked another machine for something"
    assert seen["images"] >= 5
    assert seen["without_alt"] == 0
