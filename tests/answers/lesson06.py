"""Right, blank and wrong answers to the exercises of lesson 06."""

import numpy as np

from tlcourse.checks import lesson06
from tlcourse.metrics import apply_temperature, at_threshold


def shares(labels, scores, threshold):
    called = scores >= threshold
    return called[labels == 0].mean(), (~called[labels != 0]).mean()


def by_package(labels, scores, threshold):
    point = at_threshold(labels, np.stack([scores, 1 - scores], axis=1), threshold)
    return point.sensitivity, point.specificity


def soften(probs, t):
    odds = np.exp(np.log(probs) / t)
    return odds / odds.sum(axis=1, keepdims=True)


def counted(found_by, cleared_by):
    """Shares with other denominators, given labels, calls and the two counts."""

    def function(labels, scores, threshold):
        called = scores >= threshold
        found, cleared = (called & (labels == 0)).sum(), (~called & (labels == 1)).sum()
        return found / found_by(labels, called), cleared / cleared_by(labels, called)

    return function


def everyone(labels, called):
    return len(labels)


def one(labels, called):
    return 1


RIGHT = [
    (lesson06.check_leaks, "BDE"),
    (lesson06.check_leaks, "e, d, b"),
    (lesson06.check_shares, shares),
    (lesson06.check_shares, by_package),
    (lesson06.check_soften, soften),
    (lesson06.check_soften, apply_temperature),
]
BLANK = [
    (lesson06.check_leaks, ...),
    (lesson06.check_shares, lambda labels, scores, threshold: ...),
    (lesson06.check_soften, lambda probs, t: ...),
]
WRONG = [
    (lesson06.check_leaks, "ABDE", "A is sound"),
    (lesson06.check_leaks, "BC", "C is sound"),
    (lesson06.check_leaks, "BD", "1 more"),
    (lesson06.check_leaks, "F", "from A to E"),
    (lesson06.check_leaks, "", "from A to E"),
    (lesson06.check_leaks, 3, "expected letters such as"),
    (lesson06.check_shares, lambda y, s, t: shares(y, s, t)[::-1], "sensitivity first"),
    (lesson06.check_shares, lambda y, s, t: shares(1 - y, s, t), "label 0 is malignant"),
    (lesson06.check_shares, lambda y, s, t: shares(y, s, t + 1e-9), "use >="),
    (
        lesson06.check_shares,
        lambda y, s, t: (shares(y, s, t)[0], 1 - shares(y, s, t)[1]),
        "share of false alarms",
    ),
    (
        lesson06.check_shares,
        counted(lambda y, called: called.sum(), lambda y, called: (~called).sum()),
        "shares of what was called",
    ),
    (lesson06.check_shares, counted(everyone, everyone), "shares of all scans"),
    (lesson06.check_shares, counted(one, one), "those are counts"),
    (lesson06.check_shares, lambda y, s, t: (0.75, 4 / 6), "at threshold 0"),
    (lesson06.check_shares, lambda y, s, t: (0.2, 0.2), "got 0.200, 0.200"),
    (lesson06.check_shares, lambda y, s, t: 0.75, "expected two numbers"),
    (lesson06.check_soften, lambda p, t: p, "nothing changed"),
    (lesson06.check_soften, lambda p, t: p / t / (p / t).sum(1, keepdims=True), "nothing changed"),
    (lesson06.check_soften, lambda p, t: p / t, "halves the probabilities"),
    (lesson06.check_soften, lambda p, t: soften(p, 1 / t), "surer instead"),
    (lesson06.check_soften, lambda p, t: np.exp(np.log(p) / t), "do not sum to 1"),
    (lesson06.check_soften, lambda p, t: p**0.5 / (p**0.5).sum(0), "sums of columns"),
    (lesson06.check_soften, lambda p, t: p**0.5 / (p**0.5).sum(), "the sum of all"),
    (lesson06.check_soften, lambda p, t: np.log(p) / t, "logits still"),
    (lesson06.check_soften, lambda p, t: p[0], "expected shape"),
    (lesson06.check_soften, lambda p, t: np.full_like(p, 0.3), "expected .0.75 0.25"),
    (lesson06.check_soften, lambda p, t: "soft", "expected an array"),
]
