import numpy as np
import pytest

from tlcourse.checks import CheckFailed
from tlcourse.checks import lesson01 as checks


def scaled(rows, by, **options):
    return (rows - by.mean(axis=0)) / by.std(axis=0, **options)


def right(train, held_out):
    return scaled(train, train), scaled(held_out, train)


def leaking(train, held_out):
    both = np.concatenate([train, held_out])
    return scaled(train, both), scaled(held_out, both)


PIXELS = {50: 0.6, 100: 0.7, 200: 0.75}
SCORES = {"bare": 0.5, "standardised": 0.75, "measured": 0.6}


@pytest.mark.parametrize("function", [right, lambda a, b: [*map(np.asarray, right(a, b))]])
def test_standardising_by_the_training_rows_is_right(function):
    assert checks.check_standardise(function).passed


def test_a_sample_deviation_is_right_too():
    assert checks.check_standardise(
        lambda a, b: (scaled(a, a, ddof=1), scaled(b, a, ddof=1))
    ).passed


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (leaking, "leakage"),
        (lambda a, b: (scaled(a, a), scaled(b, b)), "by their own mean"),
        (lambda a, b: ((a - a.mean()) / a.std(), (b - a.mean()) / a.std()), "axis=0"),
        (lambda a, b: (a - a.mean(axis=0), b - a.mean(axis=0)), "spread"),
        (lambda a, b: scaled(a, a), "return two arrays"),
        (lambda a, b: None, "return"),
        (lambda a, b: (scaled(b, a), scaled(a, a)), "expected 40 rows"),
    ],
)
def test_mistakes_in_standardising_are_named(function, message):
    with pytest.raises(CheckFailed, match=message):
        checks.check_standardise(function)


@pytest.mark.parametrize(("answer", "goal"), [(50, 0.5), (100, 0.65), (200, 0.75), (0, 0.9)])
def test_images_needed(answer, goal):
    assert checks.check_images_needed(answer, PIXELS, goal).passed


@pytest.mark.parametrize(
    ("answer", "goal", "message"),
    [
        (50, 0.65, "still below"),
        (200, 0.65, "a smaller size is too"),
        (200, 0.9, "the answer is 0"),
        (120, 0.65, "one of the sizes"),
        (0, 0.65, "look again"),
        ([], 0.65, "expected a number"),
    ],
)
def test_mistakes_in_images_needed_are_named(answer, goal, message):
    with pytest.raises(CheckFailed, match=message):
        checks.check_images_needed(answer, PIXELS, goal)


def test_the_strongest_baseline_is_right():
    assert checks.check_baseline("Standardised", SCORES).passed


@pytest.mark.parametrize(
    ("answer", "message"),
    [("bare", "tiny"), ("measured", "take the stronger"), ("pixels", "expected one of")],
)
def test_other_baselines_are_explained(answer, message):
    with pytest.raises(CheckFailed, match=message):
        checks.check_baseline(answer, SCORES)


def test_blanks_get_hints():
    assert not checks.check_standardise(lambda a, b: ...).passed
    assert not checks.check_images_needed(..., PIXELS, 0.7).passed
    assert not checks.check_baseline(..., SCORES).passed
