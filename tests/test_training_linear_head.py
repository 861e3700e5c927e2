import numpy as np
import pytest
import torch

from tlcourse.datasets import Split
from tlcourse.training.linear_head import (
    PROBE,
    compare_heads,
    first_losses,
    head_probabilities,
    head_scores,
    train_head,
)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    labels = (np.arange(120) % 4 > 0).astype(np.int64)  # a quarter is class 0
    features = rng.normal(size=(120, 16)).astype(np.float32)
    features[:, 0] += 1.5 * labels
    return features, labels


def test_training_is_repeatable_and_leaves_the_global_generator(rows):
    state = torch.random.get_rng_state()
    first, second = (train_head(*rows, epochs=2, seed=3).weight for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(first, train_head(*rows, epochs=2, seed=4).weight)


def test_no_epoch_returns_the_untrained_head(rows):
    assert not torch.equal(
        train_head(*rows, epochs=0).weight, train_head(*rows, epochs=1, lr=0.1).weight
    )


def test_balancing_finds_more_of_the_rare_class(rows):
    found = [
        head_scores(rows[1], head_probabilities(train_head(*rows, epochs=30, balanced=b), rows[0]))[
            "sensitivity"
        ]
        for b in (False, True)
    ]
    assert found[1] > found[0]


def test_untrained_heads_start_near_the_logarithm_of_their_answers(rows):
    features, _ = rows
    for classes in (2, 1000):
        labels = np.arange(len(features)) % classes
        losses = first_losses(features, labels, classes, seeds=range(5))
        assert losses.shape == (5,)
        assert abs(losses.mean() - np.log(classes)) < 0.3


def test_recipes_meet_the_same_folds(rows):
    features, labels = rows
    part = Split(np.zeros((120, 2, 2), np.uint8), labels, np.arange(120) // 4)
    recipes = {"a": {}, "b": {}, "short": {"epochs": 1}}
    table = compare_heads(features, part, recipes, folds=3, with_probe=True)
    assert table["recipe"].value_counts().to_dict() == dict.fromkeys([*recipes, PROBE], 3 * 2)
    same = [table[table["recipe"] == name].drop(columns="recipe").to_numpy() for name in "ab"]
    assert np.array_equal(*same)


@pytest.mark.parametrize(
    ("features", "labels", "epochs", "message"),
    [
        (np.zeros((4, 2, 2), np.float32), np.array([0, 1, 0, 1]), 1, "expected features"),
        (np.zeros((4, 2), np.float32), np.array([0, 1]), 1, "expected features"),
        (np.zeros((2, 2), np.float32), np.array([1, 1]), 1, "two classes or more"),
        (np.zeros((2, 2), np.float32), np.array([0, 2]), 1, "each present"),
        (np.zeros((2, 2), np.float32), np.array([0, 1]), -1, "epochs of 0 or more"),
    ],
)
def test_bad_input_is_named(features, labels, epochs, message):
    with pytest.raises(ValueError, match=message):
        train_head(features, labels, epochs=epochs)
