import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tlcourse.checks import CheckFailed, lesson00

LABELS = np.repeat([0, 1], [42, 114])


def auc_by_pairs(malignant, harmless):
    pairs = [(m > h) + 0.5 * (m == h) for m in malignant for h in harmless]
    return sum(pairs) / len(pairs)


def test_lazy_accuracy():
    assert lesson00.check_lazy_accuracy(114 / 156, LABELS).passed
    assert not lesson00.check_lazy_accuracy(..., LABELS).passed


@pytest.mark.parametrize(
    ("answer", "mistake"),
    [
        (42 / 156, "share of malignant scans"),
        (114, "that is a count"),
        (73.1, "in percent"),
        (0.5, "labels that equal 1 in data.test.labels"),
        ("most", "expected a number"),
    ],
)
def test_lazy_accuracy_names_the_mistake(answer, mistake):
    with pytest.raises(CheckFailed, match=mistake):
        lesson00.check_lazy_accuracy(answer, LABELS)


def test_auc_by_pairs():
    assert lesson00.check_auc_by_pairs(auc_by_pairs).passed
    assert not lesson00.check_auc_by_pairs(lambda malignant, harmless: ...).passed


@pytest.mark.parametrize(
    ("answer", "mistake"),
    [
        (lambda m, h: 1 - auc_by_pairs(m, h), "turned round"),
        (lambda m, h: sum(a > b for a in m for b in h), "counts pairs"),
        (lambda m, h: np.mean([a > b for a in m for b in h]), "ties are forgotten"),
        (lambda m, h: np.mean([a >= b for a in m for b in h]), "a tie earned a whole point"),
        (lambda m, h: np.mean([a > 0.5 for a in m]), "expected"),
        (lambda m, h: None, "is the `return` missing"),
    ],
)
def test_auc_by_pairs_names_the_mistake(answer, mistake):
    with pytest.raises(CheckFailed, match=mistake):
        lesson00.check_auc_by_pairs(answer)


def test_what_the_check_confirms_is_true():
    malignant, harmless = [0.9, 0.4, 0.4], [0.4, 0.1]
    expected = roc_auc_score([1, 1, 1, 0, 0], malignant + harmless)
    assert auc_by_pairs(malignant, harmless) == pytest.approx(expected)


def test_a_reading_is_compared():
    labels = np.array([0, 1, 1])
    assert "2 of 3; the labels are mbb" in lesson00.compare_reading("MMB", labels).message
    assert not lesson00.compare_reading(..., labels).passed
    with pytest.raises(CheckFailed, match="expected 3 letters, each m or b, got 'mx'"):
        lesson00.compare_reading("mx", labels)
