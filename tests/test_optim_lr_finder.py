import copy
import math
import random
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision import models

from tlcourse import optim
from tlcourse.backbones import replace_head, stages
from tlcourse.datasets import ImageSet, Split
from tlcourse.freezing import assert_frozen, freeze
from tlcourse.optim import lr_finder
from tlcourse.optim.lr_finder import smoothed, suggest
from tlcourse.training import fit

RATES = np.geomspace(1e-6, 1, 100)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads do not pay at 32 px, and on a busy machine they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_split(count, seed):
    """Images of noise whose brightness tells the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.normal(100, 20, (count, 28, 28)) + 60 * labels[:, None, None]
    return Split(images.clip(0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def data():
    parts = (a_split(n, seed) for seed, n in enumerate((24, 8, 8)))
    return ImageSet("brightness", *parts, classes=("dark", "bright"))


def a_model(name="shufflenet_v2_x0_5", seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.get_model(name, num_classes=2)


def quick(model, data, **options):
    given = {"steps": 12, "batch_size": 8, "size": 32, "progress": False} | options
    return optim.find_lr(model, data, **given)


SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
MAKERS = {"none": None, "sgd": SGD, "adamw": partial(torch.optim.AdamW, lr=1e-3)}


def in_use(model, make):
    """An optimizer that has made steps, with a scheduler that stands at zero; gradients left."""
    groups = optim.param_groups(model, head_lr=0.1, backbone_lr=0.01)
    optimizer = make(groups)
    for _ in range(2):
        model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    optim.warmup_cosine(optimizer, 20, 5)
    return optimizer


def exact(value):
    """A copy of nested state that compares bit for bit, strides included."""
    if isinstance(value, torch.Tensor):
        return (value.detach().contiguous().numpy().tobytes(), value.stride(), str(value.dtype))
    if isinstance(value, dict):
        return {key: exact(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [exact(inner) for inner in value]
    return copy.deepcopy(value)


def whole_state(model, optimizer):
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "tensors": {name: (id(t), t.data_ptr(), exact(t)) for name, t in tensors},
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "gradients": [
            None if p.grad is None else (id(p.grad), exact(p.grad)) for p in model.parameters()
        ],
        "modes": [(module.training, "train" in module.__dict__) for module in model.modules()],
        "attributes": sorted(model.__dict__),
        "optimizer": exact(optimizer.state_dict()) if optimizer else None,
        "momentum": sorted(id(p) for p in optimizer.state) if optimizer else None,
        "torch": exact(torch.random.get_rng_state()),
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "python": random.getstate(),
    }


def drawing(end=None, at=4):
    """An augmentation that draws from the global generators, and breaks off in the middle."""
    calls = []

    def augment(images, generator):
        calls.append((torch.rand(1), np.random.rand(), random.random()))  # noqa: NPY002
        if isinstance(end, BaseException) and len(calls) == at:
            raise end
        return images * (end if isinstance(end, float) and len(calls) == at else 1.0)

    return augment


ENDS = {
    "to the end": None,
    "the loss becomes nan": math.nan,
    "the weights overflow": None,
    "Ctrl-C": KeyboardInterrupt(),
    "an error": RuntimeError("disk gone"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ["maker", "sgd in use", "adamw in use", "fused in use"])
def test_nothing_of_model_optimizer_and_generators_changes(data, kind, end):
    model = a_model().eval()
    stages(model)["stage2"].roots[0][1].train()  # a mixture of modes
    next(model.parameters()).requires_grad_(False)  # held by hand
    freeze(model, through="stem")
    make = {
        "sgd in use": SGD,
        "adamw in use": partial(torch.optim.AdamW, foreach=True),
        "fused in use": partial(torch.optim.AdamW, fused=True),
    }
    optimizer = in_use(model, make[kind]) if kind in make else None
    before = whole_state(model, optimizer)
    options = {
        "optimizer": optimizer,
        "high": {"the weights overflow": 1e30, "to the end": 1e-3}.get(end, 1.0),
        "augment": drawing(ENDS[end]),
    }
    if isinstance(ENDS[end], BaseException):
        with pytest.raises(type(ENDS[end])):
            quick(model, data, **options)
    else:
        result = quick(model, data, **options)
        assert (len(result.table) < 12) == (end != "to the end")
    assert whole_state(model, optimizer) == before


def test_training_goes_on_as_if_there_had_been_no_test(data):
    weights = []
    for tested in (False, True):
        model = a_model()
        optimizer = SGD(model.parameters(), lr=0.01)
        options = {"batch_size": 8, "size": 32, "progress": False, "epochs": 1, "cache": False}
        fit(model, data, optimizer=optimizer, **options)
        if tested:
            quick(model, data, optimizer=optimizer)
        fit(model, data, optimizer=optimizer, **options)
        weights.append(exact(model.state_dict()))
    assert weights[0] == weights[1]


class Spy(torch.optim.SGD):
    """Notes the rates of each step; the list is the class's, so that copies share it."""

    seen: list = []  # noqa: RUF012

    def step(self, closure=None):
        self.seen.append([group["lr"] for group in self.param_groups])
        return super().step(closure)


@pytest.fixture
def spied():
    Spy.seen.clear()
    return Spy.seen


def test_rates_rise_geometrically_and_groups_keep_their_proportion(data, spied):
    model = a_model()
    optimizer = Spy(optim.param_groups(model, head_lr=0.1, backbone_lr=0.01), lr=1.0)
    table = quick(model, data, optimizer=optimizer, low=1e-5, high=1e-1).table
    assert table["lr"].to_numpy() == pytest.approx(np.geomspace(1e-5, 1e-1, 12))
    rates = np.array(spied)
    assert rates[:, -1] == pytest.approx(table["lr"].to_numpy())
    assert rates[:, :-1] == pytest.approx(np.repeat(0.1 * rates[:, -1:], rates.shape[1] - 1, 1))


def test_a_scheduler_that_stands_at_zero_does_not_hide_the_rates(data, spied):
    model = a_model()
    optimizer = Spy(optim.param_groups(model, head_lr=0.1, backbone_lr=0.01), lr=1.0)
    scheduler = optim.warmup_cosine(optimizer, 10, 5)
    quick(model, data, optimizer=optimizer)
    assert spied[0][0] == pytest.approx(1e-7)
    assert scheduler.get_last_lr() == [0.0] * len(optimizer.param_groups)


def test_a_maker_may_build_groups_from_the_model_itself(data, spied):
    model = a_model()
    before = exact(model.state_dict())
    quick(
        model,
        data,
        optimizer=lambda _: Spy(optim.param_groups(model, head_lr=1.0, backbone_lr=0.5), lr=1.0),
    )
    rates = np.array(spied)  # as many as the test made: where it diverges depends on the machine
    assert rates[:, :-1] == pytest.approx(np.repeat(0.5 * rates[:, -1:], rates.shape[1] - 1, 1))
    assert exact(model.state_dict()) == before


@pytest.fixture
def trials(monkeypatch):
    """The copies of model and optimizer that the tests of rates work on."""
    made, real = [], lr_finder.prepare_optimizer

    def noting(model, *given, **options):
        made.append((model, real(model, *given, **options)))
        return made[-1][1]

    monkeypatch.setattr(lr_finder, "prepare_optimizer", noting)
    return made


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    "name",
    [
        "shufflenet_v2_x0_5",
        "resnet18",
        "mobilenet_v2",
        "squeezenet1_1",
        pytest.param("swin_t", marks=pytest.mark.slow),
    ],
)
def test_frozen_stages_stay_still_and_the_rest_is_tried_out(data, trials, name, optimizer):
    model = freeze(a_model(name), through="stage1")
    groups = optim.param_groups(model, head_lr=1.0, decay=0.5, no_decay=True)
    table = quick(model, data, optimizer=MAKERS[optimizer](groups), high=0.1).table
    assert np.isfinite(table["loss"]).all()
    trial, _ = trials[0]
    still, moved = set(), set()
    for stage, original in stages(model).items():
        tensors = zip(original.parameters(), stages(trial)[stage].parameters(), strict=True)
        same = all(torch.equal(*pair) for pair in tensors)
        (still if same else moved).add(stage)
    assert still == {"stem", "stage1"}
    assert "head" in moved
    for buffer, copied in zip(
        stages(model)["stem"].buffers(), stages(trial)["stem"].buffers(), strict=True
    ):
        assert torch.equal(buffer, copied)


def test_a_stage_held_by_requires_grad_alone_lets_its_statistics_move_as_in_fit(data, trials):
    model = a_model()
    stem = stages(model)["stem"]
    for parameter in stem.parameters():
        parameter.requires_grad_(False)
    with assert_frozen(model):  # the original's do not move
        quick(model, data, optimizer=MAKERS["sgd"])
    trial, _ = trials[0]
    pairs = zip(stem.buffers(), stages(trial)["stem"].buffers(), strict=True)
    assert not all(torch.equal(*pair) for pair in pairs)


def test_networks_with_auxiliary_heads_are_tried_out(data):
    with torch.random.fork_rng():
        model = models.googlenet(num_classes=2, init_weights=False, aux_logits=True)
    assert np.isfinite(quick(model, data, size=64, high=1e-4).table["loss"]).all()


@pytest.fixture(scope="module")
def many():
    """Enough images for batches and held-back images on which batch-norm is no lottery."""
    parts = (a_split(n, seed) for seed, n in enumerate((96, 8, 8)))
    return ImageSet("brightness", *parts, classes=("dark", "bright"))


def tried(data, optimizer, seed, **options):
    model = a_model(seed=seed)
    given = {"optimizer": MAKERS[optimizer], "steps": 60, "batch_size": 16, "seed": seed}
    return quick(model, data, **given | options)


def trained_losses(data, optimizer, rate, seed):
    """Losses of the held-back images before and after 20 steps with one rate."""
    table = tried(data, optimizer, seed, steps=20, low=rate, high=1.001 * rate).table
    return table["smoothed"].iloc[[0, -1]]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_seed_finds_a_rate_and_most_are_alike(many, optimizer):
    found = np.array([tried(many, optimizer, seed).suggestion for seed in range(4)])
    assert ((found > 1e-5) & (found < 0.3)).all()
    # An untrained network may miss its first fall; a rule led by noise would miss it mostly.
    apart = np.abs(np.log10(found / np.median(found)))
    assert np.median(apart) < 0.7


@pytest.mark.parametrize("optimizer", MAKERS)
def test_the_suggestion_trains_and_a_tiny_rate_does_not(many, optimizer):
    result = tried(many, optimizer, 0)
    assert f"suggested rate {result.suggestion:.2g}" in repr(result)
    first, last = trained_losses(many, optimizer, result.suggestion, 0)
    assert last < 0.8 * first
    first, last = trained_losses(many, optimizer, 1e-3 * result.suggestion, 0)
    assert last > 0.9 * first


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_labels_that_no_image_tells_give_no_rate(many, optimizer):
    drawn = np.random.default_rng(5).permutation(many.train.labels)
    unlearnable = many.with_train(Split(many.train.images, drawn))
    found = [tried(unlearnable, optimizer, seed).suggestion for seed in range(2)]
    assert np.isnan(found).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_rates_far_too_small_give_no_rate(many, optimizer):
    result = tried(many, optimizer, 0, low=1e-9, high=1e-7)
    assert math.isnan(result.suggestion)
    assert "raise `high`" in result.note


def test_the_images_that_the_loss_is_measured_on_are_not_trained_on(many):
    probed, trained = lr_finder._divided(many.train, 32, seed=1)
    both = np.concatenate([probed.images, trained.images])
    assert sorted(map(bytes, both)) == sorted(map(bytes, many.train.images))
    assert np.bincount(probed.labels).tolist() == [16, 16]
    few = many.train.select(np.arange(9))
    assert len(lr_finder._divided(few, 32, seed=1)[0]) == 3


def test_dropout_adds_no_noise_to_the_loss(many):
    """All steps leave out the same units, so that a still network has one loss."""
    with torch.random.fork_rng():
        model = models.get_model("mobilenet_v2", num_classes=2, dropout=0.5)
    losses = quick(model, many, low=1e-20, high=1e-19, steps=10, optimizer=SGD).table["loss"]
    assert losses.std() < 1e-6


def test_the_same_seed_gives_the_same_table_and_another_seed_another(data):
    tables = [quick(a_model(), data, seed=seed, augment="flip").table for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0]["loss"].equals(tables[2]["loss"])


def test_the_smoothed_loss_is_fastais_running_mean(data):
    table = quick(a_model(), data, smoothing=0.5).table
    weights = 0.5 ** np.arange(len(table))[::-1]
    by_hand = (table["loss"] * weights).sum() / weights.sum()
    assert table["smoothed"].iloc[-1] == pytest.approx(by_hand)
    assert quick(a_model(), data, smoothing=0.0).table.eval("smoothed == loss").all()


def test_it_stops_where_the_loss_exceeds_four_times_its_best(data):
    table = quick(a_model(), data, optimizer=MAKERS["sgd"], high=1e3, steps=60).table
    assert len(table) < 60
    best = table["smoothed"].cummin()
    beyond = ~(table["smoothed"] <= 4 * best)
    assert beyond.tolist() == [False] * (len(table) - 1) + [True]


def test_a_loss_that_is_no_number_from_the_start_gives_no_suggestion(data):
    model = a_model()
    nn.init.constant_(next(stages(model)["head"].parameters()), math.nan)
    result = quick(model, data)
    assert len(result.table) == 1
    assert math.isnan(result.suggestion)
    assert "no rate to suggest after 1 step" in repr(result)
    assert "did not fall" in result._repr_html_()


def test_class_weights_and_augmentation_count(data):
    plain = quick(a_model(), data).table["loss"]
    assert not plain.equals(quick(a_model(), data, class_weights=[0.9, 0.1]).table["loss"])
    assert not plain.equals(quick(a_model(), data, augment="flip").table["loss"])
    assert plain.equals(quick(a_model(), data, class_weights="balanced").table["loss"])


def test_the_warning_about_the_optimizer_points_at_the_caller(data):
    model = a_model()
    optimizer = torch.optim.SGD(stages(model)["head"].parameters(), lr=0.1)
    with pytest.warns(optim.OptimizerWarning, match="not in the optimizer") as caught:
        optim.find_lr(
            model, data, optimizer=optimizer, steps=10, batch_size=8, size=32, progress=False
        )
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "0 < low < high, got low=0.0 and high=1.0"),
        ({"low": 2.0}, "0 < low < high, got low=2.0"),
        ({"high": math.inf}, "0 < low < high"),
        ({"steps": 9}, "at least 10 steps, got 9"),
        ({"smoothing": 1.0}, "smoothing from 0 to below 1, got 1.0"),
        ({"optimizer": "sgd"}, "expected optimizer to be or to make a torch optimizer, got 'sgd'"),
        ({"class_weights": "equal"}, "'balanced' or numbers, got 'equal'"),
        ({"augment": "rotate"}, "expected augment None, 'flip' or a function"),
        ({"batch_size": 1}, "batch-norm needs two images"),
        ({"held_back": 1}, "expected held_back from 2 and at least 4 training images"),
    ],
)
def test_impossible_tests_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        quick(a_model(), data, **options)


def test_a_model_that_cannot_be_tried_out_is_refused(data):
    with pytest.raises(ValueError, match="gives 3 logits, but 'brightness' has 2 classes"):
        quick(replace_head(a_model(), 3), data)
    with pytest.raises(ValueError, match="no parameter may move"):
        quick(a_model().requires_grad_(False), data)
    model = a_model()
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(ValueError, match=r"a rate above 0, got \[0.0\]"):
        quick(model, data, optimizer=still)


def valley(noise=0.0, seed=0, depth=0.5, jitter=0.0):
    """Losses of 32 images, flat to 1e-4, falling to 1e-2, breaking out beyond 1e-1.

    `noise` is the spread of the images' falls, `jitter` that of whole steps.
    """
    height = np.interp(np.log10(RATES), [-6, -4, -2, -1, 0], [0, 0, -depth, -depth, 3])
    rng = np.random.default_rng(seed)
    images = noise * rng.standard_normal((len(RATES), 32)).cumsum(axis=0) / 10
    return 0.7 + (height + jitter * rng.standard_normal(len(RATES)))[:, None] + images


@pytest.mark.parametrize("jitter", [0.0, 0.02, 0.1])
def test_the_suggestion_lies_in_the_middle_of_the_fall(jitter):
    rate, note = suggest(RATES, valley(jitter=jitter), 0.5)
    assert 3e-4 < rate < 3e-3
    assert note == ""


def test_the_suggestion_hardly_depends_on_the_noise():
    found = [suggest(RATES, valley(0.2, seed, jitter=0.05), 0.5)[0] for seed in range(20)]
    assert max(found) < 6 * min(found)


def test_the_suggestion_does_not_depend_on_where_the_flat_part_begins():
    losses = valley() - 1e-6 * np.arange(len(RATES))[:, None]  # a tiny fall before the true one
    whole, _ = suggest(RATES, losses, 0.5)
    late, _ = suggest(RATES[20:], losses[20:], 0.5)
    assert late == pytest.approx(whole, rel=0.2)


@pytest.mark.parametrize(("noise", "jitter"), [(1.0, 0.0), (0.0, 0.3), (0.5, 0.1)])
def test_noise_alone_is_seldom_taken_for_a_fall(noise, jitter):
    losses = [valley(noise, seed, depth=0.0, jitter=jitter)[:80] for seed in range(100)]
    found = [suggest(RATES[:80], each, 0.5)[0] for each in losses]
    assert np.isnan(found).sum() >= 95


def test_a_sure_but_tiny_fall_gives_no_rate():
    assert math.isnan(suggest(RATES, valley(depth=0.02), 0.5)[0])


def test_a_loss_that_only_rises_gives_no_rate():
    rate, note = suggest(RATES, np.linspace(0.5, 2, 100)[:, None] + np.linspace(0, 0.1, 8), 0.5)
    assert math.isnan(rate)
    assert "lower `low`" in note


def test_losses_after_the_first_that_is_no_number_are_ignored():
    losses = valley()
    losses[90:] = 0.0
    losses[90, 5] = math.nan
    assert suggest(RATES, losses, 0.5) == suggest(RATES, losses[:90], 0.5)


def test_a_loss_still_falling_at_the_end_says_so():
    rate, note = suggest(RATES, np.linspace(0.7, 0.1, 100)[:, None] + np.linspace(0, 0.1, 8), 0.5)
    assert rate == pytest.approx(1e-3, rel=0.1)
    assert "raise `high`" in note


def test_smoothing_starts_at_the_first_loss():
    assert smoothed([2.0], 0.9)[0] == pytest.approx(2.0)
    assert smoothed([2.0] * 5, 0.9) == pytest.approx([2.0] * 5)
