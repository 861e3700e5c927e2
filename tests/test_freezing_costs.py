"""What a stage costs: measured without a trace, added up rightly."""

import random
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from tlcourse.backbones import stages
from tlcourse.freezing import freeze, frozen_stages
from tlcourse.freezing.costs import Estimate, estimate, stage_costs
from tlcourse.freezing.report import count_trainable

SIZE, BATCH = 32, 4
NAMES = ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
SECONDS = ["forward_seconds", "backward_seconds", "frozen_seconds"]


def tiny(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3, **options)


@pytest.fixture(scope="module")
def costs():
    return stage_costs(tiny(), size=SIZE, batch_size=BATCH, repetitions=2)


@pytest.fixture
def table():
    """Round figures, so that every sum can be done in the head."""
    return pd.DataFrame(
        {
            "parameters": [1_000_000, 2_000_000, 500_000],
            "activation_mb": [4.0, 2.0, 0.5],
            "output_mb": [0.3, 0.2, 0.0],
            "forward_seconds": [0.010, 0.020, 0.001],
            "backward_seconds": [0.030, 0.040, 0.002],
            "frozen_seconds": [0.005, 0.008, 0.001],
        },
        index=pd.Index(["stem", "stage1", "head"], name="stage"),
    )


def test_there_is_a_row_for_each_stage_and_every_figure_is_positive(costs):
    assert list(costs.index) == NAMES
    assert costs.index.name == "stage"
    assert (costs > 0).all(axis=None)
    assert costs["parameters"].sum() == sum(p.numel() for p in tiny().parameters())


def test_activations_of_the_stem_are_those_counted_by_hand(costs):
    half, quarter = (SIZE // 2) ** 2, (SIZE // 4) ** 2
    images = 3 * SIZE**2 * 4  # the convolution's input
    normalised = 64 * half * 4  # batch-norm's input
    rectified = 64 * half * 4  # the ReLU's result, which the pool saves, too
    positions = 64 * quarter * 8  # where the pool found its maxima, int64
    statistics = 2 * 64 * 4 / BATCH  # the batch's mean and deviation
    expected = (images + normalised + rectified + positions + statistics) / 1e6
    assert costs["activation_mb"]["stem"] == pytest.approx(expected, rel=1e-9)
    assert costs["output_mb"]["stem"] == pytest.approx(64 * quarter * 4 / 1e6)
    assert costs["output_mb"]["head"] == pytest.approx(3 * 4 / 1e6)


@pytest.mark.parametrize("through", [None, "stem", "stage2", "all"])
def test_activations_are_what_a_frozen_network_keeps(costs, through):
    """The sums over trainable stages against the graph of a network frozen in earnest."""
    model = tiny().train()
    if through:
        freeze(model, through=through)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def save(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss = nn.functional.cross_entropy(
            model(torch.rand(BATCH, 3, SIZE, SIZE)), torch.ones(4).long()
        )
    found = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own) / 1e6
    assert loss.requires_grad
    expected = estimate(costs, through=through, images=9, batch_size=BATCH).activations_mb
    # A frozen network in eval mode saves no more than the lowest trainable stage's input.
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    "build",
    [
        models.shufflenet_v2_x0_5,
        models.mobilenet_v3_small,
        models.densenet121,
        models.squeezenet1_1,
        pytest.param(models.convnext_tiny, marks=pytest.mark.slow),
        pytest.param(models.swin_t, marks=pytest.mark.slow),
    ],
)
def test_stage_ends_come_in_order_whatever_the_architecture(build):
    model = build()
    costs = stage_costs(model, size=64, batch_size=2, repetitions=1)
    assert list(costs.index) == list(stages(model))
    assert (costs[SECONDS] > 0).all(axis=None)
    assert (costs.drop(columns=SECONDS) >= 0).all(axis=None)


def test_seconds_are_charged_to_the_stage_that_takes_them():
    model = tiny()

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(_context, images):
            time.sleep(0.2)
            return images.clone()

        @staticmethod
        def backward(_context, gradient):
            time.sleep(0.4)
            return gradient

    class Sleeper(nn.Module):
        def forward(self, images):
            return Slow.apply(images)

    model.layer2.append(Sleeper())
    seconds = stage_costs(model, size=SIZE, batch_size=2, repetitions=1)[SECONDS] * 2
    assert seconds.loc["stage2"].to_numpy() == pytest.approx([0.2, 0.4, 0.2], abs=0.15)
    assert (seconds.drop("stage2") < 0.15).all(axis=None)


def test_the_model_and_the_generators_stay_exactly_as_they_were():
    model = freeze(tiny(), through="stage1")
    model.layer3.eval()
    model.layer4[0].conv1.weight.requires_grad_(False)
    model(torch.rand(2, 3, SIZE, SIZE)).sum().backward()
    before = state_of(model)
    drawn = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    stage_costs(model, size=SIZE, batch_size=2, repetitions=1)
    after = state_of(model)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = (
            torch.equal(value, after[key])
            if isinstance(value, torch.Tensor)
            else value == after[key]
        )
        assert same, key
    assert frozen_stages(model) == ("stem", "stage1")
    assert torch.equal(drawn[0], torch.get_rng_state())
    assert np.array_equal(drawn[1], np.random.get_state()[1])  # noqa: NPY002
    assert drawn[2] == random.getstate()


def state_of(model):
    state = {f"tensor {name}": t.clone() for name, t in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"trainable {name}"] = parameter.requires_grad
        grad = parameter.grad
        state[f"gradient {name}"] = None if grad is None else grad.clone()
    for name, module in model.named_modules():
        state[f"mode {name}"] = module.training
        state[f"hooks {name}"] = len(module._forward_hooks), len(module._forward_pre_hooks)
    return state


def test_what_is_frozen_now_does_not_change_the_measurement(costs):
    frozen = stage_costs(freeze(tiny()), size=SIZE, batch_size=BATCH, repetitions=1)
    assert frozen["activation_mb"].to_list() == pytest.approx(costs["activation_mb"].to_list())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_measures_within_a_block_without_gradients(mode):
    with mode():
        costs = stage_costs(tiny(), size=SIZE, batch_size=2, repetitions=1)
    assert (costs["activation_mb"] > 0).all()


def test_a_model_that_raises_leaves_the_generators_alone():
    model = models.squeezenet1_1()
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="17 px or more, got size=8"):
        stage_costs(model, size=8)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("batch_size", "repetitions"), [(1, 1), (2, 0)])
def test_too_few_images_or_repetitions_are_named(batch_size, repetitions):
    with pytest.raises(ValueError, match=f"got {batch_size} and {repetitions}"):
        stage_costs(tiny(), size=SIZE, batch_size=batch_size, repetitions=repetitions)


def test_nothing_frozen_is_the_sum_of_all(table):
    found = estimate(table, images=100, batch_size=8)
    assert found == Estimate(
        trainable=3_500_000,
        weights_mb=14.0,
        gradients_mb=14.0,
        optimizer_mb=28.0,
        activations_mb=8 * 6.5,
        epoch_seconds=pytest.approx(100 * (0.031 + 0.072)),
        cached_epoch_seconds=pytest.approx(100 * (0.031 + 0.072)),
        caching_seconds=0.0,
        cache_mb=0.0,
    )
    assert found.memory_mb == pytest.approx(14 + 14 + 28 + 52)


def test_frozen_stages_cost_no_backward_no_gradient_and_no_optimizer_state(table):
    found = estimate(table, through="stem", images=100, batch_size=8, optimizer_state=1)
    assert found.trainable == 2_500_000
    assert (found.weights_mb, found.gradients_mb, found.optimizer_mb) == (14.0, 10.0, 10.0)
    assert found.activations_mb == 8 * 2.5
    assert found.epoch_seconds == pytest.approx(100 * (0.005 + 0.063))
    assert found.cached_epoch_seconds == pytest.approx(100 * 0.063)
    assert found.caching_seconds == pytest.approx(100 * 0.005)
    assert found.cache_mb == pytest.approx(30)


def test_all_is_all_but_the_head(table):
    assert estimate(table, through="all", images=9, batch_size=2) == estimate(
        table, through="stage1", images=9, batch_size=2
    )


@pytest.mark.parametrize("through", NAMES[:-1])
def test_parameters_are_those_that_freeze_leaves(costs, through):
    left = count_trainable(freeze(tiny(), through=through))
    assert estimate(costs, through=through, images=9, batch_size=2).trainable == left


def test_the_further_the_freezing_the_less_it_costs(costs):
    found = [estimate(costs, through=t, images=9, batch_size=2) for t in (None, *NAMES[:-1])]
    for figure in ("trainable", "memory_mb", "cached_epoch_seconds"):
        values = [getattr(each, figure) for each in found]
        assert values == sorted(values, reverse=True), figure


def test_the_batch_size_moves_activations_alone(table):
    small, large = (estimate(table, images=9, batch_size=n) for n in (2, 20))
    assert large.activations_mb == 10 * small.activations_mb
    assert large.memory_mb - small.memory_mb == large.activations_mb - small.activations_mb
    assert large.epoch_seconds == small.epoch_seconds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"through": "stage9"}, r"one of \['stem', 'stage1'\], got 'stage9'"),
        ({"through": "head"}, "got 'head'"),
        ({"images": 0}, "got 0, 8 and 2"),
        ({"batch_size": 0}, "got 100, 0 and 2"),
        ({"optimizer_state": -1}, "got 100, 8 and -1"),
    ],
)
def test_what_cannot_be_estimated_is_named(table, options, message):
    with pytest.raises(ValueError, match=message):
        estimate(table, **({"images": 100, "batch_size": 8} | options))
