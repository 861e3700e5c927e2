import pytest

from tlcourse.checks import CheckFailed, Verdict, blank, check
from tlcourse.checks.core import call, close, number, require


@check("double it")
def check_double(function):
    require(call(function, 2) == 4, "2 should give 4")
    return "doubling works"


def test_a_blank_is_met_with_the_hint():
    assert check_double(...) == Verdict(False, "double it")
    assert check_double(lambda value: ...) == Verdict(False, "double it")


def test_a_right_answer_is_confirmed():
    assert check_double(lambda value: 2 * value) == Verdict(True, "doubling works")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda value: value, "2 should give 4"),
        (lambda value: None, "is the `return` missing"),
        (lambda value: 1 / 0, "stopped with ZeroDivisionError"),
        (4, "expected a function, got int"),
    ],
)
def test_a_wrong_answer_is_named(answer, message):
    with pytest.raises(CheckFailed, match=message):
        check_double(answer)


def test_a_failure_is_shown_without_a_traceback():
    assert CheckFailed("no")._render_traceback_() == ["✘ Not yet: no"]


def test_verdicts_render_escaped():
    assert "&lt;b&gt;" in Verdict(True, "<b>")._repr_html_()


def test_number_refuses_words_and_nan():
    assert number("3", "n") == 3
    with pytest.raises(CheckFailed, match="expected a number for the share, got list"):
        number([], "the share")
    with pytest.raises(CheckFailed, match="finite"):
        number(float("nan"), "the share")


def test_blank_and_close():
    assert blank(...)
    assert not blank(None)
    assert close(1000.4, 1000)
    assert not close(0.27, 0.26)
