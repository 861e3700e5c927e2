"""A model card says what must be said, with figures that follow from the predictions alone."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from torch import nn

from tests.test_training import an_image_set
from tlcourse import metrics
from tlcourse.datasets.base import PARTITIONS
from tlcourse.detectors import Detector
from tlcourse.reports import model_card
from tlcourse.reports.card import ModelCard
from tlcourse.reports.page import SPLIT_TEXTS

CLASSES = ("dark", "light | <b>grey</b>")
HEADINGS = [
    "What it is",
    "What it is for, and what not",
    "Images",
    "How it was chosen",
    "Scores on 8 test images",
    "When it raises an alarm",
    "Calibration on the test images",
    "Known failures",
    "Made with",
]
SAID = {"chosen": "By validation loss, of two.", "failures": ["It misses small ones."]}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr("tlcourse.reports.card.CARD_RESAMPLES", 20)


@pytest.fixture
def data():
    return replace(an_image_set(), classes=CLASSES)


def a_detector(**changes):
    given = {
        "model": nn.Identity(),
        "backbone": "mobilenet_v2",
        "classes": CLASSES,
        "size": 96,
        "image_shape": (28, 28),
        "preprocessing": {},
        "temperature": 2.0,
        "threshold": 0.3,
        "positive": CLASSES[0],
        "notes": {},
        "version": "0.1.0",
    }
    return Detector(**given | changes)


def predictions(data, dark=(0.9, 0.1, 0.6, 0.4, 0.2, 0.35, 0.7, 0.05), classes=CLASSES):
    """Labels of the test part alternate, dark first."""
    assert data.test.labels.tolist() == [0, 1] * 4
    rest = (1 - np.array(dark)) / (len(classes) - 1)
    return pd.DataFrame(np.stack([dark, *[rest] * (len(classes) - 1)], 1), columns=list(classes))


def card(data, detector=None, probs=None, **said):
    probs = predictions(data) if probs is None else probs
    return model_card(detector or a_detector(), data, probs, **SAID | said)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_it_says_of_every_partition_how_it_came_about(data, partition):
    assert f"The parts {SPLIT_TEXTS[partition]}." in card(replace(data, partition=partition))


def test_it_has_all_that_a_card_must_have(data):
    text = card(data)
    assert re.findall(r"^## (.+)$", text, flags=re.M) == HEADINGS
    assert len(re.findall(r"^# ", text, flags=re.M)) == 1
    for words in ("Not for patients.", "By validation loss, of two.", "- It misses small ones."):
        assert words in text
    assert "made for this test. Licence: none." in " ".join(text.split())
    assert "`mobilenet_v2`" in text
    assert "96 x 96" in text
    assert "tlcourse 0.1.0, python 3" in text
    assert "simulated" not in text


def test_it_fits_a_page(data):
    assert len(card(data).splitlines()) < 80
    assert not re.search(r"\n\n\n", card(data))


def test_its_scores_are_those_of_the_predictions(data):
    text, probs = card(data), predictions(data)
    labels, rows = data.test.labels, probs.to_numpy()
    assert f"{metrics.auc(labels, rows):.3f} [" in text
    assert re.search(rf"^\| accuracy \| {metrics.accuracy(labels, rows):.3f} \[", text, flags=re.M)
    other = card(data, probs=predictions(data, dark=(0.1, 0.9) * 4))
    assert re.search(r"^\| accuracy \| 0\.000 \[0\.000, 0\.000\] \|$", other, flags=re.M)


def test_its_alarm_is_the_detectors_own(data):
    # From 0.3 on: 3 of 4 dark ones are found, 2 of 4 others are called.
    text = " ".join(card(data).split())
    assert "finds 3 of 4 (sensitivity 0.750) and clears 2 of 4 others (specificity 0.500)" in text
    assert "Of its 5 alarms 3 are right" in text
    other = " ".join(card(data, a_detector(positive=CLASSES[1], threshold=0.5)).split())
    assert "finds 4 of 4" in other
    assert "clears 3 of 4 others" in other


def test_without_a_threshold_the_most_probable_class_is_the_answer(data):
    text = card(data, a_detector(threshold=None, positive=None, temperature=None))
    assert "the most probable class is the answer" in text
    assert "temperature" not in text


def test_calibration_is_told_with_and_without_the_temperature(data):
    labels, rows = data.test.labels, predictions(data).to_numpy()
    raw = rows**2 / (rows**2).sum(axis=1, keepdims=True)  # a temperature of 2 taken back
    text = card(data)
    assert f"| as it answers | {metrics.calibration_error(labels, rows):.3f} |" in text
    assert f"| {metrics.log_loss(labels, raw):.3f} |\n" in text.split("without its temperature")[1]


def test_tables_keep_their_columns_whatever_a_class_is_called(data):
    text = card(data)
    assert "<b>" not in text
    assert r"light \| &lt;b&gt;grey&lt;/b&gt;" in text
    rows = [line for line in text.splitlines() if line.startswith(("| part", "|:--|--", "| train"))]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [4] * 4
    assert "| train | 12 | 12 |" in text


def test_simulated_images_and_citations_are_named(data):
    text = card(replace(data, simulated=True, citation="Nobody et al."))
    assert "no score here says anything about real ones" in text
    assert "Cite: Nobody et al.." not in text
    assert "Cite: Nobody et al." in text


def test_three_classes_have_a_card_too():
    data = replace(an_image_set(classes=3), classes=("a", "b", "c"))
    probs = np.full((8, 3), 0.2) + 0.4 * np.eye(3)[data.test.labels]
    detector = a_detector(classes=data.classes, threshold=None, positive=None)
    assert "| train | 8 | 8 | 8 |" in card(data, detector, pd.DataFrame(probs, columns=[*"abc"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": "short"}, "a row for each of 8 test images"),
        ({"probs": "swapped"}, "a column for each class"),
        ({"chosen": " "}, "how it was chosen"),
        ({"failures": []}, "look at the most wrong images"),
        ({"failures": "It misses small ones."}, "a list of known failures"),
    ],
)
def test_what_is_missing_is_refused(data, change, message):
    if "probs" in change:
        probs = predictions(data)
        change = {"probs": probs[:5] if change["probs"] == "short" else probs[list(CLASSES[::-1])]}
    with pytest.raises(ValueError, match=message):
        card(data, **change)


def test_another_sets_detector_is_refused(data):
    probs = predictions(data, classes=("cat", "dog"))
    with pytest.raises(ValueError, match="pass the set it was built on"):
        card(data, a_detector(classes=("cat", "dog"), positive="cat"), probs)


def test_it_is_written_whole(data, tmp_path):
    path = card(data).write(tmp_path / "new" / "card.md")
    assert path.read_text(encoding="utf-8") == card(data)
    assert [file.name for file in path.parent.iterdir()] == ["card.md"]


def test_a_notebook_lays_it_out(data):
    text = card(data)
    assert isinstance(text, ModelCard)
    assert text._repr_markdown_() == str(text) == repr(text)
