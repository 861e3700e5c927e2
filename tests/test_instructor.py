"""The instructor's guide follows the lessons, and the timetables add up."""

import re

import pytest

from tools import instructor, lessons

LESSONS = [instructor.read_lesson(source) for source in lessons.sources()]


def test_guide_and_timetables_are_in_step():
    stale = [
        path.name for path, text in instructor.made().items() if not instructor._holds(path, text)
    ]
    assert stale == [], "run: make lessons"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_every_section_says_what_an_instructor_needs(lesson):
    assert len(lesson.sections) >= 3
    for heading, noted in lesson.sections.items():
        assert tuple(noted) == instructor.LABELS, heading
    assert 2 <= len(lesson.exercises) <= 4
    assert 3 <= len(lesson.goals) <= 5


def test_no_note_reaches_a_learner():
    for source in lessons.sources():
        for copy in (lessons.learner_copy(source), lessons.solution_copy(source)):
            assert not any("- Wrong: " in cell.source for cell in copy.cells)


def test_the_times_of_a_plan_follow_each_other():
    plan = {"name": "A day", "start": "09:00", "blocks": ["00", ["Break", 15], "01"]}
    text = instructor.timetables(LESSONS, [plan])
    rows = re.findall(r"^\| (\d\d:\d\d) \| (\d\d:\d\d) \| (.+) \| (\d+) \|$", text, flags=re.M)
    assert [row[2] for row in rows] == ["00 Meet the problem", "Break", "01 Reuse features"]
    assert rows[0][:2] == ("09:00", f"09:{LESSONS[0].minutes:02d}")
    assert [row[1] for row in rows[:-1]] == [row[0] for row in rows[1:]]


@pytest.mark.parametrize("text", ["- Say: a\n- Say: b", "- Shout: a", "Say: a", ""])
def test_a_note_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match=r"expected items from .*'Late'"):
        instructor.notes(text, "here")


def test_measured_seconds_are_taken_over(monkeypatch, tmp_path):
    monkeypatch.setattr(instructor, "TIMES", tmp_path / "run_times.csv")
    assert instructor.read_times() == {}
    table = tmp_path / "run.json"
    table.write_text('[{"lesson": "00_meet", "seconds": 31.4, "peak_memory_mb": 812.0}]')
    instructor.take_times(table)
    assert instructor.read_times()["00_meet"]["seconds"] == "31.4"
    assert "cores" in (tmp_path / "run_times.csv").read_text()
