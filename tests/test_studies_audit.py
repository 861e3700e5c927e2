"""The audit's steps differ as they say; training stops when it should and keeps the best."""

import numpy as np
import pytest
import torch
from torch import nn

from studies import audit
from studies.audit import STEPS, run_probe_step, train_until_worse
from tests.test_training import an_image_set


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(audit, "load_images", lambda *_, **__: an_image_set(train=24))
    monkeypatch.setattr(audit, "PADDED", 48)
    monkeypatch.setattr(audit, "ENLARGED", 40)
    audit._images.cache_clear()
    audit._features.cache_clear()
    yield
    audit._images.cache_clear()
    audit._features.cache_clear()


@pytest.mark.parametrize("step", STEPS)
def test_every_step_trains_and_scores(step):
    row = run_probe_step(step, seed=0, most=2)
    assert 0 <= row["accuracy"] <= 1
    assert 0 <= row["majority_said"] <= 1
    assert row["majority"] == 0.5
    assert row["epochs"] == (0 if step in ("logistic regression", "64 px") else 2)


def test_an_unknown_step_is_refused():
    with pytest.raises(
        ValueError, match=r"expected a step of stopped.*, as published.*; got 'all'"
    ):
        run_probe_step("all", seed=0)


def test_only_the_published_recipe_moves_statistics(monkeypatch):
    moved = {}

    def noting(module, inputs, *_, **__):
        before = {k: v.clone() for k, v in module.state_dict().items()}
        module.train()
        module(inputs[0])
        after = module.state_dict()
        moved[type(module).__name__] = any(not torch.equal(before[k], after[k]) for k in before)
        return 1

    monkeypatch.setattr(audit, "train_until_worse", noting)
    run_probe_step("as published", seed=0)
    assert moved == {"MobileNetV2": True}
    run_probe_step("statistics held", seed=0)
    assert moved == {"MobileNetV2": True, "Linear": False}


def test_where_statistics_move_fewer_epochs_are_allowed(monkeypatch):
    monkeypatch.setattr(audit, "MOST_MOVING", {"stopped at 10 epochs": 1, "as published": 2})
    assert run_probe_step("stopped at 10 epochs", seed=0, most=3)["epochs"] == 1
    assert run_probe_step("as published", seed=0, most=3)["epochs"] == 2
    assert run_probe_step("statistics held", seed=0, most=2)["epochs"] == 2


def test_padding_puts_the_image_into_the_middle_of_black():
    padded = audit._padded(np.full((2, 27, 27), 9, np.uint8))
    assert padded.shape == (2, 48, 48)
    assert padded.sum() == 2 * 27 * 27 * 9
    assert padded[:, 10:37, 10:37].all()


def test_training_stops_after_the_patience_and_keeps_the_best():
    # Validation labels contradict: every step makes the validation loss worse.
    torch.manual_seed(0)
    layer, x, y = nn.Linear(2, 2), torch.eye(2).repeat(8, 1), torch.arange(2).repeat(8)
    epochs = train_until_worse(layer, (x, x), (y, 1 - y), lr=0.1, patience=3, most=50)
    assert epochs == 4, "the first epoch was the best"
    again = nn.Linear(2, 2)
    again.load_state_dict(layer.state_dict())
    loss = nn.functional.cross_entropy(layer(x), 1 - y)
    train_until_worse(again, (x, x), (y, 1 - y), lr=0.1, patience=1, most=1)
    assert nn.functional.cross_entropy(again(x), 1 - y) > loss
