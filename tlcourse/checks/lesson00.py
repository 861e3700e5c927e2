"""Checks of lesson 00, Meet the problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from tlcourse.checks.core import Verdict, blank, call, check, close, compare, number, require


def compare_reading(reading: str | EllipsisType, labels: NDArray[np.int64]) -> Verdict:
    """Compare the learner's reading of some scans, such as "mmmmmm", with the labels.

    Raises:
        CheckFailed: If the reading is not one letter, m or b, for each label.

    >>> compare_reading("mb", np.array([0, 0]))
    ✔ Right: 1 of 2; the labels are mm. A doctor has a far larger picture, and the patient
    """
    truth = "".join("mb"[label] for label in labels)
    if blank(reading):
        return Verdict(False, "write your reading in the cell above, then run this cell again")
    letters = str(reading).strip().lower()
    known = len(letters) == len(labels) and set(letters) <= set("mb")
    require(known, f"expected {len(labels)} letters, each m or b, got {reading!r}")
    right = sum(a == b for a, b in zip(letters, truth, strict=True))
    return Verdict(
        True,
        f"{right} of {len(labels)}; the labels are {truth}. "
        "A doctor has a far larger picture, and the patient",
    )


@check("compare the labels with 1: that gives True or False for each; its mean is a share")
def check_lazy_accuracy(answer: float, labels: NDArray[np.int64]) -> str:
    """Check the accuracy of always answering class 1."""
    value, share = number(answer, "the accuracy"), float(np.mean(labels == 1))
    require(not close(value, 1 - share), "that is the share of malignant scans: all wrong answers")
    require(not close(value, share * len(labels)), "that is a count: divide by the number of scans")
    require(not close(value, share * 100), "that is in percent: give a share between 0 and 1")
    require(close(value, share), "count the labels that equal 1 in data.test.labels, no other part")
    return f"{share:.3f}, without finding a single cancer. Accuracy alone says little here"


PAIRS: tuple[tuple[Sequence[float], Sequence[float], float], ...] = (
    ((0.9, 0.8), (0.1, 0.2, 0.3), 1.0),
    ((0.9, 0.2), (0.5, 0.1), 0.75),
    ((0.1,), (0.7, 0.9), 0.0),
)


TIES = ((0.5, 0.5), (0.5, 0.1), 0.75)


@check("for every malignant score and every harmless score: is the first higher?")
def check_auc_by_pairs(function: Callable[[Sequence[float], Sequence[float]], float]) -> str:
    """Check an AUC written as a share of pairs."""
    for malignant, harmless, expected in PAIRS:
        value = number(call(function, malignant, harmless), "the AUC")
        require(value <= 1, "that counts pairs: divide by their number")
        turned = "turned round: a point is earned when the malignant score is the higher one"
        told = f"malignant {malignant}, harmless {harmless}: expected {expected}, got {value:.3f}"
        compare(value, expected, told, (1 - expected, turned))
    value = number(call(function, TIES[0], TIES[1]), "the AUC")
    forgotten = (0.5, "ties are forgotten: equal scores earn one half")
    whole = (1.0, "a tie earned a whole point: it earns one half")
    compare(value, TIES[2], f"with ties expected {TIES[2]}, got {value:.3f}", forgotten, whole)
    return "that is the AUC, and scikit-learn's roc_auc_score gives the same, faster"
