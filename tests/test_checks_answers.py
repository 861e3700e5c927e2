"""Every check confirms right answers, hints at blanks and names mistakes: lists in `answers`."""

from importlib import import_module
from pathlib import Path

import pytest

from tlcourse.checks import CheckFailed

FILES = sorted(Path(__file__).with_name("answers").glob("lesson*.py"))
LESSONS = [import_module(f"answers.{path.stem}") for path in FILES]


def listed(name):
    return [
        pytest.param(*row, id=f"{lesson.__name__[-2:]}-{place}")
        for lesson in LESSONS
        for place, row in enumerate(getattr(lesson, name))
    ]


@pytest.mark.parametrize(("check", "answer"), listed("RIGHT"))
def test_right_answers_pass(check, answer):
    assert check(answer).passed


@pytest.mark.parametrize(("check", "answer"), listed("BLANK"))
def test_blanks_get_the_hint(check, answer):
    assert not check(...).passed
    assert not check(answer).passed


@pytest.mark.parametrize(("check", "answer", "message"), listed("WRONG"))
def test_wrong_answers_are_named(check, answer, message):
    with pytest.raises(CheckFailed, match=message):
        check(answer)
