import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torchvision import models

from tlcourse import optim
from tlcourse.backbones import stages

STEPS = 12
OPTIMIZERS = [torch.optim.SGD, torch.optim.AdamW]
SCHEDULERS = {
    "warmup_cosine": lambda o: optim.warmup_cosine(o, STEPS, 4),
    "constant": lambda o: optim.constant(o, STEPS, 4),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=4, gamma=0.1),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [
            lr_scheduler.LinearLR(o, start_factor=0.01, total_iters=4),
            lr_scheduler.CosineAnnealingLR(o, STEPS - 4),
        ],
        milestones=[4],
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=2),
    # One number as max_lr would give all groups that rate: it takes a list, a rate per group.
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(
        o, max_lr=[g["lr"] for g in o.param_groups], total_steps=STEPS + 1, cycle_momentum=False
    ),
}


@pytest.fixture
def model():
    return models.mobilenet_v2(width_mult=0.25, num_classes=2)


def one_parameter(optimizer=torch.optim.SGD, lr=1.0, **options):
    return optimizer([nn.Parameter(torch.zeros(1))], lr=lr, **options)


def rates_of(schedule, optimizer, steps):
    """The rates of the first steps as the optimizer sees them."""
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_warmup_cosine_starts_at_exactly_zero_and_ends_near_it():
    optimizer = one_parameter(lr=0.5)
    seen = rates_of(optim.warmup_cosine(optimizer, 20, 5), optimizer, 20)
    assert seen[0] == 0.0
    assert seen[:6] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert seen[5:] == sorted(seen[5:], reverse=True)
    assert 0 < seen[-1] < 0.01
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (1, 1), (5, 5), (7, 0)])
def test_warmup_cosine_at_the_edges(total, warmup):
    optimizer = one_parameter()
    seen = rates_of(optim.warmup_cosine(optimizer, total, warmup), optimizer, total + 3)
    assert seen[0] == (0.0 if warmup else 1.0)
    assert all(0 <= rate <= 1 for rate in seen)


def test_warmup_takes_a_tenth_unless_told():
    optimizer = one_parameter()
    seen = rates_of(optim.warmup_cosine(optimizer, 95), optimizer, 95)
    assert seen.index(max(seen)) == 10


def test_constant_with_and_without_warmup():
    optimizer = one_parameter()
    assert set(rates_of(optim.constant(optimizer, 5), optimizer, 5)) == {1.0}
    optimizer = one_parameter()
    assert rates_of(optim.constant(optimizer, 5, 2), optimizer, 5) == [0.0, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", [optim.warmup_cosine, optim.constant])
def test_impossible_steps_are_refused(schedule):
    with pytest.raises(ValueError, match="warmup_steps from 0 to total_steps=10, got 11"):
        schedule(one_parameter(), 10, 11)
    with pytest.raises(ValueError, match="warmup_steps from 0 to total_steps=10, got -1"):
        schedule(one_parameter(), 10, -1)
    with pytest.raises(ValueError, match="total_steps of at least 1, got 0"):
        schedule(one_parameter(), 0, 0)


def steps_of(model, optimizer, scheduler):
    """Take steps on gradients of one; return rates and mean movement, both (steps, groups)."""
    rates, moves = [], []
    for _ in range(STEPS):
        rates.append([group["lr"] for group in optimizer.param_groups])
        before = [[p.detach().clone() for p in g["params"]] for g in optimizer.param_groups]
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        moves.append(
            [
                torch.cat([(b - p).flatten() for b, p in zip(old, g["params"], strict=True)])
                .mean()
                .item()
                for old, g in zip(before, optimizer.param_groups, strict=True)
            ]
        )
        plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
        scheduler.step(*([1.0] if plateau else []))
    return torch.tensor(rates), torch.tensor(moves)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_move_each_group_by_its_own_rate_and_keep_the_proportions(
    model, optimizer, scheduler
):
    groups = optim.param_groups(model, head_lr=1e-2, decay=0.5, weight_decay=0.0, no_decay=True)
    own = torch.tensor([group["lr"] for group in groups])
    for parameter in model.double().parameters():
        parameter.data.zero_()  # so that no rounding hides a small step
    made = optimizer(groups)
    rates, moves = steps_of(model, made, SCHEDULERS[scheduler](made))
    # A gradient of one moves SGD and AdamW by just the rate.
    torch.testing.assert_close(moves, rates, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(
        rates / rates[:, -1:].clamp(min=1e-12) * 0.01,
        own.expand_as(rates) * (rates > 0),
        rtol=1e-5,
        atol=0,
    )
    assert len(set(rates[:, -1].tolist())) > 2, "the scheduler changed nothing"
    assert rates.max() <= 1e-2 * (1 + 1e-6)


def test_one_cycle_with_a_single_rate_loses_the_rate_of_each_group(model):
    """The trap that the list of `max_lr` avoids."""
    made = torch.optim.SGD(optim.param_groups(model, head_lr=1e-2, backbone_lr=1e-4))
    lr_scheduler.OneCycleLR(made, max_lr=1e-2, total_steps=STEPS, cycle_momentum=False)
    assert len({group["lr"] for group in made.param_groups}) == 1


def test_a_floor_under_the_cosine_is_the_same_for_all_groups(model):
    made = torch.optim.SGD(optim.param_groups(model, head_lr=1e-2, backbone_lr=1e-3))
    scheduler = lr_scheduler.CosineAnnealingLR(made, STEPS, eta_min=1e-4)
    for _ in range(STEPS):
        made.step()
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([1e-4] * len(made.param_groups))


def test_factors_per_group_reach_the_groups_in_their_order(model):
    made = torch.optim.AdamW(optim.param_groups(model, head_lr=1e-2, backbone_lr=1e-3))
    factors = [lambda step, i=i: 1 / (1 + i * step) for i in range(len(made.param_groups))]
    scheduler = lr_scheduler.LambdaLR(made, factors)
    made.step()
    scheduler.step()
    last = len(factors) - 1
    wanted = [1e-3 / (1 + i) for i in range(last)] + [1e-2 / (1 + last)]
    assert scheduler.get_last_lr() == pytest.approx(wanted)
    assert list(stages(model)) == [group["name"] for group in made.param_groups]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_schedules_scale_every_group(model, optimizer):
    made = optimizer(optim.param_groups(model, head_lr=1e-2, backbone_lr=1e-3))
    schedule = optim.warmup_cosine(made, 10, 4)
    assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
    assert {group["lr"] for group in made.param_groups} == {0.0}
    for _ in range(2):
        made.step()
        schedule.step()
    assert made.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert made.param_groups[-1]["lr"] == pytest.approx(5e-3)
