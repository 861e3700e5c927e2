import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from tlcourse.datasets import Split
from tlcourse.freezing import freeze
from tlcourse.optim import constant, param_groups
from tlcourse.training.steps import first_steps

STEPS = 4


@pytest.fixture
def few():
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (12, 28, 28), dtype=np.uint8), np.arange(12) % 2)


def watched(few, *, warmup=0, frozen=False, seed=0):
    torch.manual_seed(0)
    model = resnet18(num_classes=2)
    if frozen:
        freeze(model)
    groups = param_groups(model, head_lr=0.01, backbone_lr=None if frozen else 0.01)
    optimizer = torch.optim.SGD(groups)
    schedule = constant(optimizer, STEPS, warmup)
    return first_steps(
        model, few, optimizer, schedule, steps=STEPS, batch_size=4, size=32, seed=seed
    )


def test_one_row_per_step_also_beyond_one_pass_over_the_images(few):
    table = watched(few)
    assert table["step"].tolist() == [1, 2, 3, 4]
    assert (table.filter(like="drift/").iloc[0] > 0).all()
    assert table.notna().all().all()


def test_a_rate_of_zero_moves_nothing_and_the_rates_rise(few):
    table = watched(few, warmup=2)
    assert table["lr/head"].tolist() == [0, 0.005, 0.01, 0.01]
    assert (table.filter(like="drift/").iloc[0] == 0).all()
    assert (table.filter(like="grad/").iloc[0] > 0).all()
    assert (table.filter(like="drift/").iloc[1] > 0).all()


def test_the_backbone_is_everything_but_the_head(few):
    table = watched(few)
    below = table[[c for c in table if c.startswith("grad/stage") or c == "grad/stem"]]
    assert np.allclose(table["grad/backbone"], np.sqrt((below**2).sum(axis=1)))


def test_frozen_stages_do_not_drift(few):
    table = watched(few, frozen=True)
    assert (table["drift/stage4"] == 0).all()
    assert (table["grad/backbone"] == 0).all()
    assert table["drift/head"].iloc[-1] > 0


def test_the_seed_repeats_the_steps(few):
    assert watched(few).equals(watched(few))
    assert not watched(few).equals(watched(few, seed=1))


def test_no_steps_are_refused(few):
    with pytest.raises(ValueError, match="at least 1 step"):
        first_steps(resnet18(num_classes=2), few, None, steps=0)
