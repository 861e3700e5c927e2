"""Batch norms go into the convolutions before them, and no answer changes."""

import pytest
import torch
from torch import nn

from tests.test_backbones import ONE_OF_EACH
from tlcourse.backbones import load_backbone, minimum_size
from tlcourse.backbones.batchnorm import folded


def with_statistics(model):
    """Give every batch norm statistics and weights that make a difference."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_family_answers_the_same(name):
    model = with_statistics(load_backbone(name, weights=None, num_classes=3))
    size = minimum_size(model)
    images = torch.randn(2, 3, size, size)
    fast = folded(model, images[:1])
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "vgg11_bn"])
def test_all_norms_behind_convolutions_are_folded_and_the_model_stays_as_it_was(name):
    model = with_statistics(load_backbone(name, weights=None, num_classes=3)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    there = norms(model)
    fast = folded(model, torch.randn(1, 3, 64, 64))
    assert (norms(model), norms(fast)) == (there, 0)
    assert there > 0
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class Shared(nn.Module):
    """The convolution's own output is used beside the batch norm's."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images):
        seen = self.convolution(images)
        return seen + self.norm(seen)


def test_what_would_change_an_answer_is_left_alone():
    model = with_statistics(Shared())
    assert folded(model, torch.randn(1, 3, 4, 4)) is model


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_what_answers_all_images_alike_hides_no_change(value):
    silent = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(silent.weight), nn.init.constant_(silent.bias, value)
    model = with_statistics(nn.Sequential(Shared(), silent))
    assert folded(model, torch.randn(1, 3, 4, 4), output="0") is model
    last = with_statistics(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), silent))
    assert norms(folded(last, torch.randn(1, 3, 4, 4), output="1")) == 0


def test_a_layer_used_twice_is_left_alone():
    layer = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    model = with_statistics(nn.Sequential(layer, layer))
    assert folded(model, torch.randn(1, 3, 4, 4)) is model


def test_a_network_without_batch_norm_comes_back():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    assert folded(model, torch.randn(1, 3, 4, 4)) is model
