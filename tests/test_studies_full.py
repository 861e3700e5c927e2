"""The full recipe: its folds keep groups whole or do not, its rows hold what tables need."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from studies import images, lesson06
from studies.full import AUGMENTATIONS, fold_parts, run_fold, run_full
from tests.test_training import an_image_set
from tlcourse import metrics


@pytest.fixture(autouse=True)
def small(monkeypatch):
    data = an_image_set(train=24)
    grouped = replace(data, train=replace(data.train, groups=np.arange(24) // 4 * 2 + labels(24)))
    monkeypatch.setattr(images, "load_images", lambda *_, **__: grouped)
    images.image_set.cache_clear()
    images.all_images.cache_clear()
    yield
    images.image_set.cache_clear()
    images.all_images.cache_clear()


def labels(n):
    return an_image_set(train=n).train.labels


GIVEN = {"seed": 0, "lr": 1e-3, "epochs": 1, "size": 32}


def test_all_images_are_those_of_all_parts():
    data, everything = images.image_set("breast"), images.all_images("breast")
    assert len(everything) == sum(len(part) for part in data.parts.values())
    assert np.array_equal(everything.images[: len(data.train)], data.train.images)
    assert np.array_equal(everything.images[-len(data.test) :], data.test.images)


@pytest.mark.parametrize("augment", sorted(AUGMENTATIONS))
def test_a_run_that_chooses_leaves_the_test_images_shut(augment):
    row = run_full(augment=augment, **GIVEN, test=False)
    assert {"val_loss", "val_auc", "train_seconds"} <= set(row)
    assert "auc" not in row
    opened = run_full(augment=augment, **GIVEN)
    assert opened["val_loss"] == row["val_loss"]
    first = np.array(opened["probs"])
    test = images.image_set("breast").test
    assert metrics.auc(test.labels, np.column_stack([first, 1 - first])) == opened["auc"]


def test_folds_by_group_share_nothing_and_folds_by_image_do():
    part = images.all_images("breast")
    part = replace(part, groups=np.arange(len(part)) // 6 * 2 + part.labels)
    seen = []
    for fold in range(2):
        data, held_out, shared = fold_parts(part, "group", 0, fold, folds=2)
        assert shared == 0
        assert not set(data.train.groups) & set(data.val.groups)
        assert np.array_equal(data.test.images, part.images[held_out])
        assert len(data.train) + len(data.val) + len(data.test) == len(part)
        seen += held_out.tolist()
    assert sorted(seen) == list(range(len(part)))
    assert fold_parts(part, "image", 0, 0, folds=2)[2] > 0.5
    with pytest.raises(ValueError, match="by 'group' or 'image', got 'patient'"):
        fold_parts(part, "patient", 0, 0)


def test_a_fold_says_which_images_it_judged():
    row = run_fold("group", fold=1, augment="flip", folds=2, **GIVEN)
    assert len(row["rows"]) == len(row["probs"])
    assert row["shared"] == 0


def test_the_published_tables_hold_every_seed_the_ensemble_and_every_image():
    test = images.image_set("breast").test
    probs = [np.full(len(test), 0.5) + 0.1 * (test.labels == 0) * sign for sign in (3, -1)]
    runs = pd.DataFrame(
        {
            "seed": [0, 1],
            "train_images": 24,
            "augment": "flip",
            "lr": 1e-3,
            "val_loss": 0.5,
            "val_auc": 0.9,
            "auc": [1.0, 0.0],
            "accuracy": [1.0, 0.5],
            "loss": 0.4,
            "train_seconds": 2.0,
            "probs": [p.tolist() for p in probs],
        }
    )
    table = lesson06.tidy(runs, test.labels, simulated=False)
    assert table["seed"].tolist() == ["0", "1", "ensemble"]
    assert table.iloc[-1]["auc"] == 1, "the mean of a right and a slightly wrong network is right"
    assert table["split"].eq("official").all()
    part = images.all_images("breast")
    halves = np.array_split(np.arange(len(part)), 2)
    folds = pd.DataFrame(
        [
            {"seed": 0, "fold": k, "rows": half.tolist(), "probs": [0.5] * len(half)}
            for k, half in enumerate(halves)
        ]
    )
    held_out = lesson06.tidy_folds(folds, part, simulated=True)
    assert held_out["image"].tolist() == list(range(len(part)))
    assert np.array_equal(held_out["label"], part.labels)
    assert np.array_equal(held_out["group"], part.groups)
    assert held_out["images"].eq("simulated").all()
