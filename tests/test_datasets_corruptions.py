import numpy as np
import pytest

from tlcourse.datasets import corrupt
from tlcourse.datasets.corruptions import CORRUPTIONS, SEVERITIES
from tlcourse.simulation import simulate

NOISES = ("gaussian_noise", "speckle_noise")


@pytest.fixture(scope="module")
def images():
    return simulate(6, seed=0).images


def change(images, name, severity, seed=0):
    difference = corrupt(images, name, severity, seed).astype(float) - images
    return float((difference**2).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [28, 64, 128])
def test_each_severity_changes_more_than_the_one_before(images, name, size):
    given = images if size == 64 else simulate(3, seed=1, size=size).images
    changes = [change(given, name, severity) for severity in SEVERITIES]
    assert changes[0] > 1, "even the mildest must be seen"
    assert (np.diff(changes) > 0).all(), changes


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_type_and_the_images_given_are_kept(images, name):
    wide = images[:2, :40, :24]
    before = wide.copy()
    spoiled = corrupt(wide, name, 5, 0)
    assert spoiled.dtype == np.uint8
    assert spoiled.shape == wide.shape
    assert (wide == before).all()
    assert not np.shares_memory(spoiled, wide)
    assert corrupt(wide[:0], name, 1, 0).shape == (0, 40, 24)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_call_gives_the_same_images_whatever_stands_behind_them(images, name):
    whole = corrupt(images, name, 3, 7)
    assert (corrupt(images, name, 3, 7) == whole).all()
    assert (corrupt(images[:2], name, 3, 7) == whole[:2]).all()
    assert (corrupt(images, name, np.int64(3), 7) == whole).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_noise_reads_the_seed(images, name):
    same = (corrupt(images, name, 3, 0) == corrupt(images, name, 3, 1)).all()
    assert same == (name not in NOISES)


def test_two_copies_of_an_image_get_noise_of_their_own(images):
    twins = np.stack([images[0], images[0]])
    for name in NOISES:
        first, second = corrupt(twins, name, 2, 0)
        assert (first != second).mean() > 0.5


def test_corruptions_do_what_their_names_say(images):
    mean = images.mean()
    assert corrupt(images, "brightness_up", 3, 0).mean() > 1.2 * mean
    assert corrupt(images, "brightness_down", 3, 0).mean() == pytest.approx(mean / 2, abs=1)
    assert corrupt(images, "gamma", 3, 0).mean() < 0.9 * mean
    flat = corrupt(images, "contrast_down", 3, 0)
    assert flat.std(axis=(1, 2)) == pytest.approx(0.46 * images.std(axis=(1, 2)), abs=1)
    assert flat.mean(axis=(1, 2)) == pytest.approx(images.mean(axis=(1, 2)), abs=1.5)
    steps = [
        np.abs(np.diff(stack.astype(int))).mean()
        for stack in (images, corrupt(images, "blur", 2, 0))
    ]
    assert steps[1] < 0.5 * steps[0]
    coarse = corrupt(images, "pixelate", 5, 0)
    assert len(np.unique(coarse[0])) <= 10 * 10
    assert (np.diff(coarse[0].astype(int), axis=1) != 0).any(axis=0).sum() <= 9


def test_noise_is_as_strong_as_it_says_and_speckle_leaves_black_alone():
    grey = np.full((4, 64, 64), 128, np.uint8)
    for severity, amount in zip(
        SEVERITIES[:3], CORRUPTIONS["gaussian_noise"].amounts, strict=False
    ):
        noise = corrupt(grey, "gaussian_noise", severity, 0).astype(float) - 128
        assert noise.std() == pytest.approx(255 * amount, rel=0.03)
    speckle = corrupt(grey, "speckle_noise", 1, 0).astype(float) - 128
    assert speckle.std() == pytest.approx(128 * CORRUPTIONS["speckle_noise"].amounts[0], rel=0.03)
    assert (corrupt(np.zeros((1, 8, 8), np.uint8), "speckle_noise", 5, 0) == 0).all()


def test_blur_is_as_wide_at_any_size_of_image():
    """A point of light spreads over the same share of the image."""
    spreads = []
    for size in (64, 128):
        point = np.zeros((1, size, size), np.uint8)
        point[0, size // 2 - size // 16 : size // 2 + size // 16, :] = 255
        rows = corrupt(point, "blur", 4, 0)[0, :, 0].astype(float)
        spreads.append(np.sqrt(np.cov(np.arange(size), fweights=rows.astype(int))) / size)
    assert spreads[0] == pytest.approx(spreads[1], rel=0.02)


@pytest.mark.parametrize(
    ("images", "name", "severity", "message"),
    [
        (np.zeros((2, 8, 8)), "blur", 1, r"expected uint8 images \(N, H, W\), got float64"),
        (np.zeros((8, 8), np.uint8), "blur", 1, r"got uint8 \(8, 8\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "blur", 1, r"got uint8 \(2, 8, 8, 3\)"),
        (np.zeros((2, 8, 8), np.uint8), "fog", 1, "one of gaussian_noise, .*pixelate; got 'fog'"),
        (np.zeros((2, 8, 8), np.uint8), "blur", 0, "severity must be one of 1 to 5, got 0"),
        (np.zeros((2, 8, 8), np.uint8), "blur", 2.5, "severity must be one of 1 to 5, got 2.5"),
    ],
)
def test_what_is_wrong_is_said(images, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupt(images, name, severity, 0)
