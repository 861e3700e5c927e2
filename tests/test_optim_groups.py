import math

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.regnet import BlockParams

from tlcourse import optim
from tlcourse.backbones import classifiers, stages
from tlcourse.freezing import freeze, unfreeze
from tlcourse.freezing.freeze import parameters_to_unfreeze

NORMALISATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
METHODS = {
    "by name": lambda names: {"lrs": {name: 0.5**i for i, name in enumerate(names)}},
    "head and backbone": lambda names: {"head_lr": 0.1, "backbone_lr": 0.01},
    "by decay": lambda names: {"head_lr": 0.1, "decay": 0.5},
}


@pytest.fixture
def model():
    return models.mobilenet_v2(width_mult=0.25, num_classes=2)


def hold(model, *names):
    for name in names:
        for parameter in stages(model)[name].parameters():
            parameter.requires_grad_(False)


def on_meta(name):
    """Build any classifier without memory for its weights."""
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    widths = BlockParams.from_init_params

    def real(**given):  # RegNet works out its widths with tensors whose values it needs
        with torch.device("cpu"):
            return widths(**given)

    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(BlockParams, "from_init_params", real)
        return models.get_model(name, weights=None, **options)


def spared_by_kind(model):
    """Identities of what belongs to a normalisation or is a bias, told by type and name."""
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, NORMALISATIONS) or name.endswith("bias")
    }


def expected_rates(names, method):
    """The rate of each stage, worked out by hand."""
    if method == "by name":
        return {name: 0.5**i for i, name in enumerate(names)}
    if method == "by decay":
        return {name: 0.1 * 0.5**i for i, name in enumerate(reversed(names))}
    return dict.fromkeys(names, 0.01) | {"head": 0.1}


@pytest.mark.parametrize("name", classifiers())
def test_every_trainable_parameter_of_every_classifier_is_in_exactly_one_group(name):
    model = on_meta(name)
    first, *moving = stages(model)
    hold(model, first)
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    for method, rates in METHODS.items():
        for no_decay in (False, True):
            groups = optim.param_groups(
                model, weight_decay=0.05, no_decay=no_decay, **rates(moving)
            )
            held = [id(p) for group in groups for p in group["params"]]
            assert len(held) == len(set(held))
            assert set(held) == trainable
            assert all(group["params"] for group in groups)
            assert len({group["name"] for group in groups}) == len(groups)
            wanted = expected_rates(moving, method)
            assert {g["name"].removesuffix(optim.NO_DECAY): g["lr"] for g in groups} == wanted
            free = {id(p) for g in groups for p in g["params"] if g["weight_decay"] == 0}
            assert free == (spared_by_kind(model) & trainable if no_decay else set())


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


def test_what_is_released_later_gets_groups_from_the_start(model):
    freeze(model)
    groups = optim.param_groups(model, head_lr=0.1, decay=0.5, unfreezing="stage4")
    assert [(g["name"], g["lr"]) for g in groups] == [
        ("stage4", 0.025),
        ("stage5", 0.05),
        ("head", 0.1),
    ]
    held = {id(p) for group in groups for p in group["params"]}
    assert not any(p.requires_grad for p in groups[0]["params"])
    unfreeze(model, down_to="stage4")
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("method", METHODS)
def test_releasing_goes_with_every_way_to_give_rates(model, method):
    freeze(model)
    groups = optim.param_groups(model, unfreezing="stage5", **METHODS[method](["stage5", "head"]))
    assert [group["name"] for group in groups] == ["stage5", "head"]


def test_releasing_what_trains_anyway_changes_nothing(model):
    plain = optim.param_groups(model, head_lr=0.1, decay=0.5)
    named = optim.param_groups(model, head_lr=0.1, decay=0.5, unfreezing="stem")
    assert [[id(p) for p in g["params"]] for g in plain] == [
        [id(p) for p in g["params"]] for g in named
    ]


def test_what_is_held_by_hand_is_not_released_later(model):
    by_hand = next(stages(model)["stage5"].parameters()).requires_grad_(False)
    freeze(model, through="stage4")  # the held one's stage is not touched: no record of it
    groups = optim.param_groups(model, head_lr=0.1, decay=0.5, unfreezing="stage4")
    freeze(model)  # now its record says that it was still before
    again = optim.param_groups(model, head_lr=0.1, decay=0.5, unfreezing="stage4")
    for made in (groups, again):
        held = {id(p) for group in made for p in group["params"]}
        assert id(by_hand) not in held
        assert {id(p) for p in stages(model)["stage5"].parameters()} - held == {id(by_hand)}


def test_asking_what_will_be_released_changes_nothing(model):
    before = dict(model.__dict__)
    assert parameters_to_unfreeze(model, "stem") == []
    assert model.__dict__ == before
    freeze(model)
    flags = [p.requires_grad for p in model.parameters()]
    assert len(parameters_to_unfreeze(model, "stem")) == flags.count(False)
    assert [p.requires_grad for p in model.parameters()] == flags


def test_an_unknown_stage_to_release_is_refused(model):
    freeze(model)
    optimizer = torch.optim.SGD(stages(model)["head"].parameters(), lr=0.1)
    message = "lowest stage to release .* got 'layer4'; its stages: stem, stage1"
    with pytest.raises(ValueError, match=message):
        optim.param_groups(model, head_lr=0.1, decay=0.5, unfreezing="layer4")
    with pytest.raises(ValueError, match=message):
        optim.check_optimizer(model, optimizer, unfreezing="layer4")


def test_a_frozen_head_cannot_wait_for_its_release(model):
    freeze(model, through="head")
    with pytest.raises(ValueError, match="no parameter may move"):
        optim.param_groups(model, head_lr=0.1, decay=0.5, unfreezing="stem")


def test_the_optimizer_check_counts_what_is_released_later(model, recwarn):
    freeze(model)
    groups = optim.param_groups(model, head_lr=0.1, decay=0.5, unfreezing="stage4")
    optim.check_optimizer(model, torch.optim.SGD(groups), unfreezing="stage4")
    assert not recwarn.list
    with pytest.warns(optim.OptimizerWarning, match="frozen parameters .'stage4', 'stage5'."):
        optim.check_optimizer(model, torch.optim.SGD(groups))
    head_only = torch.optim.SGD(optim.param_groups(model, head_lr=0.1))
    with pytest.warns(optim.OptimizerWarning, match="not in the optimizer .'stage4', 'stage5'."):
        optim.check_optimizer(model, head_only, unfreezing="stage4")
