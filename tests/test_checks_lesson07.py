from itertools import combinations, product

import numpy as np
import pytest

from tlcourse.checks import CheckFailed, lesson07

ROWS = {
    "Breast, probe": (73.08, 114, 156),
    "Breast, k-NN": (78.21, 114, 156),
    "Retina, probe, 28": (43.50, 174, 400),
    "Retina, probe, 224": (49.50, 174, 400),
    "Breast, tuned": (87.18, 114, 156),
}
RIGHT_ROWS = ["Breast, probe", "Retina, probe, 28"]


def pairs_where(same, pairs=combinations, labels_differ=True):
    """Build an answer that differs from the right one in one place."""

    def answer(images, labels):
        places = range(len(images))
        drawn = pairs(places, 2) if pairs is combinations else product(places, repeat=2)
        return [
            (i, j)
            for i, j in drawn
            if same(images[i], images[j]) and (labels[i] != labels[j] or not labels_differ)
        ]

    return answer


equal = np.array_equal


def alike(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95


def same_sum(a, b):
    return a.sum() == b.sum()


def both_ways(images, labels):
    return [p for i, j in pairs_where(equal)(images, labels) for p in ((i, j), (j, i))]


def halves(maps, axis=3, order=1, join=1):
    first, second = np.array_split(maps, 2, axis=axis)
    means = [part.mean(axis=(2, 3)) for part in (first, second)]
    return np.concatenate(means[::order], axis=join)


RIGHT = [
    (lesson07.check_two_labels, pairs_where(equal)),
    (lesson07.check_by_halves, halves),
]
BLANK = [
    (lesson07.check_two_labels, lambda images, labels: ...),
    (lesson07.check_by_halves, lambda maps: ...),
]
WRONG = [
    (lesson07.check_two_labels, lambda images, labels: [], "no pair was found"),
    (lesson07.check_two_labels, lambda images, labels: 2, "expected a list of pairs"),
    (lesson07.check_two_labels, lambda images, labels: [1, 4], "expected a list of pairs"),
    (lesson07.check_two_labels, lambda images, labels: None, "None"),
    (
        lesson07.check_two_labels,
        pairs_where(equal, pairs=product, labels_differ=False),
        "with itself",
    ),
    (lesson07.check_two_labels, both_ways, "come twice"),
    (lesson07.check_two_labels, pairs_where(equal, labels_differ=False), "same label"),
    (lesson07.check_two_labels, pairs_where(alike), "brighter copy"),
    (lesson07.check_two_labels, pairs_where(same_sum), "same numbers in other places"),
    (lesson07.check_two_labels, lambda images, labels: [(1, 4)], "only 1 of 2"),
    (lesson07.check_two_labels, lambda images, labels: [(1, 4), (0, 2)], "is not equal"),
    (lesson07.check_two_labels, lambda images, labels: [(4, 1), (7, 3)], "smaller number first"),
    (lesson07.check_by_halves, lambda maps: maps.mean(axis=(2, 3)), "one number for both sides"),
    (lesson07.check_by_halves, lambda maps: halves(maps, axis=2), "above from below"),
    (lesson07.check_by_halves, lambda maps: halves(maps, order=-1), "exchanged"),
    (lesson07.check_by_halves, lambda maps: halves(maps, join=0), "below each other"),
    (lesson07.check_by_halves, lambda maps: maps.reshape(len(maps), -1), "two means per channel"),
    (lesson07.check_by_halves, lambda maps: maps, "one row per image"),
    (lesson07.check_by_halves, lambda maps: 2 * halves(maps), "not the means"),
]
WRONG_ROWS = [
    ([], "none was found"),
    ("Breast, probe", "not a list"),
    (["Lung"], "no row is called Lung"),
    ([*RIGHT_ROWS, "Breast, k-NN"], "not equal to it"),
    ([*RIGHT_ROWS, "Breast, tuned"], "far from"),
    (["Breast, probe"], "1 more"),
]


@pytest.mark.parametrize(("check", "answer"), RIGHT)
def test_right_answers_pass(check, answer):
    assert check(answer).passed


@pytest.mark.parametrize(("check", "answer"), BLANK)
def test_blanks_get_the_hint(check, answer):
    assert not check(...).passed
    assert not check(answer).passed


@pytest.mark.parametrize(("check", "answer", "message"), WRONG)
def test_wrong_answers_are_named(check, answer, message):
    with pytest.raises(CheckFailed, match=message):
        check(answer)


def test_the_rows_of_the_majority_are_named():
    assert lesson07.check_suspects(RIGHT_ROWS, ROWS).passed
    assert not lesson07.check_suspects(..., ROWS).passed


@pytest.mark.parametrize(("answer", "message"), WRONG_ROWS)
def test_wrong_rows_are_named(answer, message):
    with pytest.raises(CheckFailed, match=message):
        lesson07.check_suspects(answer, ROWS)
