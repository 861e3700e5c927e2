"""Four starts of one training: what they share and in what they differ."""

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.ops.misc import Conv2dNormActivation

from studies import images, starts
from studies.starts import run_start, shuffle_weights, small_network, starting_network
from tests.test_training import an_image_set
from tlcourse.backbones import stages
from tlcourse.freezing import freeze, frozen_stages


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(images, "load_images", lambda *_, **__: an_image_set(train=24))
    images.image_set.cache_clear()
    yield
    images.image_set.cache_clear()


def multiplications(model, size=128):
    """Count those of all convolutions and linear layers for one image."""
    counted = []

    def note(layer, _, out):
        places = out.shape[2] * out.shape[3] if out.dim() == 4 else 1
        counted.append(layer.weight.numel() * places)

    hooks = [
        layer.register_forward_hook(note)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    model.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def test_the_small_network_costs_about_what_mobilenet_costs():
    ours, theirs = multiplications(small_network()), multiplications(models.mobilenet_v2())
    assert 0.8 < ours / theirs < 1.1
    parameters = [sum(p.numel() for p in m.parameters()) for m in (small_network(), models.vgg11())]
    assert parameters[0] < 500_000 < parameters[1]


def test_the_small_network_is_a_classifier_like_any_other():
    network = small_network(num_classes=3)
    assert next(iter(stages(network))) == "stem"
    assert list(stages(network))[-1] == "head"
    assert "head" not in frozen_stages(freeze(network))
    assert not any(p.is_meta for p in network.parameters())
    same, other = small_network(num_classes=3), small_network(num_classes=3, seed=1)
    weight = network.features[0].weight
    assert torch.equal(weight, same.features[0].weight)
    assert not torch.equal(weight, other.features[0].weight)


def test_shuffling_keeps_every_layers_numbers_and_no_filter():
    model = models.mobilenet_v2(num_classes=2)
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            module.running_mean.copy_(module.weight.detach() * 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = shuffle_weights(model, seed=1).state_dict()
    for name, value in before.items():
        if name.startswith("classifier.1"):
            assert torch.equal(value, after[name]), "the head stays"
            continue
        assert torch.equal(value.flatten().sort()[0], after[name].flatten().sort()[0]), name
    first = next(m for m in model.modules() if isinstance(m, Conv2dNormActivation))
    assert not torch.equal(first[0].weight, before["features.0.0.weight"])
    # A channel's own numbers stay together.
    assert torch.equal(first[1].running_mean, first[1].weight * 2)
    assert not torch.equal(first[1].weight, before["features.0.1.weight"])


def test_the_shuffle_follows_its_seed():
    def shuffled(seed):
        torch.manual_seed(0)
        return shuffle_weights(models.resnet18(), seed=seed).conv1.weight

    assert torch.equal(shuffled(1), shuffled(1))
    assert not torch.equal(shuffled(1), shuffled(2))


def test_starts_differ_in_their_weights_only():
    kinds = {start: type(starting_network(start)).__name__ for start in starts.STARTS}
    assert kinds == {
        "imagenet": "MobileNetV2",
        "shuffled": "MobileNetV2",
        "scratch": "MobileNetV2",
        "small": "VGG",
    }
    with pytest.raises(ValueError, match=r"expected a start of imagenet.*; got 'cold'"):
        starting_network("cold")


@pytest.mark.parametrize("start", starts.STARTS)
def test_every_start_trains_and_scores(start):
    given = {"images": 16, "seed": 0, "lr": 1e-3, "steps": 4, "size": 32}
    row = run_start(start, **given)
    assert row["train_images"] == 16
    assert 0 <= row["auc"] <= 1
    shut = run_start(start, **given, test=False)
    assert "auc" not in shut
    assert shut["val_loss"] == row["val_loss"]
