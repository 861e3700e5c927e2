"""Freeze and release in the middle of a training; stop it anywhere and go on as if nothing was."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models

from tests.test_training import a_model, an_image_set, digest, quick, same, weights_of
from tlcourse.backbones import stages
from tlcourse.freezing import freeze, frozen_stages, unfreeze, unfreeze_in_training
from tlcourse.freezing.freeze import plan_unfreezing
from tlcourse.optim import OptimizerWarning, param_groups, warmup_cosine
from tlcourse.training.checkpoint import (
    CheckpointMismatch,
    CheckpointWarning,
    load_checkpoint,
    save_checkpoint,
)

SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=0.01)
ADAMW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Stopper:
    """An augmentation that counts its batches, and can stop the training at one of them."""

    def __init__(self, at=None, error=KeyboardInterrupt):
        self.left, self.error = at, error

    def __call__(self, images, generator):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise self.error
        return images + 0.01 * torch.randn(images.shape, generator=generator)

    __name__ = "stopper"


# Releasing -----------------------------------------------------------------------------------


def test_stages_are_released_before_their_epoch_and_move_from_then_on():
    model = freeze(a_model())
    names = list(stages(model))
    before = weights_of(model)
    moved = {}

    def note(optimizer, total_steps):
        def factor(step):
            moved[step] = {
                n for n, s in stages(model).items()
                if any(not torch.equal(p, before[k]) for k, p in s.named_parameters())
            }  # fmt: skip
            return 1.0

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    history = quick(
        model, optimizer=SGD, schedule=note, epochs=4, unfreeze_at={"stage3": 2, "stem": 4}
    )
    steps = len(history.steps) // 4
    assert moved[steps] == {"head"}
    assert moved[3 * steps] == {"stage3", "head"}
    assert moved[4 * steps] == set(names)
    assert frozen_stages(model) == ()


@pytest.mark.parametrize("make", [SGD, ADAMW])
def test_a_released_stage_starts_without_a_past(make):
    model = a_model()
    optimizer = make(model.parameters())
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.step()  # momentum everywhere
    inner = list(stages(model)["stage3"].parameters())
    freeze(model)
    for parameter in inner:
        parameter.grad = torch.ones_like(parameter)  # left by a careless backward
    unfreeze_in_training(model, "stage3", optimizer)
    assert all(p.requires_grad and p.grad is None for p in inner)
    assert not any(p in optimizer.state for p in inner)
    head = list(stages(model)["head"].parameters())
    assert all(p in optimizer.state for p in head)  # what went on training keeps its momentum
    before = [p.detach().clone() for p in inner]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, inner, strict=True))


def test_what_is_held_by_hand_is_not_released():
    model = a_model()
    by_hand = next(iter(stages(model)["stage3"].parameters())).requires_grad_(False)
    before = by_hand.detach().clone()
    quick(freeze(model), optimizer=SGD, epochs=2, unfreeze_at={"stem": 2})
    assert torch.equal(by_hand, before)


def test_gradual_unfreezing_with_cached_activations_gives_the_weights_of_uncached():
    trained = []
    for cache in (True, False):
        model = freeze(a_model())
        quick(model, optimizer=SGD, epochs=4, cache=cache, unfreeze_at={"stage3": 2, "stem": 4})
        trained.append(weights_of(model))
    for name, value in trained[1].items():
        torch.testing.assert_close(trained[0][name], value, rtol=1e-2, atol=1e-3)


def test_a_ready_optimizer_holds_what_is_released_later():
    model = freeze(a_model())
    lacking = torch.optim.SGD(param_groups(model, head_lr=0.01), momentum=0.9)
    with pytest.warns(OptimizerWarning, match="'stage3'"):
        quick(model, optimizer=lacking, epochs=2, unfreeze_at={"stage3": 2})
    model = freeze(a_model())
    groups = param_groups(model, head_lr=0.01, backbone_lr=0.001, unfreezing="stage3")
    history = quick(model, optimizer=torch.optim.SGD(groups), epochs=2, unfreeze_at={"stage3": 2})
    assert {"lr/stage3", "lr/head"} <= set(history.steps)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"layer4": 2}, "got 'layer4'; its stages: stem"),
        ({"head": 2}, "'head', which is not frozen"),
        ({"stage3": 1}, "from 2 to epochs=3, got 1"),
        ({"stage3": 4}, "from 2 to epochs=3, got 4"),
        ({"stage3": 3, "stem": 2}, "'stem' cannot be released in epoch 2, before 'stage3'"),
    ],
)
def test_impossible_releases_are_refused(wanted, message):
    with pytest.raises(ValueError, match=message):
        quick(freeze(a_model()), epochs=3, unfreeze_at=wanted)


def test_stages_released_in_one_epoch_go_down_to_the_lowest():
    assert plan_unfreezing(freeze(models.resnet18()), {"stage3": 2, "stage4": 2}, 3) == {
        2: "stage3"
    }


# Resuming ------------------------------------------------------------------------------------

TRAININGS = {
    "plain": {"optimizer": SGD, "augment": "flip"},
    "adamw, warmup, best": {
        "optimizer": ADAMW, "schedule": partial(warmup_cosine, warmup_steps=3), "keep": "best_loss",
    },
    "one cycle": {
        "optimizer": SGD,
        "schedule": lambda o, n: torch.optim.lr_scheduler.OneCycleLR(o, 0.02, total_steps=n),
    },
    "released, views": {
        "optimizer": SGD, "augment": "flip", "views": 2, "unfreeze_at": {"stage3": 2, "stem": 4},
    },
}  # fmt: skip


def start(name, options):
    model = a_model("mobilenet_v2" if "warmup" in name else "shufflenet_v2_x0_5")
    return freeze(model) if "unfreeze_at" in options else model


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("stop", [0, 4, 9, 11])
def test_a_stopped_training_resumes_to_the_same_weights_bit_for_bit(name, stop, tmp_path):
    options = {**TRAININGS[name], "epochs": 4, "seed": 3}
    whole = start(name, options)
    expected = quick(whole, **options)

    class Stopping(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, logits, labels):
            Stopping.calls += 1
            if Stopping.calls > stop:
                raise SystemError("as if killed")
            return super().forward(logits, labels)

    file = tmp_path / "run.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlcourse.optim.factory.nn.CrossEntropyLoss", Stopping)
        with pytest.raises(SystemError):
            quick(start(name, options), **options, checkpoint=file)
    assert file.exists() == (stop >= 3)
    resumed = start(name, options)
    history = quick(resumed, **options, checkpoint=file)
    assert same(weights_of(whole), weights_of(resumed))
    columns = ["epoch", "train_loss", "val_loss", "val_auc", "lr"]
    assert history.table[columns].equals(expected.table[columns])
    assert history.steps.equals(expected.steps)
    assert history.kept_epoch == expected.kept_epoch
    assert [m.training for m in resumed.modules()] == [m.training for m in whole.modules()]


def test_a_finished_training_is_only_read_back(tmp_path):
    first, again = a_model(), a_model()
    file = tmp_path / "run.pt"
    history = quick(first, epochs=2, checkpoint=file)
    repeated = quick(again, epochs=2, checkpoint=file, augment=None)
    assert same(weights_of(first), weights_of(again))
    assert repeated.steps.equals(history.steps)


KILLED = """
import sys, torch
from pathlib import Path
from tests.test_training_resuming import ADAMW, slow_training
torch.set_num_threads(1)
slow_training(Path(sys.argv[1]), announce=True)
"""


def slow_training(file, announce=False):
    """Train with dropout and flips; say when each epoch's checkpoint is there."""
    model = a_model("mobilenet_v2")
    data = an_image_set(train=32)

    def slowly(images, generator):
        if announce:
            print("step", file.exists(), flush=True)
        return images + 0.01 * torch.randn(images.shape, generator=generator)

    quick(model, data, epochs=4, optimizer=ADAMW, augment=slowly, checkpoint=file)
    return model


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize("steps", [2, 6, 11])
def test_a_killed_process_loses_at_most_its_running_epoch(steps, tmp_path, request):
    file = tmp_path / "run.pt"
    command = [sys.executable, "-c", KILLED, str(file)]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=request.config.rootpath
    )
    for _ in range(2 + steps):  # it is asked twice what it does before the first step
        assert child.stdout.readline().startswith("step")
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    assert file.exists() == (steps > 4)
    resumed = slow_training(file)
    assert digest(resumed) == digest(slow_training(tmp_path / "other.pt"))
    assert sorted(p.name for p in tmp_path.glob("*.pt")) == ["other.pt", "run.pt"]


def test_a_full_disk_costs_neither_the_training_nor_the_last_checkpoint(tmp_path):
    resource = pytest.importorskip("resource", reason="Windows has no limit on file sizes")
    file = tmp_path / "run.pt"
    free = a_model()
    quick(free, epochs=3)
    model = a_model()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    class Filling(Stopper):
        def __call__(self, images, generator):
            self.left -= 1
            if self.left == 0:  # in the second epoch
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
            return images

    try:
        with pytest.warns(CheckpointWarning, match="the one before it is kept"):
            quick(model, epochs=3, augment=Filling(at=5), checkpoint=file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert same(weights_of(free), weights_of(model))
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
    content = torch.load(file, weights_only=True)
    assert content["state"]["epoch"] == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 3}, "epochs: 2 then, 3 now"),
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"optimizer": SGD}, "optimizer: 'AdamW' then, 'SGD' now"),
        ({"data": an_image_set(gap=30)}, "images: "),
        ({"keep": "best"}, "keep: 'last' then, 'best' now"),
        ({"class_weights": "balanced"}, "class_weights: None then, \\[1.0, 1.0\\] now"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(changed, message, tmp_path):
    file = tmp_path / "run.pt"
    quick(a_model(), epochs=2, checkpoint=file)
    with pytest.raises(CheckpointMismatch, match=message):
        quick(a_model(), **{"epochs": 2, "checkpoint": file, **changed})


def factors(values):
    """A schedule whose function is a lambda over a value: only what it gives tells two apart."""
    return lambda optimizer, _steps: torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: values ** (step // 2)
    )


def one_cycle(peak, cut=0.3):
    return lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, total_steps=steps, pct_start=cut
    )


def shifted(amount):
    return lambda images, generator: images + amount * torch.rand(1, generator=generator)


def grouped(**options):
    def make(groups):
        parameters = groups[0]["params"]
        two = [{"name": "rest", "params": parameters[:-1]}]
        return torch.optim.SGD([*two, {"name": "end", "params": parameters[-1:], **options}], 0.1)

    return make


CHANGES = [
    ({"optimizer": ADAMW}, {"optimizer": partial(ADAMW, weight_decay=0.1)},
     "optimizer groups, all, weight_decay: 0.01 then, 0.1 now"),
    ({"optimizer": ADAMW}, {"optimizer": partial(ADAMW, betas=(0.9, 0.9))},
     r"optimizer groups, all, betas\[1\]: 0.999 then, 0.9 now"),
    ({"optimizer": SGD}, {"optimizer": partial(SGD, momentum=0.5)}, "momentum: 0.9 then, 0.5 now"),
    ({"optimizer": SGD}, {"optimizer": partial(SGD, nesterov=True)}, "nesterov: False then, True"),
    ({"optimizer": grouped()}, {"optimizer": grouped(weight_decay=0.1)},
     "optimizer groups, end, weight_decay: 0 then, 0.1 now"),
    ({"optimizer": SGD}, {"optimizer": lambda groups: SGD(groups[0]["params"])},
     "optimizer groups, all"),
    ({"optimizer": SGD}, {"optimizer": lambda g: SGD([{**g[0], "params": g[0]["params"][1:]}])},
     "optimizer groups, all, parameters: '170 .* then, '169 .* now"),
    ({"schedule": factors(0.5)}, {"schedule": factors(0.25)},
     r"schedule gives, lr of all\[2\]: 0.0005 then, 0.00025 now"),
    ({"schedule": one_cycle(0.1)}, {"schedule": one_cycle(0.1, cut=0.4)}, "schedule gives, betas"),
    ({"schedule": partial(warmup_cosine, warmup_steps=2)}, {"schedule": warmup_cosine},
     "schedule gives, lr of all"),
    ({"schedule": factors(0.5)}, {}, "schedule: 'LambdaLR' then, None now"),
    ({"augment": shifted(0.1)}, {"augment": shifted(0.2)}, "augment, gives"),
    ({"augment": "flip"}, {}, "augment: 'flip' then, None now"),
    ({"class_weights": [1, 2]}, {"class_weights": [1, 3]},
     r"class_weights\[1\]: 2.0 then, 3.0 now"),
    ({"schedule": lambda o, _: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1)},
     {"schedule": lambda o, _: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 2)},
     "schedule gives, lr of all: 0.001 then, 0.002 now"),
    ({}, {"cache": False}, "cache: True then, False now"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "message"), CHANGES)
def test_every_changed_option_is_refused_by_its_name(first, second, message, tmp_path):
    file = tmp_path / "run.pt"
    quick(a_model(), epochs=1, checkpoint=file, **first)
    with pytest.warns(OptimizerWarning) if "169" in message else nullcontext():  # noqa: SIM117
        with pytest.raises(CheckpointMismatch, match=message):
            quick(a_model(), epochs=1, checkpoint=file, **second)


SAME = [
    ({"optimizer": ADAMW}, {"optimizer": lambda groups: ADAMW(groups)}),
    ({"schedule": factors(0.5)}, {"schedule": factors(1 / 2)}),
    ({"schedule": one_cycle(0.1)}, {"schedule": one_cycle(0.1)}),
    ({"augment": shifted(0.1)}, {"augment": shifted(0.1)}),
    ({"augment": lambda images, _: images + torch.randn(1)}, {}),  # draws from a global generator
    ({"class_weights": [1, 2]}, {"class_weights": torch.tensor([1.0, 2.0], dtype=torch.bfloat16)}),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_the_same_settings_said_otherwise_are_accepted(first, second, tmp_path):
    file = tmp_path / "run.pt"
    models_ = a_model(), a_model()
    quick(models_[0], epochs=2, checkpoint=file, **first)
    quick(models_[1], epochs=2, checkpoint=file, **(first | second))
    assert same(*map(weights_of, models_))


def ready_made(model, *, decay=0.01, gamma=0.5, step_size=2):
    optimizer = SGD(model.parameters(), weight_decay=decay)
    halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=step_size, gamma=gamma)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=0.5, total_iters=1)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [constant, halving], milestones=[2])
    return {"optimizer": optimizer, "schedule": both}


def test_ready_made_optimizers_and_schedulers_are_compared_as_well(tmp_path):
    file, options = tmp_path / "run.pt", {"epochs": 3, "checkpoint": tmp_path / "run.pt"}
    whole = a_model()
    expected = quick(whole, epochs=3, **ready_made(whole))
    stopped = a_model()
    quick(stopped, augment=Stopper(at=99), **options, **ready_made(stopped))
    file.unlink()
    model = a_model()
    quick(model, **options, **ready_made(model))
    assert same(weights_of(whole), weights_of(model))  # looking ahead moved nothing
    for changed, message in (
        ({"decay": 0.1}, "weight_decay: 0.01 then, 0.1 now"),
        ({"gamma": 0.1}, "schedule gives, lr of group0"),
        ({"step_size": 3}, "schedule gives, lr of group0"),
    ):
        model = a_model()
        with pytest.raises(CheckpointMismatch, match=message):
            quick(model, **options, **ready_made(model, **changed))
    model = a_model()
    assert quick(model, **options, **ready_made(model)).steps.equals(expected.steps)


def test_a_scheduler_that_cannot_be_copied_is_known_by_its_own_numbers(tmp_path):
    class Logging(torch.optim.lr_scheduler.StepLR):
        def __deepcopy__(self, memo):
            raise TypeError("cannot pickle '_thread.lock' object")

    def start(gamma):
        model = a_model()
        optimizer = SGD(model.parameters())
        schedule = Logging(optimizer, step_size=2, gamma=gamma)
        options = {"optimizer": optimizer, "schedule": schedule}
        return quick(model, checkpoint=tmp_path / "run.pt", **options)

    assert start(0.5).steps.equals(start(0.5).steps)
    with pytest.raises(CheckpointMismatch, match=r"schedule gives, gamma: 0.5 then, 0.25 now"):
        start(0.25)


def test_looking_at_the_settings_changes_no_training(tmp_path):
    """What counts its calls is copied before it is asked what it does."""
    plain, kept = a_model(), a_model()
    watched = Stopper(at=3)  # as many batches as there are
    quick(plain, augment=Stopper(), schedule=factors(0.5))
    history = quick(kept, augment=watched, schedule=factors(0.5), checkpoint=tmp_path / "run.pt")
    assert not history.interrupted
    assert watched.left == 0
    assert same(weights_of(plain), weights_of(kept))


def frozen_part(name, change=None, **options):
    model = freeze(a_model(**options), through=name)
    with torch.no_grad():
        if change is not None:
            change(model)
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.conv1[0].weight.mul_(1.5), "frozen weights, stem: '.*' then, '.*' now"),
        (lambda m: m.stage2[1].branch2[1].running_mean.add_(1), "frozen weights, stage1: "),
        (lambda m: m.stage2[1].branch2[1].num_batches_tracked.add_(1), "frozen weights, stage1: "),
    ],
)
def test_other_frozen_weights_or_statistics_are_refused(change, message, tmp_path):
    file = tmp_path / "run.pt"
    quick(frozen_part("stage1"), checkpoint=file)
    with pytest.raises(CheckpointMismatch, match=message):
        quick(frozen_part("stage1", change), checkpoint=file)


def test_what_moves_may_start_anywhere_for_the_checkpoint_holds_it(tmp_path):
    first = frozen_part("stage1")
    other = frozen_part("stage1", lambda m: [p.zero_() for p in m.fc.parameters()])
    for model in (first, other):
        quick(model, checkpoint=tmp_path / "run.pt")
    assert same(weights_of(first), weights_of(other))


@pytest.mark.parametrize("old", [None, 1])
def test_a_checkpoint_of_an_older_layout_says_what_to_do(old, tmp_path):
    file = tmp_path / "run.pt"
    torch.save({"format": old, "settings": {"epochs": 3}, "state": {}}, file)
    with pytest.raises(CheckpointMismatch, match=r"layout .*older.*delete it") as error:
        load_checkpoint(file, {"epochs": 2})
    assert "epochs" not in str(error.value)  # what an old layout holds cannot be compared


def test_many_differences_do_not_bury_the_first(tmp_path):
    save_checkpoint(tmp_path / "run.pt", {}, {f"option{i}": 0 for i in range(20)})
    with pytest.raises(CheckpointMismatch, match=r"option0: 0 then, 1 now.* and 15 more") as error:
        load_checkpoint(tmp_path / "run.pt", {f"option{i}": 1 for i in range(20)})
    assert "option7" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK no zip", None])
def test_a_damaged_checkpoint_is_refused_and_left_alone(content, tmp_path):
    file = tmp_path / "run.pt"
    if content is None:
        save_checkpoint(file, {"epoch": 1}, {})
        content = file.read_bytes()[:-40]
    file.write_bytes(content)
    with pytest.raises(CheckpointMismatch, match=r"run.pt is no checkpoint .*delete it"):
        load_checkpoint(file, {})
    assert file.read_bytes() == content


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"format": 1, "settings": {}, "state": Trap()}, tmp_path / "run.pt")
    with pytest.raises(CheckpointMismatch):
        load_checkpoint(tmp_path / "run.pt", {})
    assert not (tmp_path / "sprung").exists()


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(tmp_path, capsys):
    file = tmp_path / "run.pt"
    options = {"epochs": 3, "optimizer": SGD}
    whole = a_model()
    quick(whole, augment=Stopper(), **options)
    history = quick(a_model(), augment=Stopper(at=4), checkpoint=file, **options)
    assert history.interrupted
    resumed = a_model()
    history = quick(resumed, augment=Stopper(), checkpoint=file, **options)
    assert not history.interrupted
    assert same(weights_of(whole), weights_of(resumed))


def test_an_unfreeze_in_between_two_fits_leaves_nothing_behind():
    """Probe, then fine-tune, as two calls: the second starts as fit on a fresh copy would."""
    model = freeze(a_model())
    quick(model, optimizer=SGD, epochs=2)
    copy = a_model()
    copy.load_state_dict(model.state_dict())
    unfreeze(model)
    quick(model, optimizer=SGD, seed=1)
    quick(copy, optimizer=SGD, seed=1)
    assert same(weights_of(model), weights_of(copy))
