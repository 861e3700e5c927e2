import time
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from tests.test_backbones import ONE_OF_EACH
from tests.test_training import a_model, a_split, an_image_set, quick, weights_of
from tlcourse.backbones import UnsupportedModel, head, load_backbone, minimum_size, stages
from tlcourse.backbones.hooks import capture_activations
from tlcourse.freezing import assert_frozen, freeze, frozen_stages, unfreeze
from tlcourse.loaders import PreparedImages
from tlcourse.loaders.augment import flip
from tlcourse.loaders.batches import AugmentedViews
from tlcourse.training.activation_cache import AboveBoundary, CachedActivations, boundary_stage


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def activations_at(model, name, images):
    with capture_activations(
        model, {"cut": stages(model)[name].output}, lambda _, a: a.clone()
    ) as capture:
        return capture(images)["cut"].clone()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_family_answers_the_same_from_every_boundary(name):
    torch.manual_seed(0)
    model = load_backbone(name, weights=None, num_classes=3).eval()
    size = minimum_size(model)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        whole = model(images)
        for boundary in list(stages(model))[:-1]:
            above = AboveBoundary(model, boundary, images)
            logits = above(activations_at(model, boundary, images))
            torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-5, msg=boundary)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_what_lies_below_does_not_run_and_is_whole_again_after_an_error():
    model = models.resnet18().eval()
    ran = []
    for name in ("stem", "stage3", "stage4"):
        stages(model)[name].roots[0][1].register_forward_pre_hook(
            lambda module, given, name=name: ran.append((name, given[0].shape))
        )
    above = AboveBoundary(model, "stage3", torch.zeros(1, 3, 32, 32))
    ran.clear()
    above(torch.zeros(7, 256, 2, 2))
    assert ("stage4", (7, 256, 2, 2)) in ran
    with pytest.raises(RuntimeError):
        above(torch.zeros(7, 5, 2, 2))
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_boundary_that_the_forward_never_passes_is_refused(monkeypatch):
    model = models.resnet18()
    monkeypatch.setattr(
        model.layer4,
        "register_forward_hook",
        lambda hook: nn.Identity().register_forward_hook(hook),
    )
    with pytest.raises(UnsupportedModel, match="cannot be entered behind 'stage4'"):
        AboveBoundary(model, "stage4", torch.zeros(1, 3, 32, 32))


def test_the_boundary_is_the_end_of_the_frozen_run_from_the_stem():
    model = models.resnet18()
    assert boundary_stage(model) is None
    assert boundary_stage(freeze(model)) == "stage4"
    assert boundary_stage(unfreeze(model, down_to="stage3")) == "stage2"
    by_hand = models.resnet18().requires_grad_(False)  # its statistics move
    assert boundary_stage(by_hand) is None
    assert boundary_stage(freeze(models.resnet18(), through="head")) == "stage4"


def fitted(cache, *, through="stage2", name="shufflenet_v2_x0_5", **options):
    """Train twice the same way, with and without a cache."""
    model = freeze(a_model(name), through=through)
    sgd = partial(torch.optim.SGD, lr=0.001, momentum=0.9)
    history = quick(model, optimizer=sgd, epochs=3, cache=cache, **options)
    return model, history


# DenseNet's and ResNet's last maps are one pixel at this size: normalising batches of 8 of those
# enlarges rounding without bound. Their boundaries are held by the test of every family above.
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v2"])
@pytest.mark.parametrize("through", ["stem", "stage2", "all"])
def test_cached_training_gives_the_weights_of_uncached(name, through):
    cached, history = fitted(True, through=through, name=name)
    plain, expected = fitted(False, through=through, name=name)
    for key, value in plain.state_dict().items():
        apart = (cached.state_dict()[key].double() - value.double()).norm()
        assert apart <= 0.02 * value.double().norm() + 2e-3, key
    first, rest = slice(0, 1), {"rtol": 1e-2, "atol": 2e-3}
    losses, whole = history.steps["loss"], expected.steps["loss"]
    np.testing.assert_allclose(losses[first], whole[first], rtol=1e-5)
    np.testing.assert_allclose(losses, whole, **rest)
    np.testing.assert_allclose(history.table["val_loss"], expected.table["val_loss"], **rest)
    assert frozen_stages(cached) == frozen_stages(plain)


def test_cached_and_uncached_see_the_same_views_bit_for_bit():
    seen = {True: [], False: []}

    def noted(kind, images, generator):
        flipped = flip(images, generator)
        seen[kind].append(flipped.clone())
        return flipped

    for kind in seen:
        fitted(kind, augment=partial(noted, kind), views=2)
    cached = {image.numpy().tobytes() for image in seen[True]}
    plain = {image.numpy().tobytes() for image in seen[False]}
    assert cached == plain
    assert len(seen[True]) < len(seen[False])  # the cache asked for each view of an image once


def test_views_and_cache_give_the_weights_of_views_alone():
    cached, _ = fitted(True, augment="flip", views=2)
    plain, _ = fitted(False, augment="flip", views=2)
    other, _ = fitted(True, augment="flip", views=1)
    name = "fc.weight"
    torch.testing.assert_close(
        cached.state_dict()[name], plain.state_dict()[name], rtol=1e-3, atol=1e-5
    )
    assert not torch.equal(cached.state_dict()[name], other.state_dict()[name])


def test_the_frozen_part_runs_once_per_image_and_view():
    model = freeze(a_model(), through="stage2")
    counted = []
    # What is inside a short-circuited block is not called.
    inner = stages(model)["stage1"].roots[0][1][0].branch2[0]
    inner.register_forward_hook(lambda _module, given, _out: counted.append(len(given[0])))
    data = an_image_set(train=24, val=16)
    quick(model, data, epochs=5)
    # Once for each image, and a few to learn shapes and answers.
    assert sum(counted) < 24 + 16 + 16
    uncached = sum(counted)
    counted.clear()
    quick(model, data, epochs=5, cache=False)
    assert sum(counted) >= 5 * (24 + 16) > 2 * uncached


def test_fresh_augmentation_is_never_cached():
    model = freeze(a_model(), through="stage2")
    before = weights_of(model)
    with assert_frozen(model):
        quick(model, augment="flip", epochs=2)
    first = weights_of(model)
    model.load_state_dict(before)
    quick(model, augment="flip", epochs=2, cache=False)
    assert all(torch.equal(first[k], v) for k, v in weights_of(model).items())


def test_maps_are_pooled_only_where_the_network_cannot_tell():
    images = a_split(6).images
    shapes = {}
    for name in ("resnet18", "densenet121", "vgg11_bn"):
        model = freeze(load_backbone(name, weights=None, num_classes=2).eval())
        unfreeze(model, down_to="hidden" if name == "vgg11_bn" else "head")
        cached = CachedActivations(
            model, PreparedImages(model, images, size=64), boundary_stage(model)
        )
        shapes[name] = tuple(cached.take(torch.arange(2)).shape[2:])
    # DenseNet has a ReLU between its last norm and the pool; VGG pools to 7 x 7.
    assert shapes == {"resnet18": (1, 1), "densenet121": (2, 2), "vgg11_bn": (2, 2)}


HEADS = {
    "zero": lambda layer: [nn.init.zeros_(p) for p in layer.parameters()],
    "usual": lambda layer: layer.reset_parameters(),
    "constant": lambda layer: [nn.init.constant_(p, 0.01) for p in layer.parameters()],
}


@pytest.fixture(scope="module", params=ONE_OF_EACH)
def frozen_family(request):
    """A frozen network, and a size at which its last maps have several pixels where they can."""
    torch.manual_seed(0)
    model = freeze(load_backbone(request.param, weights=None, num_classes=2))
    least = {"alexnet": 96, "googlenet": 64, "inception_v3": 107, "squeezenet1_1": 64}
    size = max(minimum_size(model), least.get(request.param, 64))
    return model, size


@pytest.mark.parametrize("start", HEADS)
def test_every_family_learns_the_same_head_from_the_cache(frozen_family, start):
    """What a head answers before training must not decide what it is trained on."""
    model, size = frozen_family
    data = an_image_set(train=3, val=2)  # one class more often: constant heads must move, too
    torch.manual_seed(1)
    HEADS[start](head(model))
    before = {key: value.clone() for key, value in head(model).state_dict().items()}
    learned = {}
    for cache in (True, False):
        head(model).load_state_dict(before)
        sgd = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
        quick(model, data, optimizer=sgd, size=size, batch_size=3, cache=cache)
        learned[cache] = torch.cat([p.detach().flatten() for p in head(model).parameters()])
    moved = (learned[False] - torch.cat([v.flatten() for v in before.values()])).norm()
    # SqueezeNet's ReLU comes after the head: of zeros it lets no gradient through.
    assert bool(moved > 0) != (isinstance(model, models.SqueezeNet) and start == "zero")
    assert (learned[True] - learned[False]).norm() <= 1e-3 * moved


class Gated(nn.Module):
    """A head of one's own with weights outside any layer: it looks at the brightest position."""

    def __init__(self, features):
        super().__init__()
        self.scale, self.last = nn.Parameter(torch.zeros(features)), nn.Linear(features, 2)

    def forward(self, maps):
        return self.last(maps.amax((2, 3)) * self.scale)


@pytest.mark.parametrize(
    ("slot", "positions"),
    [
        (lambda n: nn.Sequential(nn.Linear(n, 4), nn.Linear(4, 2)), (1, 1)),
        (lambda n: nn.Sequential(nn.Identity(), nn.Linear(n, 2)), (1, 1)),
    ],
)
def test_heads_of_several_layers_are_asked_at_their_first(slot, positions):
    model = models.resnet18()
    model.fc = slot(512)
    nn.init.zeros_(model.fc[0].weight) if hasattr(model.fc[0], "weight") else None
    cached = CachedActivations(
        freeze(model.eval()), PreparedImages(model, a_split(2).images, size=64), "stage4"
    )
    assert tuple(cached.take(torch.arange(2)).shape[2:]) == positions


def test_a_head_that_sees_the_maps_gets_them_though_its_weights_say_nothing():
    model = models.resnet18()
    model.avgpool, model.fc = nn.Identity(), nn.Sequential(nn.Unflatten(1, (512, 2, 2)), Gated(512))
    cached = CachedActivations(
        freeze(model.eval()), PreparedImages(model, a_split(2).images, size=64), "stage4"
    )
    assert tuple(cached.take(torch.arange(2)).shape[2:]) == (2, 2)


def test_a_cache_that_does_not_fit_goes_to_a_file_and_says_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = freeze(a_model().eval(), through="stage1")
    source = PreparedImages(model, a_split(9).images, size=32)
    small, large = (CachedActivations(model, source, "stage1", limit=b) for b in (0, 2**30))
    which = torch.tensor([8, 0, 3])
    assert torch.equal(small.take(which), large.take(which))
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    del small
    assert list(tmp_path.rglob("*.npy")) == []


def test_views_need_an_augmentation_and_a_number():
    source = PreparedImages(a_model(), a_split(4).images, size=32)
    with pytest.raises(ValueError, match="augment is None"):
        AugmentedViews(source, None, views=2)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        AugmentedViews(source, "flip", views=0)


def test_a_view_of_an_image_does_not_depend_on_its_batch():
    views = AugmentedViews(
        PreparedImages(a_model(), a_split(12).images, size=32), "flip", views=3, seed=1
    )
    together = views.take(torch.arange(12))
    alone = torch.cat([views.take(torch.tensor([i])) for i in range(12)])
    assert torch.equal(together, alone)
    views.view = 1
    assert not torch.equal(together, views.take(torch.arange(12)))
    views.view = 3  # in turn: the fourth epoch has the first view again
    assert torch.equal(together, views.take(torch.arange(12)))


def test_a_deep_copy_made_while_training_is_a_plain_network():
    model = freeze(a_model(), through="stage2")
    copies = []

    class Watching(nn.CrossEntropyLoss):
        def forward(self, logits, labels):
            copies.append(deepcopy(model))
            return super().forward(logits, labels)

    AboveBoundary(model, "stage2", torch.zeros(1, 3, 32, 32))
    quick(model, augment=None)
    copies.append(deepcopy(model))
    assert copies[-1].eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_the_first_epochs_seconds_hold_what_filling_the_cache_took(monkeypatch):
    compute = CachedActivations._compute

    def slow(self):
        time.sleep(0.2)
        return compute(self)

    monkeypatch.setattr(CachedActivations, "_compute", slow)
    history = quick(freeze(a_model()), epochs=2)
    assert history.table["seconds"].iloc[0] > 0.4  # training and validation images
