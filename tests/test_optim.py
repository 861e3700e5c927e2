import math

import pytest
import torch
from torch import nn
from torchvision import models

from tlcourse import optim
from tlcourse.backbones import stages

FAMILIES = [
    "resnet18",
    "mobilenet_v2",
    "efficientnet_b0",
    "densenet121",
    "vgg11_bn",
    "convnext_tiny",
    "vit_b_32",
    "swin_t",
    "shufflenet_v2_x0_5",
]


@pytest.fixture
def model():
    return models.mobilenet_v2(width_mult=0.25, num_classes=2)


def hold(model, *names):
    for name in names:
        for parameter in stages(model)[name].parameters():
            parameter.requires_grad_(False)


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


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("no_decay", [False, True])
def test_every_trainable_parameter_is_in_exactly_one_group(name, no_decay):
    with torch.device("meta"):
        model = models.get_model(name, num_classes=3)
    first = next(iter(stages(model)))
    hold(model, first)
    groups = optim.param_groups(model, head_lr=1e-3, decay=0.5, no_decay=no_decay)
    held = [id(p) for group in groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(group["params"] for group in groups)
    assert first not in {group["name"].split("/")[0] for group in groups}


def test_groups_are_named_after_stages_in_order(model):
    groups = optim.param_groups(model, head_lr=1e-2, backbone_lr=1e-3)
    assert [group["name"] for group in groups] == list(stages(model))
    assert [group["lr"] for group in groups] == [1e-3] * (len(groups) - 1) + [1e-2]
    assert all("weight_decay" not in group for group in groups)


def test_decay_shrinks_from_the_head_down_and_counts_frozen_stages(model):
    names = list(stages(model))
    hold(model, "stage3")
    groups = optim.param_groups(model, head_lr=0.1, decay=optim.ULMFIT_DECAY)
    rates = {group["name"]: group["lr"] for group in groups}
    assert "stage3" not in rates
    for name, rate in rates.items():
        assert rate == pytest.approx(0.1 / 2.6 ** (len(names) - 1 - names.index(name)))


def test_the_original_notes_case():
    model = models.resnet18(num_classes=2)
    hold(model, "stem", "stage1", "stage2", "stage3")
    groups = optim.param_groups(model, lrs={"stage4": 1e-4, "head": 1e-3})
    assert [(g["name"], g["lr"]) for g in groups] == [("stage4", 1e-4), ("head", 1e-3)]
    assert sum(p.numel() for p in groups[1]["params"]) == 1026


def test_biases_and_normalisation_go_without_weight_decay_on_request(model):
    groups = optim.param_groups(
        model, head_lr=1e-3, backbone_lr=1e-4, weight_decay=0.05, no_decay=True
    )
    for group in groups:
        spared = group["name"].endswith("/no_decay")
        assert group["weight_decay"] == (0.0 if spared else 0.05)
        assert all((p.ndim <= 1) == spared for p in group["params"])
    assert {"stage1", "stage1/no_decay", "head", "head/no_decay"} <= {g["name"] for g in groups}


def test_weight_decay_left_out_is_the_optimizers_own(model):
    groups = optim.param_groups(model, head_lr=1e-3, backbone_lr=1e-4, no_decay=True)
    decays = {
        group["name"].endswith("/no_decay"): group["weight_decay"]
        for group in torch.optim.AdamW(groups, weight_decay=0.3).param_groups
    }
    assert decays == {False: 0.3, True: 0.0}


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_optimizers_honour_the_rate_of_each_group(model, optimizer):
    groups = optim.param_groups(model, head_lr=1e-2, backbone_lr=1e-4, weight_decay=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer(groups).step()
    moved = {
        id(p): (b - p).abs().mean().item() for b, p in zip(before, model.parameters(), strict=True)
    }
    head, stem = (next(stages(model)[name].parameters()) for name in ("head", "stem"))
    assert moved[id(head)] / moved[id(stem)] == pytest.approx(100, rel=0.02)


def test_torch_schedulers_keep_the_proportions(model):
    optimizer = torch.optim.SGD(optim.param_groups(model, head_lr=1e-2, backbone_lr=1e-3))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    optimizer.step()
    scheduler.step()
    rates = scheduler.get_last_lr()
    assert rates == pytest.approx([5e-4] * (len(rates) - 1) + [5e-3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give the rates in one way"),
        ({"backbone_lr": 1e-3}, "give the rates in one way"),
        ({"head_lr": 1e-3, "backbone_lr": 1e-3, "decay": 0.5}, "give the rates in one way"),
        ({"lrs": {"head": 1e-3}, "head_lr": 1e-3}, "give the rates in one way"),
        ({"head_lr": 1e-3}, "'stem', .* may move but has no rate"),
        ({"lrs": {"head": 1e-3, "stem": 1e-3}}, "'stage1', .* may move but has no rate"),
        ({"lrs": {"layer4": 1e-4, "head": 1e-3}}, r"no stage is called 'layer4'.*'stem', 'stage1'"),
        ({"head_lr": 0.0, "backbone_lr": 1e-3}, "above 0 for head_lr, got 0.0: .* freeze"),
        ({"head_lr": 1e-3, "backbone_lr": math.nan}, "above 0 for backbone_lr, got nan"),
        ({"lrs": {"head": -1.0}}, "above 0 for head, got -1.0"),
        ({"head_lr": 1e-3, "decay": 2.6}, "decay above 0 and at most 1, got 2.6"),
        ({"head_lr": 1e-3, "decay": 0.5, "weight_decay": -1}, "weight_decay of 0 or more, got -1"),
    ],
)
def test_wrong_rates_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        optim.param_groups(model, **arguments)


def test_a_rate_for_a_frozen_stage_is_refused(model):
    hold(model, *list(stages(model))[:-1])
    assert [g["name"] for g in optim.param_groups(model, head_lr=1e-3)] == ["head"]
    with pytest.raises(ValueError, match="'stage4' has a rate but is frozen"):
        optim.param_groups(model, lrs={"stage4": 1e-4, "head": 1e-3})
    for arguments in ({"backbone_lr": 1e-4}, {"decay": 0.5}):
        with pytest.raises(ValueError, match=r"'stem', .* has a rate but is frozen"):
            optim.param_groups(model, head_lr=1e-3, **arguments)


def test_a_rate_for_a_frozen_head_is_refused(model):
    hold(model, "head")
    with pytest.raises(ValueError, match="'head' has a rate but is frozen"):
        optim.param_groups(model, head_lr=1e-3, backbone_lr=1e-4)


def test_nothing_to_train_is_an_error(model):
    with pytest.raises(ValueError, match="no parameter may move"):
        optim.param_groups(model.requires_grad_(False), head_lr=1e-3)


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


def test_slanted_triangular_is_the_papers_formula():
    total, cut_frac, ratio, lr = 200, 0.1, 32, 0.01
    optimizer = one_parameter(lr=lr)
    seen = rates_of(optim.slanted_triangular(optimizer, total), optimizer, total)
    cut = math.floor(total * cut_frac)
    for t, rate in enumerate(seen):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        assert rate == pytest.approx(lr * (1 + p * (ratio - 1)) / ratio)


@pytest.mark.parametrize("total", [1, 2, 9, 19, 101])
def test_slanted_triangular_never_leaves_its_range(total):
    optimizer = one_parameter()
    seen = rates_of(optim.slanted_triangular(optimizer, total), optimizer, total + 5)
    assert all(1 / 32 - 1e-12 <= rate <= 1 for rate in seen)


def test_slanted_triangular_can_start_at_zero():
    optimizer = one_parameter()
    seen = rates_of(optim.slanted_triangular(optimizer, 50, ratio=math.inf), optimizer, 50)
    assert seen[0] == 0.0
    assert max(seen) == 1.0


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


@pytest.mark.parametrize("options", [{"cut_frac": 0}, {"cut_frac": 1}, {"ratio": 0.5}])
def test_impossible_slants_are_refused(options):
    with pytest.raises(ValueError, match="cut_frac"):
        optim.slanted_triangular(one_parameter(), 10, **options)


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


def test_the_optimizer_check_names_stages(model):
    head_only = torch.optim.SGD(stages(model)["head"].parameters(), lr=0.1)
    with pytest.warns(optim.OptimizerWarning, match="not in the optimizer .'stem', 'stage1'"):
        optim.check_optimizer(model, head_only)
    everything = torch.optim.SGD(model.parameters(), lr=0.1)
    hold(model, "stage2")
    with pytest.warns(optim.OptimizerWarning, match="holds frozen parameters .'stage2'."):
        optim.check_optimizer(model, everything)


def test_the_optimizer_check_tells_equal_parameters_apart(model):
    twin = models.mobilenet_v2(width_mult=0.25, num_classes=2)
    twin.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="no trainable parameter of this model"):
        optim.check_optimizer(model, torch.optim.SGD(twin.parameters(), lr=0.1))


def test_the_optimizer_check_finds_a_head_replaced_too_late(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.classifier[1] = nn.Linear(model.classifier[1].in_features, 5)
    with (
        pytest.warns(optim.OptimizerWarning, match="not in the optimizer .'head'."),
        pytest.warns(optim.OptimizerWarning, match="2 parameters of another model"),
    ):
        optim.check_optimizer(model, optimizer)
