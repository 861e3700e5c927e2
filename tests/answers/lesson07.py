"""Right, blank and wrong answers to the exercises of lesson 07."""

from functools import partial
from itertools import combinations, product

import numpy as np

from tlcourse.checks import lesson07

ROWS = {
    "Breast, probe": (73.08, 114, 156),
    "Breast, k-NN": (78.21, 114, 156),
    "Retina, probe, 28": (43.50, 174, 400),
    "Retina, probe, 224": (49.50, 174, 400),
    "Breast, tuned": (87.18, 114, 156),
}
RIGHT_ROWS = ["Breast, probe", "Retina, probe, 28"]
SUSPECTS = partial(lesson07.check_suspects, rows=ROWS)


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
    (SUSPECTS, RIGHT_ROWS),
]
BLANK = [
    (lesson07.check_two_labels, lambda images, labels: ...),
    (lesson07.check_by_halves, lambda maps: ...),
    (SUSPECTS, ...),
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
    (SUSPECTS, [], "none was found"),
    (SUSPECTS, "Breast, probe", "not a list"),
    (SUSPECTS, ["Lung"], "no row is called Lung"),
    (SUSPECTS, [*RIGHT_ROWS, "Breast, k-NN"], "not equal to it"),
    (SUSPECTS, [*RIGHT_ROWS, "Breast, tuned"], "far from"),
    (SUSPECTS, ["Breast, probe"], "1 more"),
]
