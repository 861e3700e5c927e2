import hashlib
import random
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision import models

from tlcourse import metrics
from tlcourse.backbones import preprocess, stages
from tlcourse.datasets import ImageSet, Split
from tlcourse.freezing import freeze
from tlcourse.loaders import PreparedImages, TrainingBatches, batches
from tlcourse.loaders.augment import augmentation, flip
from tlcourse.loaders.batches import shuffled_batches
from tlcourse.optim import OptimizerWarning, make_class_weights, param_groups, warmup_cosine
from tlcourse.training import fit, predict
from tlcourse.training.history import History

SIZE = 32


@pytest.fixture(autouse=True)
def one_thread():
    """Threads do not pay at 32 px, and on a busy machine they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_split(count, classes=2, *, seed=0, gap=60):
    """Images of noise whose brightness tells the class: a gap of 0 leaves nothing to learn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.normal(100, 20, (count, 28, 28)) + gap * labels[:, None, None]
    return Split(
        images=images.clip(0, 255).astype(np.uint8), labels=labels, groups=np.arange(count)
    )


def an_image_set(train=24, val=16, classes=2, gap=60):
    return ImageSet(
        name="brightness",
        train=a_split(train, classes, seed=1, gap=gap),
        val=a_split(val, classes, seed=2, gap=gap),
        test=a_split(8, classes, seed=3, gap=gap),
        classes=tuple(f"class {c}" for c in range(classes)),
        source="made for this test",
        license="none",
        citation="none",
        partition="grouped",
    )


def a_model(name="shufflenet_v2_x0_5", seed=0, **options):
    torch.manual_seed(seed)
    return models.get_model(name, num_classes=options.pop("num_classes", 2), **options)


def quick(model, data=None, **options):
    """Fit with the settings that keep a test short."""
    given = {"epochs": 1, "batch_size": 8, "size": SIZE, "progress": False} | options
    return fit(model, data or an_image_set(), **given)


def digest(model):
    state = model.state_dict().values()
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in state)).hexdigest()


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


DETERMINISM = """
import torch
from tests.test_training import a_model, digest, quick
torch.set_num_threads(2)
model = a_model("mobilenet_v2")
quick(model, epochs=2, augment="flip", seed=3)
print(digest(model))
"""


@pytest.mark.slow
def test_same_seed_same_weights_bit_for_bit_in_a_fresh_process(request):
    torch.set_num_threads(2)
    model = a_model("mobilenet_v2")  # it has dropout
    quick(model, epochs=2, augment="flip", seed=3)
    fresh = subprocess.run(
        [sys.executable, "-c", DETERMINISM],
        capture_output=True,
        text=True,
        check=True,
        cwd=request.config.rootpath,
    )
    assert fresh.stdout.split()[-1] == digest(model)


def test_the_seed_counts_and_the_global_generators_do_not():
    weights = []
    for seed, before in ((0, 1), (0, 2), (1, 1)):
        model = a_model()
        torch.manual_seed(before)
        quick(model, augment="flip", seed=seed)
        weights.append(weights_of(model))
    assert same(weights[0], weights[1])
    assert not same(weights[0], weights[2])


def test_global_generators_stay_as_they_were():
    model = a_model("mobilenet_v2")
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    quick(model, augment="flip")
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()


def test_it_learns_what_can_be_learned():
    data, model = an_image_set(train=48), a_model("resnet18")
    history = quick(model, data, epochs=3)
    assert metrics.accuracy(data.test.labels, predict(model, data.test.images, size=SIZE)) == 1.0
    assert history.table["train_loss"].iloc[-1] < history.table["train_loss"].iloc[0] / 2


def test_the_history_holds_epochs_and_steps():
    model = a_model()
    history = quick(model, epochs=3)
    assert list(history.table.columns) == [
        "epoch", "train_loss", "val_loss", "val_accuracy", "val_auc", "lr", "seconds",
    ]  # fmt: skip
    assert history.table["epoch"].tolist() == [1, 2, 3]
    assert (history.table["seconds"] > 0).all()
    assert list(history.steps.columns) == ["step", "epoch", "loss", "lr/all"]
    assert history.steps["step"].tolist() == list(range(9))
    means = history.steps.groupby("epoch")["loss"].mean()
    assert history.table["train_loss"].tolist() == pytest.approx(means.tolist())
    assert (history.interrupted, history.kept_epoch) == (False, 3)
    assert "val_auc" in repr(history)
    assert "<table" in history._repr_html_()


def test_the_train_loss_is_a_mean_over_images_not_over_batches():
    history = quick(a_model(), an_image_set(train=20))
    losses = history.steps["loss"].to_numpy()
    assert history.table["train_loss"][0] == pytest.approx(np.average(losses, weights=[8, 8, 4]))


def test_recorded_validation_scores_are_those_of_predict():
    data, model = an_image_set(gap=3), a_model()
    last = quick(model, data, epochs=2).table.iloc[-1]
    probs = predict(model, data.val.images, size=SIZE)
    assert last["val_loss"] == metrics.log_loss(data.val.labels, probs)
    assert last["val_accuracy"] == metrics.accuracy(data.val.labels, probs)
    assert last["val_auc"] == metrics.auc(data.val.labels, probs)


def learn_then_unlearn(optimizer, total_steps):
    """A schedule that climbs the loss again in the last two fifths of the training."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1.0 if step < 0.6 * total_steps else -4.0
    )


@pytest.mark.parametrize("keep", ["best", "best_loss"])
def test_the_best_epochs_weights_come_back(keep):
    data, model = an_image_set(), a_model("resnet18")
    sgd = partial(torch.optim.SGD, lr=0.005, momentum=0.9)
    history = quick(model, data, epochs=5, optimizer=sgd, schedule=learn_then_unlearn, keep=keep)
    table = history.table.set_index("epoch")
    best = table.loc[history.kept_epoch]
    assert history.kept_epoch <= 3
    assert table["val_loss"].iloc[-1] > best["val_loss"]
    probs = predict(model, data.val.images, size=SIZE)
    assert metrics.log_loss(data.val.labels, probs) == best["val_loss"]
    assert metrics.auc(data.val.labels, probs) == best["val_auc"] == table["val_auc"].max()
    assert f"holds the weights of epoch {history.kept_epoch}" in repr(history)


def test_the_last_weights_stay_by_default():
    data, model = an_image_set(), a_model()
    history = quick(model, data, epochs=2)
    probs = predict(model, data.val.images, size=SIZE)
    assert history.table["val_loss"].iloc[-1] == metrics.log_loss(data.val.labels, probs)


class Interrupter:
    """An augmentation during which the learner presses Ctrl-C."""

    def __init__(self, batch):
        self.left = batch

    def __call__(self, images, generator):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return images


def test_an_interrupt_keeps_what_was_learned(capsys):
    model, reference = a_model(), a_model()
    history = quick(model, epochs=4, augment=Interrupter(4))
    assert history.interrupted
    assert (len(history.table), len(history.steps), history.kept_epoch) == (1, 4, None)
    assert not any(module.training for module in model.modules())
    assert "Interrupted in epoch 2 of 4: the model holds the weights of its last step" in (
        capsys.readouterr().out
    )
    assert not same(weights_of(model), weights_of(reference))
    assert "interrupted" in repr(history)
    quick(model)  # it can go on


def test_an_interrupt_goes_back_to_the_best_epoch(capsys):
    data, model = an_image_set(), a_model()
    history = quick(model, data, epochs=4, keep="best", augment=Interrupter(5))
    assert history.kept_epoch == 1
    assert "epoch 1, the best so far" in capsys.readouterr().out
    probs = predict(model, data.val.images, size=SIZE)
    assert metrics.log_loss(data.val.labels, probs) == history.table["val_loss"][0]


def test_an_interrupt_before_the_first_step_leaves_a_usable_model():
    model = a_model()
    before = weights_of(model)
    history = quick(model, keep="best", augment=Interrupter(0))
    assert (len(history.table), len(history.steps), history.kept_epoch) == (0, 0, None)
    assert "epoch" in history.table
    assert same(before, weights_of(model))
    assert isinstance(repr(history), str)


def test_the_schedule_steps_once_per_optimizer_step():
    model = a_model()
    optimizer = torch.optim.SGD(param_groups(model, head_lr=1e-2, backbone_lr=1e-3), momentum=0.9)
    history = quick(
        model, epochs=2, optimizer=optimizer, schedule=partial(warmup_cosine, warmup_steps=2)
    )
    head, stem = history.steps["lr/head"], history.steps["lr/stem"]
    assert head.tolist()[:3] == pytest.approx([0.0, 5e-3, 1e-2])
    assert stem.tolist() == pytest.approx((head / 10).tolist())
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(0.0)
    assert history.table["lr"].tolist() == head.iloc[[2, 5]].tolist()


def test_the_first_step_of_a_warmup_moves_nothing():
    model = a_model()
    before = [p.detach().clone() for p in model.parameters()]
    quick(model, an_image_set(train=8), schedule=partial(warmup_cosine, warmup_steps=1))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_ready_scheduler_is_taken_as_it_is():
    model = a_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    history = quick(model, optimizer=optimizer, schedule=halving)
    assert history.steps["lr/group0"].tolist() == pytest.approx([0.1, 0.05, 0.025])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_the_rate_of_a_group_sets_how_far_it_moves(optimizer):
    model = a_model()
    groups = param_groups(model, head_lr=1e-3, backbone_lr=1e-12, weight_decay=0.0)
    start = {n: p.detach().clone() for n, p in model.named_parameters()}
    quick(model, optimizer=optimizer(groups))
    moved = {n: (p - start[n]).abs().max().item() for n, p in model.named_parameters()}
    assert moved["fc.weight"] > 1e-5
    assert max(distance for n, distance in moved.items() if "fc" not in n) < 1e-8


def test_frozen_stages_keep_weights_and_statistics():
    model = a_model()
    freeze(model)
    before = weights_of(model)
    history = quick(model, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1), epochs=2)
    moved = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert moved == {"fc.weight", "fc.bias"}
    assert len(history.table) == 2


def one_step_gradient(class_weights, data):
    """The head's gradient of one full batch, read off a step of plain SGD."""
    model = a_model()
    before = model.fc.weight.detach().clone()
    options = {"batch_size": len(data.train.labels), "class_weights": class_weights}
    quick(model, data, optimizer=partial(torch.optim.SGD, lr=1.0), **options)
    return before - model.fc.weight.detach()


def test_balanced_class_weights_change_the_gradient_as_they_should():
    data = an_image_set(train=24)
    few = np.r_[0:24:2, 1:7:2]  # 12 of class 0, 3 of class 1
    data = data.with_train(data.train.select(few))
    model = a_model().train()
    images = preprocess(model, data.train.images, SIZE)
    labels = torch.tensor(data.train.labels)
    losses = nn.functional.cross_entropy(model(images), labels, reduction="none")
    (losses[labels == 0].mean() / 2 + losses[labels == 1].mean() / 2).backward()
    balanced = one_step_gradient("balanced", data)
    torch.testing.assert_close(balanced, model.fc.weight.grad, rtol=1e-2, atol=1e-4)
    assert not torch.allclose(balanced, one_step_gradient(None, data), rtol=1e-2)
    by_hand = one_step_gradient([15 / 24, 15 / 6], data)
    torch.testing.assert_close(balanced, by_hand)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("even", "class_weights None, 'balanced' or numbers, got 'even'"),
        ([1.0, 2.0, 3.0], "expected 2 finite class_weights"),
        ([1.0, -1.0], "expected 2 finite class_weights"),
        (torch.tensor([1.0, torch.nan]), "expected 2 finite class_weights"),
        ({"a": 1.0, "b": 2.0}, "expected 2 finite class_weights"),
        ([[1.0], [1.0, 2.0]], "expected 2 finite class_weights"),
    ],
)
def test_impossible_class_weights_are_refused(wanted, message):
    with pytest.raises(ValueError, match=message):
        quick(a_model(), class_weights=wanted)


class Elsewhere(torch.Tensor):
    """Refuses to be read as an array, as a tensor on a GPU does; `cpu` brings it here."""

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def to(self, *to, **options):
        return self.cpu().to(*to, **options)


TWO_ONE = [
    [2, 1],
    (2.0, 1.0),
    np.array([2, 1]),
    np.array([1.0, 2.0])[::-1],
    pd.Series([2, 1], index=[5, 6]),
    torch.tensor([2, 1]),
    torch.tensor([2.0, 1.0], requires_grad=True),
    torch.tensor([2.0, 1.0], dtype=torch.bfloat16),
    torch.tensor([2.0, 1.0], dtype=torch.float64).as_subclass(Elsewhere),
    [torch.tensor(2.0, requires_grad=True), torch.tensor(1.0).as_subclass(Elsewhere)],
]


@pytest.mark.parametrize("wanted", TWO_ONE, ids=lambda w: type(w).__name__)
def test_class_weights_come_from_any_kind_of_numbers_on_any_device(wanted, tmp_path):
    data = an_image_set(train=8, val=4)
    made = make_class_weights(wanted, data)
    assert type(made) is torch.Tensor
    assert (made.tolist(), made.dtype) == ([2.0, 1.0], torch.float32)
    assert (made.requires_grad, made.device.type) == (False, "cpu")
    for _ in range(2):  # the second reads the checkpoint
        history = quick(a_model(), data, class_weights=wanted, checkpoint=tmp_path / "run.pt")
    assert len(history.steps) == 1


def test_class_weights_that_were_given_stay_apart_from_those_in_use():
    given = torch.tensor([2.0, 1.0])
    made = make_class_weights(given, an_image_set())
    given.zero_()
    assert made.tolist() == [2.0, 1.0]


def test_a_class_without_images_cannot_be_balanced():
    data = an_image_set()
    # Past its own check, which refuses a training part without a class.
    object.__setattr__(data, "train", data.train.select(np.arange(0, 24, 2)))
    with pytest.raises(ValueError, match=r"no training image of \['class 1'\]"):
        quick(a_model(), data, class_weights="balanced")


@pytest.mark.parametrize("once", [True, False])
def test_a_single_image_left_over_does_not_crash(monkeypatch, once):
    monkeypatch.setattr(batches, "PREPARED_SHARE", 0.25 if once else 0.0)
    history = quick(a_model(), an_image_set(train=17))  # 1 x 1 maps under batch-norm at 32 px
    assert len(history.steps) == 2


def test_images_prepared_once_or_per_batch_give_the_same_weights(monkeypatch):
    data, first, second = an_image_set(), a_model(), a_model()
    quick(first, data, augment="flip")
    monkeypatch.setattr(batches, "PREPARED_SHARE", 0.0)
    quick(second, data, augment="flip")
    assert same(weights_of(first), weights_of(second))


def test_prepared_images_are_what_preprocess_gives(monkeypatch):
    model, images = a_model(), a_split(70).images
    wanted = preprocess(model, images, SIZE)
    for share in (0.25, 0.0):
        monkeypatch.setattr(batches, "PREPARED_SHARE", share)
        prepared = PreparedImages(model, images, size=SIZE)
        assert prepared.prepared_ahead == (share > 0)
        batch = prepared.take(torch.tensor([69, 3]))
        assert torch.equal(batch, wanted[[69, 3]])
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(torch.cat(list(prepared.in_order(32))), wanted)


def test_an_augmentation_in_place_does_not_touch_the_prepared_images():
    data = an_image_set()
    model = a_model()
    source = PreparedImages(model, data.train.images, size=SIZE)
    kept = torch.cat(list(source.in_order(8)))
    feed = TrainingBatches(source, data.train.labels, 8, augment=lambda x, g: x.zero_())
    assert all((images == 0).all() for images, _ in feed)
    assert torch.equal(kept, torch.cat(list(source.in_order(8))))


def test_batches_hold_each_image_once_in_a_new_order_each_time():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.cat(shuffled_batches(33, 8, generator)).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(33))
    assert first != second
    assert [len(b) for b in shuffled_batches(33, 8, generator)] == [8, 8, 8, 9]


@pytest.mark.parametrize(("count", "size"), [(1, 8), (10, 1), (10, 0)])
def test_batches_of_one_are_refused(count, size):
    with pytest.raises(ValueError, match="two images or more in a batch"):
        shuffled_batches(count, size, torch.Generator())


def test_flip_mirrors_about_half():
    images = torch.arange(4.0).expand(2000, 3, 2, 4)
    flipped = flip(images, torch.Generator().manual_seed(0))
    mirrored = flipped[:, 0, 0, 0] == 3
    assert torch.equal(flipped[mirrored], images[mirrored].flip(3))
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert 0.45 < mirrored.float().mean() < 0.55


def test_order_does_not_depend_on_augmentation():
    data, orders = an_image_set(), []
    source = PreparedImages(a_model(), data.train.images, size=SIZE)
    for augment in (None, "flip"):
        feed = TrainingBatches(source, np.arange(24), 8, augment=augment, seed=5)
        orders.append([labels.tolist() for _ in range(2) for _, labels in feed])
    assert orders[0] == orders[1]


@pytest.mark.parametrize("augment", ["rotate", 3])
def test_unknown_augmentations_are_refused(augment):
    with pytest.raises(ValueError, match="augment None, 'flip' or a function"):
        augmentation(augment)


@pytest.mark.parametrize("result", [None, torch.zeros(1, 3, 4, 4)])
def test_an_augmentation_must_return_a_batch(result):
    with pytest.raises(ValueError, match="augment must return a batch"):
        quick(a_model(), augment=lambda images, generator: result)


def test_a_head_of_another_size_names_the_repair():
    with pytest.raises(ValueError, match=r"1000 logits, .* 2 classes: call replace_head\(model, 2"):
        quick(a_model(num_classes=1000))


def test_a_model_that_cannot_move_is_refused():
    with pytest.raises(ValueError, match="no parameter may move"):
        quick(a_model().requires_grad_(False))


def test_an_optimizer_of_another_model_is_refused():
    other = torch.optim.SGD(a_model().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no trainable parameter of this model"):
        quick(a_model(), optimizer=other)


def test_parameters_without_an_optimizer_are_named_where_fit_was_called():
    model = a_model()
    head = torch.optim.SGD(stages(model)["head"].parameters(), lr=0.1)
    with pytest.warns(OptimizerWarning, match="'stem', 'stage1'") as caught:
        fit(model, an_image_set(), epochs=1, batch_size=8, size=SIZE, optimizer=head)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "at least 1 epoch, got 0"),
        ({"keep": "first"}, "expected keep as one of .*'best'.*, got 'first'"),
        ({"batch_size": 1}, "two images or more in a batch"),
        ({"optimizer": "sgd"}, "expected optimizer to be or to make a torch optimizer"),
        ({"optimizer": lambda groups: None}, "expected optimizer to be or to make"),
        ({"schedule": lambda optimizer, total: None}, "expected schedule to be or to make"),
        ({"schedule": "cosine"}, "expected schedule to be or to make"),
        (
            {
                "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ReduceLROnPlateau(
                    optimizer
                )
            },
            "steps without a score",
        ),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        quick(a_model(), **options)


def test_a_schedule_of_another_optimizer_is_refused():
    model = a_model()
    first, second = (torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(2))
    schedule = torch.optim.lr_scheduler.StepLR(first, 1)
    with pytest.raises(ValueError, match="schedule belongs to another optimizer"):
        quick(model, optimizer=second, schedule=schedule)


def test_one_class_in_validation_has_no_auc():
    data = an_image_set()
    object.__setattr__(data, "val", data.val.select(np.arange(0, 16, 2)))
    with pytest.raises(ValueError, match="use keep='best_loss'"):
        quick(a_model(), data, keep="best")
    assert np.isnan(quick(a_model(), data).table["val_auc"][0])


def test_a_loss_that_leaves_the_finite_range_says_so():
    model = a_model()
    with pytest.raises(FloatingPointError, match=r"in step .*: lower the learning rate"):
        quick(model, epochs=3, optimizer=partial(torch.optim.SGD, lr=1e30))
    assert not model.training


def test_auxiliary_heads_do_not_disturb():
    model = a_model("googlenet", aux_logits=True, init_weights=False)
    assert not isinstance(model.train()(torch.zeros(2, 3, 32, 32)), torch.Tensor)
    before = model.fc.weight.detach().clone()
    quick(model, an_image_set(train=4, val=4), batch_size=4)
    assert not torch.equal(before, model.fc.weight)


def test_three_classes():
    data, model = an_image_set(train=24, val=18, classes=3), a_model(num_classes=3)
    quick(model, data, class_weights="balanced")
    assert predict(model, data.test.images, size=SIZE).shape == (8, 3)


def test_predict_gives_probabilities_and_changes_nothing():
    model = a_model("mobilenet_v2").train()
    model.features[0].eval()
    modes = [module.training for module in model.modules()]
    before, images = weights_of(model), a_split(10).images
    probs = predict(model, images, size=SIZE, batch_size=4)
    assert (probs.shape, probs.dtype) == ((10, 2), np.float64)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)
    assert modes == [module.training for module in model.modules()]
    assert same(before, weights_of(model))
    assert all(p.grad is None for p in model.parameters())
    np.testing.assert_allclose(probs, predict(model, images, size=SIZE), atol=1e-5)


def test_predict_restores_the_mode_after_an_error():
    model = a_model().train()
    with pytest.raises(ValueError, match="images"):
        predict(model, np.zeros((2, 28), np.uint8), size=SIZE)
    assert model.training


def test_predict_without_images():
    with pytest.raises(ValueError, match="at least one image"):
        predict(a_model(), np.zeros((0, 28, 28), np.uint8))


def test_histories_show_an_empty_table():
    history = History(pd.DataFrame(columns=["epoch"]), pd.DataFrame(), True, None)
    assert "interrupted" in history._repr_html_()


def test_gradient_norms_are_those_of_the_step():
    model, data = a_model(), an_image_set(train=8)
    groups = param_groups(model, head_lr=1.0, backbone_lr=1.0)
    before = {g["name"]: [p.detach().clone() for p in g["params"]] for g in groups}
    history = quick(model, data, optimizer=torch.optim.SGD(groups), gradients=True)
    for group in groups:
        moved = [
            (a - b.detach()).norm()
            for a, b in zip(before[group["name"]], group["params"], strict=True)
        ]  # a step of plain SGD at rate 1 is the gradient
        expected = torch.stack(moved).norm().item()
        assert history.steps[f"grad/{group['name']}"][0] == pytest.approx(expected, rel=1e-3)
    assert not history.steps.filter(like="grad/").isna().any(axis=None)


def test_without_being_asked_no_gradient_is_written_down():
    assert not quick(a_model()).steps.columns.str.startswith("grad/").any()
