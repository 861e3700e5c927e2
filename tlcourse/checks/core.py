"""The parts every lesson's checks are made of."""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

P = ParamSpec("P")


class CheckFailed(AssertionError):
    """A wrong answer. Its message names the mistake; IPython shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"✘ Not yet: {self}"]


class Verdict(NamedTuple):
    """What a check says of an answer.

    >>> Verdict(passed=True, message="the set is unbalanced")
    ✔ Right: the set is unbalanced
    """

    passed: bool
    message: str

    def __repr__(self) -> str:
        return f"{'✔ Right' if self.passed else '… Not answered yet. Hint'}: {self.message}"

    def _repr_html_(self) -> str:
        colour = "#009E73" if self.passed else "#0072B2"  # Okabe-Ito
        return (
            f'<div style="border-left:4px solid {colour};padding:4px 10px">'
            f"{html.escape(repr(self))}</div>"
        )


def check(hint: str) -> Callable[[Callable[P, str]], Callable[P, Verdict]]:
    """Turn a function that examines answers into a check that also meets blanks.

    The function raises `CheckFailed` (through `require`) for a wrong answer and returns what to
    tell the learner after a right one. It is not called while an answer is blank.

    Args:
        hint: What to tell a learner who has not answered.

    >>> @check("count the images of each class")
    ... def check_share(share):
    ...     require(share < 1, "a share is a number between 0 and 1: divide by the images")
    ...     return "malignant images are the minority"
    >>> check_share(...)
    … Not answered yet. Hint: count the images of each class
    >>> check_share(0.27)
    ✔ Right: malignant images are the minority
    >>> check_share(147)
    Traceback (most recent call last):
    tlcourse.checks.core.CheckFailed: a share is a number between 0 and 1: divide by the images
    """

    def wrap(examine: Callable[P, str]) -> Callable[P, Verdict]:
        @functools.wraps(examine)
        def answer(*args: P.args, **kwargs: P.kwargs) -> Verdict:
            if any(blank(value) for value in (*args, *kwargs.values())):
                return Verdict(False, hint)
            try:
                return Verdict(True, examine(*args, **kwargs))
            except BlankAnswer:
                return Verdict(False, hint)

        # functools.wraps copies the annotation "-> str" of the examiner; ours returns a verdict.
        answer.__annotations__ = {**examine.__annotations__, "return": Verdict}
        return answer

    return wrap


class BlankAnswer(Exception):
    """A function to be written still returns `...`."""


def blank(value: object) -> bool:
    """Tell whether an answer is still the stub's `...`."""
    return value is ...


def require(condition: object, message: str) -> None:
    """Raise `CheckFailed` with `message` unless `condition` holds."""
    if not condition:
        raise CheckFailed(message)


def call(function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    """Call the learner's function; a returned `...` counts as blank, an error is explained.

    Raises:
        BlankAnswer: If the function still returns `...`.
        CheckFailed: If it is no function, raises, or returns None.
    """
    require(callable(function), f"expected a function, got {type(function).__name__}")
    try:
        result = function(*args, **kwargs)
    except Exception as error:
        name = getattr(function, "__name__", "your function")
        raise CheckFailed(f"{name}() stopped with {type(error).__name__}: {error}") from error
    if blank(result):
        raise BlankAnswer
    require(result is not None, "the function returns None: is the `return` missing?")
    return result


def number(value: object, what: str) -> float:
    """Return `value` as a float, or say that a number was expected.

    >>> number(3, "the count")
    3.0
    """
    try:
        result = float(cast(Any, value))
    except (TypeError, ValueError):
        raise CheckFailed(f"expected a number for {what}, got {type(value).__name__}") from None
    require(math.isfinite(result), f"expected a finite number for {what}, got {result}")
    return result


def numbers(value: object, what: str, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """Return `value` as an array of floats, or say that `what` was expected.

    Args:
        value: The answer.
        what: What it should be, in words.
        shape: What shape it should have; None: any.

    >>> numbers([1, 2], "a number per class", (2,))
    array([1., 2.])
    """
    try:
        found = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise CheckFailed(f"expected {what}, got {type(value).__name__}") from None
    fits = shape is None or found.shape == shape
    require(fits, f"expected {what}, got an array of shape {found.shape}")
    return found


def close(value: ArrayLike, expected: ArrayLike) -> bool:
    """Tell whether a number, or each of an array of the same shape, is the one expected.

    Up to rounding: 0.001, or a thousandth of what is above 1.

    >>> close(0.2692, 0.26923), close([1, 2], [1, 2.1])
    (True, False)
    """
    found, wanted = np.asarray(value, dtype=float), np.asarray(expected, dtype=float)
    tolerance = 1e-3 * np.maximum(1.0, abs(wanted))
    return found.shape == wanted.shape and bool((abs(found - wanted) <= tolerance).all())


def compare(
    found: ArrayLike, expected: ArrayLike, message: str, *mistakes: tuple[ArrayLike, str]
) -> None:
    """Require a number or an array; name the mistake where a known one was made.

    Args:
        found: What the learner has.
        expected: What is right.
        message: What to tell whoever has neither that nor the result of a known mistake.
        mistakes: Results of mistakes, with what to tell whoever made them.

    Raises:
        CheckFailed: If `found` is not `expected`, up to rounding.

    >>> compare(0.25, 0.75, "look again", (0.25, "turned round"))
    Traceback (most recent call last):
    tlcourse.checks.core.CheckFailed: turned round
    """
    if close(found, expected):
        return
    for wrong, told in mistakes:
        require(not close(found, wrong), told)
    raise CheckFailed(message)


def check_letters(
    answer: object, meanings: Mapping[str, str], right: frozenset[str], *, verdict: str, more: str
) -> str:
    """Check which letters of a list were chosen, such as "AB"; return what the right ones mean.

    Args:
        answer: What the learner wrote.
        meanings: What is to be said of each letter.
        right: The letters that belong in the answer.
        verdict: What is said between a wrong letter and its meaning, such as "is sound".
        more: What to ask whoever lacks a letter.

    Raises:
        CheckFailed: If the answer is no text, names another letter, or is not complete.

    >>> meanings = {"A": "A is odd", "B": "B is even"}
    >>> check_letters("b", meanings, frozenset("B"), verdict="is not", more="which?")
    'B is even'
    """
    require(isinstance(answer, str), f"expected letters such as 'AB', got {type(answer).__name__}")
    letters = [letter for letter in str(answer).upper() if letter.isalpha()]
    strange = sorted(set(letters) - set(meanings))
    span = f"{min(meanings)} to {max(meanings)}"
    require(letters and not strange, f"expected letters from {span}, got {answer!r}")
    for letter in sorted(set(letters) - right):
        raise CheckFailed(f"{letter} {verdict}: {meanings[letter]}")
    missing = right - set(letters)
    require(not missing, f"{len(missing)} more: {more}")
    return "; ".join(meanings[letter] for letter in sorted(right))
