import numpy as np
import pytest
import torch
from torchvision.models import mobilenet_v2, vit_b_16

from tlcourse.backbones import calibrate_statistics, preprocess
from tlcourse.freezing import snapshot

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 32, 32), np.uint8)


def test_statistics_become_those_of_the_images():
    model = mobilenet_v2().eval()
    stem = model.features[0]
    maps = stem[0](preprocess(model, IMAGES, 32))
    calibrate_statistics(model, IMAGES, size=32)
    assert torch.allclose(stem[1].running_mean, maps.mean((0, 2, 3)), atol=1e-5)


def test_batches_of_any_size_agree_at_the_stem():
    means = []
    for batch_size in (2, 7):
        model = mobilenet_v2(weights=None)
        torch.nn.init.ones_(model.features[0][0].weight)
        calibrate_statistics(model, IMAGES[:6], size=32, batch_size=batch_size)
        means.append(model.features[0][1].running_mean)
    assert torch.allclose(*means, atol=1e-4)


def test_no_weight_and_no_mode_changes():
    model = mobilenet_v2()
    model.features[0].eval()
    modes = [module.training for module in model.modules()]
    before = snapshot(model)
    assert calibrate_statistics(model, IMAGES, size=32) is model
    assert [module.training for module in model.modules()] == modes
    after = snapshot(model)
    assert all(torch.equal(before.parameters[n], after.parameters[n]) for n in before.parameters)
    assert not model._forward_pre_hooks
    assert {m.momentum for m in model.modules() if hasattr(m, "momentum")} == {0.1}


def test_the_random_state_is_left_alone():
    state = torch.get_rng_state()
    model = mobilenet_v2()
    state = torch.get_rng_state()
    calibrate_statistics(model, IMAGES, size=32)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("images", "batch_size"), [(IMAGES[:1], 64), (IMAGES, 1)])
def test_one_image_has_no_spread(images, batch_size):
    with pytest.raises(ValueError, match="two images or more in a batch"):
        calibrate_statistics(mobilenet_v2(), images, size=32, batch_size=batch_size)


def test_a_network_without_batch_norm_stays_as_it_is():
    model = vit_b_16()
    before = snapshot(model)
    calibrate_statistics(model, np.repeat(IMAGES[:2], 7, axis=1).repeat(7, axis=2), size=224)
    after = snapshot(model)
    assert all(torch.equal(before.parameters[n], after.parameters[n]) for n in before.parameters)
