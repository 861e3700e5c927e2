"""Checks of lesson 06, Build the detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlcourse.checks.core import call, check, check_letters, compare, numbers, require

PROTOCOLS = {
    "A": "A chooses a rate on validation images; the test images judge the chosen one alone",
    "B": "B stops where the test AUC is highest: the test images choose the epoch",
    "C": "C fits its temperature on validation images, and that is what they are for",
    "D": "D reports the best of several test scores: the test images choose the seed",
    "E": "E lets one patient stand on both sides: the network is asked about a lesion it has seen",
}


@check("three of the five: in which of them does a test image help, before it judges?")
def check_leaks(answer: str) -> str:
    """Check which protocols, by letter, let test images help; such as "AB"."""
    more = "where else does a test image choose, or teach?"
    return check_letters(answer, PROTOCOLS, frozenset("BDE"), verdict="is sound", more=more)


LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])

PROBS_MALIGNANT = np.array([0.9, 0.8, 0.5, 0.1, 0.7, 0.6, 0.3, 0.2, 0.2, 0.1])
"""At 0.5: 3 of 4 malignant scans are found, 4 of 6 others cleared; one score is exactly 0.5."""


@check("called = p_malignant >= threshold; then a share of the malignant and one of the others")
def check_shares(
    function: Callable[[NDArray[Any], NDArray[Any], float], tuple[float, float]],
) -> str:
    """Check a function that returns sensitivity and specificity at a threshold."""
    answer = call(function, LABELS.copy(), PROBS_MALIGNANT.copy(), 0.5)
    shares = numbers(answer, "two numbers: sensitivity, specificity", (2,))
    compare(
        shares,
        (3 / 4, 4 / 6),
        f"3 of 4 malignant found, 4 of 6 others cleared: got {shares[0]:.3f}, {shares[1]:.3f}",
        ((4 / 6, 3 / 4), "in the wrong order: sensitivity first"),
        ((2 / 6, 1 / 4), "turned round: label 0 is malignant, that is the class to be found"),
        ((2 / 4, 4 / 6), "a score equal to the threshold is called malignant, too: use >="),
        ((3 / 4, 2 / 6), "the second is the share of false alarms: take those that are cleared"),
        ((3 / 5, 4 / 5), "those are shares of what was called: divide by the scans of each kind"),
        ((3 / 10, 4 / 10), "those are shares of all scans: divide by the scans of each kind"),
        ((3, 4), "those are counts: divide by the scans of each kind"),
    )
    everybody = list(call(function, LABELS, PROBS_MALIGNANT, 0.0))
    require(everybody == [1, 0], f"at threshold 0 all are called: expected 1, 0; got {everybody}")
    return "every threshold gives one such pair; all pairs together are the ROC curve"


PROBS = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])


@check("logits = np.log(probs); divide by t; np.exp; then divide each row by its sum")
def check_soften(function: Callable[[NDArray[np.float64], float], NDArray[np.float64]]) -> str:
    """Check temperature scaling of probabilities, at temperature 2."""
    answer = call(function, PROBS.copy(), 2.0)
    found = numbers(answer, "an array of probabilities, a row per image")
    require(found.shape == PROBS.shape, f"expected shape {PROBS.shape}, got {found.shape}")
    powers = np.sqrt(PROBS)
    expected = powers / powers.sum(1, keepdims=True)
    compare(
        found,
        expected,
        f"{PROBS[0]} at temperature 2: expected {expected[0].round(3)}, got {found[0].round(3)}",
        (PROBS, "nothing changed: probabilities were divided, or t was left out. Divide logits"),
        (PROBS / 2, "that halves the probabilities: divide the logits, which are logarithms"),
        (PROBS**2 / (PROBS**2).sum(1, keepdims=True), "surer instead of less sure: divide by t"),
        (powers, "the rows do not sum to 1: divide each by its sum"),
        (powers / powers.sum(0), "that divides by sums of columns: each row must sum to 1"),
        (powers / powers.sum(), "that divides by the sum of all: each row must sum to 1"),
        (np.log(PROBS) / 2, "those are logits still: np.exp makes numbers above 0 of them"),
    )
    return "0.9 became 0.75; no answer changed. metrics.apply_temperature does the same"
