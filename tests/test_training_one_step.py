import pytest
import torch
from torch import nn

from tlcourse.training.steps import one_step


def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 2))
    return model, torch.randn(8, 3, 2, 2), torch.arange(8) % 2


def two_groups(model):
    return [
        {"params": model[1].parameters(), "lr": 1e-2, "name": "low"},
        {"params": model[2].parameters(), "lr": 1e-1, "name": "high"},
    ]


@pytest.mark.parametrize("momentum", [0, 0.9])
def test_the_first_step_of_sgd_is_rate_times_gradient(momentum):
    model, images, labels = setting()
    table = one_step(model, torch.optim.SGD(two_groups(model), momentum=momentum), images, labels)
    assert table.index.tolist() == ["low", "high"]
    assert table["moved_per_gradient"].tolist() == pytest.approx([1e-2, 1e-1], rel=1e-3)


def test_the_second_step_carries_momentum():
    model, images, labels = setting()
    optimizer = torch.optim.SGD(two_groups(model), momentum=0.9)
    one_step(model, optimizer, images, labels)
    table = one_step(model, optimizer, images, labels)
    assert (table["moved_per_gradient"] > 1.5 * table["lr"]).all()


def test_leftover_gradients_do_not_count():
    model, images, labels = setting()
    expected = one_step(model, torch.optim.SGD(two_groups(model)), images, labels)
    again, *_ = setting()
    nn.functional.cross_entropy(again(images), labels).backward()
    found = one_step(again, torch.optim.SGD(two_groups(again)), images, labels)
    assert found["gradient"].tolist() == pytest.approx(expected["gradient"].tolist())


def test_a_group_of_frozen_parameters_moves_nowhere():
    model, images, labels = setting()
    model[1].requires_grad_(False)
    table = one_step(model, torch.optim.SGD(two_groups(model)), images, labels)
    assert table.loc["low", "moved"] == 0
    assert table["moved_per_gradient"].isna().tolist() == [True, False]


def test_groups_without_a_name_are_numbered():
    model, images, labels = setting()
    table = one_step(model, torch.optim.SGD(model.parameters(), lr=0.1), images, labels)
    assert table.index.tolist() == ["group0"]
