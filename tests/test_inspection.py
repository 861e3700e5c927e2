import numpy as np
import pytest
import torch
from test_features import assert_same_state, small_swin, small_vit, state_of
from torch import nn
from torchvision import models

from tlcourse.backbones import load_backbone, preprocess
from tlcourse.inspection import occlusion_map, responses, stem_filters, top_patches

QUIET = {"size": 32, "progress": False}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32), np.uint8)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return models.resnet18()


@pytest.fixture
def spotter():
    """A ResNet whose stem channel 0 answers to bright pixels in their place, and to nothing else.

    Its answer 0 is high when the stem's channel 0 is.
    """
    model = models.resnet18().eval()
    with torch.no_grad():
        model.conv1.weight.zero_()
        model.conv1.weight[0, :, 3, 3] = 1
    return model


def spots(*places, size=64):
    scene = np.zeros((len(places), size, size), np.uint8)
    for image, (row, column) in zip(scene, places, strict=True):
        image[row : row + 3, column : column + 3] = 255
    return scene


# Filters and responses


def test_filters_are_the_weights_as_they_are(resnet):
    filters = stem_filters(resnet)
    assert filters.dtype == np.float32
    np.testing.assert_array_equal(filters, resnet.conv1.weight.detach().numpy())


def test_a_network_without_convolutions_has_no_filters():
    with pytest.raises(ValueError, match="with a convolution, got Linear"):
        stem_filters(nn.Linear(2, 2))


def test_responses_are_maps_in_torch_order(images, resnet):
    assert responses(resnet, images, "stage2", **QUIET).shape == (6, 128, 4, 4)
    assert responses(small_vit(), images, "stage1", **QUIET).shape == (6, 16, 4, 4)
    assert responses(small_swin(), images, "stem", **QUIET).shape == (6, 16, 8, 8)
    with pytest.raises(ValueError, match="got 'head'"):
        responses(resnet, images, "head", **QUIET)


# Patches


def test_patches_show_what_the_channel_answers_to(spotter):
    places = [(10, 40), (30, 5), (50, 50), (0, 0)]
    scene = spots(*places)
    scene[1] = scene[1] // 2
    found = top_patches(spotter, scene, "stem", 0, k=3, size=64, progress=False)
    assert set(found.images) == {0, 2, 3}
    assert (np.diff(found.strengths) <= 0).all()
    height, width = found.crops.shape[1:]
    assert 8 <= height < 24
    for crop, row, (top, left) in zip(found.crops, found.images, found.corners, strict=True):
        np.testing.assert_array_equal(crop, scene[row, top : top + height, left : left + width])
        assert crop.max() == 255


def test_patches_lie_inside_the_image_and_follow_its_shape(resnet):
    wide = np.random.default_rng(0).integers(0, 256, (4, 40, 80, 3), np.uint8)
    found = top_patches(resnet, wide, "stage1", 3, k=4, **QUIET)
    assert sorted(found.images) == [0, 1, 2, 3]
    height, width = found.crops.shape[1:3]
    assert (found.corners >= 0).all()
    assert (found.corners + np.array([height, width]) <= [40, 80]).all()
    assert width > height


def test_later_stages_see_larger_parts(resnet):
    scene = np.random.default_rng(0).integers(0, 256, (4, 64, 64), np.uint8)
    sides = [
        top_patches(resnet, scene, stage, 1, k=4, size=64, progress=False).crops.shape[1]
        for stage in ("stem", "stage1", "stage3")
    ]
    assert sides[0] <= sides[1] < sides[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 7}, "k from 1 to the number of images, 6, got 7"),
        ({"k": 0}, "got 0"),
        ({"channel": 64}, "channel from 0 to 63 of stage1, got 64"),
        ({"channel": -1}, "got -1"),
        ({"stage": "middle"}, "got 'middle'"),
    ],
)
def test_patches_name_a_wrong_argument(resnet, images, change, message):
    arguments = {"stage": "stage1", "channel": 0, "k": 2} | change
    with pytest.raises(ValueError, match=message):
        top_patches(resnet, images, **arguments, **QUIET)


def test_a_silent_channel_is_named(spotter):
    with pytest.raises(ValueError, match="channel 1 of stem answers to none"):
        top_patches(spotter, spots((1, 1)), "stem", 1, k=1, **QUIET)


# Attribution


class Corner(nn.Module):
    """Logit 0 is the mean brightness of the upper left quarter."""

    def forward(self, batch):
        bright = batch[:, :, : batch.shape[2] // 2, : batch.shape[3] // 2].mean((1, 2, 3))
        return torch.stack([bright, torch.zeros_like(bright)], 1)


@pytest.fixture
def corner(monkeypatch):
    """A network that looks at one corner, prepared as a ResNet would be."""
    plain = models.resnet18()
    monkeypatch.setattr(
        "tlcourse.inspection.attribution.preprocess",
        lambda _model, images, size: preprocess(plain, images, size),
    )
    return Corner()


def test_occlusion_finds_the_corner_that_decides(corner):
    image = np.full((40, 48), 20, np.uint8)
    image[:20, :24] = 220
    heat = occlusion_map(corner, image, 0, **QUIET)
    assert heat.shape == (40, 48)
    assert heat.dtype == np.float32
    assert heat[:20, :24].mean() > 0.01
    assert abs(heat[30:, 36:]).max() < 1e-6
    np.testing.assert_allclose(heat, -occlusion_map(corner, image, 1, **QUIET), atol=1e-6)


@pytest.mark.parametrize(("patch", "stride"), [(7, 5), (32, 3), (1, 1), (5, 5)])
def test_every_pixel_is_hidden_once_or_more(corner, patch, stride):
    image = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    heat = occlusion_map(corner, image, 0, patch=patch, stride=stride, batch_size=512, **QUIET)
    assert np.isfinite(heat).all()


def test_batches_do_not_change_an_occlusion_map(resnet):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    maps = [occlusion_map(resnet, image, 3, stride=8, batch_size=size, **QUIET) for size in (2, 50)]
    np.testing.assert_allclose(*maps, atol=1e-6)


@pytest.mark.parametrize(("patch", "stride"), [(33, 1), (4, 5), (0, 1), (4, 0)])
def test_squares_that_do_not_fit_are_named(corner, patch, stride):
    with pytest.raises(ValueError, match=f"stride <= patch <= 32, got {stride} and {patch}"):
        occlusion_map(corner, np.zeros((32, 32), np.uint8), 0, patch=patch, stride=stride, **QUIET)


def test_labels_and_shapes_out_of_range_are_named(resnet, images):
    with pytest.raises(ValueError, match="label from 0 to 999, got 1000"):
        occlusion_map(resnet, images[0], 1000, size=32)
    with pytest.raises(ValueError, match="label from 0 to 999, got -1"):
        occlusion_map(resnet, images[0], -1, size=32)
    with pytest.raises(ValueError, match=r"one image .* got \(6, 32, 32\)"):
        occlusion_map(resnet, images, 0, size=32)


@pytest.mark.parametrize("frozen", [True, False])
def test_nothing_here_changes_a_model(images, frozen):
    model = load_backbone("mobilenet_v2", weights=None).train()
    model.features[2].eval()
    if frozen:
        model.features.requires_grad_(False)
    model.classifier[1].bias.grad = torch.ones_like(model.classifier[1].bias)
    before = state_of(model)
    stem_filters(model)
    responses(model, images, "stage2", **QUIET)
    top_patches(model, images, "stage1", 0, k=2, **QUIET)
    occlusion_map(model, images[0], 0, stride=8, **QUIET)
    assert_same_state(before, state_of(model))


def test_an_error_leaves_no_trace(resnet, images, monkeypatch):
    resnet.train()
    before = state_of(resnet)
    monkeypatch.setattr(resnet.layer4[1], "forward", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        occlusion_map(resnet, images[0], 0, size=32)
    assert_same_state(before, state_of(resnet))


def test_patches_are_found_where_gradients_are_off(resnet, images):
    with torch.inference_mode():
        assert len(top_patches(resnet, images, "stage1", 0, k=2, **QUIET).crops) == 2
