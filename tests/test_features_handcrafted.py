import numpy as np
import pytest

from tlcourse.datasets.toy import TEXTURES, photo_textures
from tlcourse.features import probe
from tlcourse.features.handcrafted import (
    TEXTURE_NAMES,
    classic_features,
    hog_features,
    texture_statistics,
)

EXTRACTORS = [hog_features, texture_statistics, classic_features]


@pytest.fixture(scope="module")
def textures():
    return photo_textures(300, seed=0)


@pytest.mark.parametrize("extract", EXTRACTORS)
def test_features_depend_on_the_image_alone(extract, textures):
    images = textures.train.images[:6]
    found = extract(images)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[2:3], extract(images[2:3]))


@pytest.mark.parametrize("extract", EXTRACTORS)
def test_flat_images_give_finite_features(extract):
    flat = np.stack([np.full((32, 32), value, np.uint8) for value in (0, 127, 255)])
    assert np.isfinite(extract(flat)).all()


@pytest.mark.parametrize("extract", EXTRACTORS)
def test_a_grey_image_in_colour_gives_the_same(extract, textures):
    images = textures.train.images[:3]
    colour = np.repeat(images[..., None], 3, axis=3)
    np.testing.assert_allclose(extract(images), extract(colour), atol=1e-5)


def test_hog_hardly_minds_the_light_and_sees_direction():
    rows = np.tile(np.where(np.arange(32) % 8 < 4, 60, 120)[:, None], (1, 32)).astype(np.uint8)
    bright = (rows + 100).astype(np.uint8)
    striped, lit, turned = hog_features(np.stack([rows, bright, rows.T]))
    np.testing.assert_allclose(striped, lit, atol=1e-5)
    assert np.abs(striped - turned).max() > 0.2


def test_texture_statistics_are_named_and_true(textures):
    images = textures.train.images[:4]
    found = texture_statistics(images)
    table = dict(zip(TEXTURE_NAMES, found.T, strict=True))
    np.testing.assert_allclose(table["mean"], images.mean((1, 2)) / 255, atol=1e-6)
    np.testing.assert_allclose(
        table["percentile 50"], np.median(images, axis=(1, 2)) / 255, atol=1e-6
    )
    patterns = sum(table[f"pattern {code} at 1 px"] for code in range(10))
    np.testing.assert_allclose(patterns, 1, atol=1e-6)


@pytest.mark.parametrize("extract", EXTRACTORS)
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 32, 32)), TypeError, "uint8.*float64"),
        ([[1]], TypeError, "uint8.*list"),
        (np.zeros((32, 32), np.uint8), ValueError, r"\(32, 32\)"),
        (np.zeros((2, 32, 32, 4), np.uint8), ValueError, r"\(2, 32, 32, 4\)"),
        (np.zeros((0, 32, 32), np.uint8), ValueError, "N of 1 or more"),
        (np.zeros((2, 8, 32), np.uint8), ValueError, "16 or more"),
    ],
)
def test_wrong_images_are_named(extract, images, error, message):
    with pytest.raises(error, match=message):
        extract(images)


def test_textures_are_a_proper_set(textures):
    assert textures.classes == TEXTURES
    assert textures.license == "CC0"
    assert not textures.simulated
    assert [len(part) for part in (textures.train, textures.val, textures.test)] == [210, 30, 60]
    for part in (textures.train, textures.val, textures.test):
        assert set(np.bincount(part.labels)) == {len(part) // 3}
        assert part.images.shape[1:] == (64, 64)
    groups = [set(part.groups) for part in (textures.train, textures.val, textures.test)]
    assert len(set.union(*groups)) == sum(map(len, groups))


def test_parts_of_a_photograph_share_no_pixel(textures):
    covered = []
    for part in (textures.train, textures.val, textures.test):
        mask = np.zeros((512, 512), bool)
        for row, column in part.factors[["row", "column"]].to_numpy():
            mask[row : row + 64, column : column + 64] = True
        covered.append(mask)
    assert sum(mask.astype(int) for mask in covered).max() == 1


def test_patches_are_cut_where_the_factors_say():
    from skimage import data

    part = photo_textures(30, size=48, vary_light=False).test
    for image, (_, place) in zip(part.images, part.factors.iterrows(), strict=True):
        scene = getattr(data, place["texture"])()
        row, column = place["row"], place["column"]
        np.testing.assert_array_equal(image, scene[row : row + 48, column : column + 48])


def test_a_seed_gives_one_set_and_leaves_the_global_generator_alone():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (photo_textures(30, size=32, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train.images, same.train.images)
    assert (one.train.images != other.train.images).any()
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(("n", "size"), [(29, 64), (60, 15), (60, 257)])
def test_sizes_out_of_range_are_named(n, size):
    with pytest.raises(ValueError, match=f"got n={n}, size={size}"):
        photo_textures(n, size=size)


def test_texture_tells_the_class_and_light_does_not(textures):
    train, test = textures.train, textures.test
    learned = probe(classic_features(train.images), train.labels)
    assert learned.score(classic_features(test.images), test.labels) > 0.9

    def light(images):
        return np.stack([images.mean((1, 2)), images.std((1, 2))], axis=1)

    assert probe(light(train.images), train.labels).score(light(test.images), test.labels) < 0.55
