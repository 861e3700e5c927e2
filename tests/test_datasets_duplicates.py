"""Near-duplicates: pairs, groups, what crosses, what contradicts itself."""

import tracemalloc

import numpy as np
import pytest

from tlcourse.datasets import (
    ImageSet,
    InvalidDataset,
    LeakageWarning,
    Split,
    duplicates,
    load_images,
    near_duplicates,
    near_groups,
    shared_images,
)
from tlcourse.datasets.duplicates import exact_copies, leakage, linked_groups, similar_pairs


def noise(n, seed=0, side=16):
    return np.random.default_rng(seed).integers(30, 200, (n, side, side), np.uint8)


def image_set(train, val, test, labels=(None, None, None)):
    parts = [
        Split(x, np.arange(len(x)) % 2 if y is None else np.asarray(y))
        for x, y in zip((train, val, test), labels, strict=True)
    ]
    return ImageSet("made", *parts, classes=("a", "b"))


@pytest.mark.parametrize("block_bytes", [64 * 2**20, 4 * 256 * 7])
def test_pairs_are_those_of_the_full_correlation_matrix(monkeypatch, block_bytes):
    monkeypatch.setattr(duplicates, "BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(1)
    base = rng.normal(size=(10, 256))
    mixed = np.concatenate([base, base + 0.3 * rng.normal(size=(10, 256)), base[:5] * 0.5])
    images = np.clip(mixed * 30 + 128, 0, 255).astype(np.uint8).reshape(-1, 16, 16)
    first, second, correlation = similar_pairs(images, 0.9)
    full = np.corrcoef(images.reshape(25, -1).astype(float))
    wanted = {tuple(p) for p in np.argwhere(np.triu(full, 1) > 0.9)}
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == wanted
    assert np.allclose(correlation, full[first, second], atol=1e-5)
    assert (near_groups(images, 0.9) == linked_groups(25, first, second)).all()


def test_another_gain_and_contrast_is_the_same_image():
    images = noise(4)
    images[3] = (images[0] * 0.6 + 20).astype(np.uint8)
    assert near_groups(images).tolist() == [0, 1, 2, 0]


def test_links_reach_through_a_third_image():
    a = np.random.default_rng(0).normal(size=400)
    b = np.random.default_rng(1).normal(size=400)
    turned = [np.cos(t) * a + np.sin(t) * b for t in (0.0, 0.28, 0.56)]
    images = np.clip(np.array(turned) * 30 + 128, 0, 255).astype(np.uint8).reshape(3, 20, 20)
    report = near_duplicates(Split(images, np.array([0, 1, 0])))
    assert len(report.pairs) == 2
    assert report.num_groups == 1


@pytest.mark.parametrize("side", [8, 224])
def test_flat_images_are_alike_only_if_equal(side):
    levels = np.array([7, 7, 0, 201, 255], np.uint8)
    images = np.repeat(levels, side * side * 3).reshape(5, side, side, 3)
    first, second, _ = similar_pairs(images)
    assert list(zip(first, second, strict=True)) == [(0, 1)]


def test_exact_copies_are_numbered_alike():
    images = noise(5)
    images[4] = images[1]
    assert exact_copies(images).tolist() == [0, 1, 2, 3, 1]


def test_nothing_is_alike_among_no_images():
    first, second, correlation = similar_pairs(np.empty((0, 8, 8), np.uint8))
    assert len(first) == len(second) == len(correlation) == 0
    assert len(near_groups(np.empty((0, 8, 8), np.uint8))) == 0


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 95])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        near_groups(noise(2), threshold)


def test_the_report_counts_what_crosses_and_contradicts():
    train, val, test = noise(6, 0), noise(3, 1), noise(4, 2)
    test[0], test[1], val[2] = train[0], train[1], train[1]
    report = near_duplicates(image_set(train, val, test, (None, None, [1, 1, 0, 0])))
    assert report.crossing == {"train": 2, "val": 1, "test": 2}
    assert (report.num_groups, report.largest) == (10, 3)
    assert len(report.conflicting) == 2  # train 0 is 0 and its copy 1; val 2 is 0, train 1 is 1
    assert report.exact_conflicts == 3
    assert report.pairs["exact"].all()
    assert "crossing" not in repr(report)
    assert "train 2, val 1, test 2" in repr(report)


def test_one_part_alone_can_be_examined():
    images = noise(4)
    images[3] = images[0]
    report = near_duplicates(Split(images, np.array([0, 1, 0, 1])))
    assert report.crossing == {"all": 0}
    assert report.exact_conflicts == 1


def test_shared_images_are_counted_and_reported():
    train, val, test = noise(20, 0), noise(5, 1), noise(9, 2)
    test[:2] = train[3]
    data = image_set(train, val, test)
    assert shared_images(data) == {"train": 1, "val": 0, "test": 2}
    assert "1 of 20 in train, 0 of 5 in val, 2 of 9 in test" in str(leakage(data))
    assert leakage(image_set(noise(4, 0), noise(4, 1), noise(4, 2))) is None


def test_half_of_a_part_shared_is_an_error():
    train, val, test = noise(20, 0), noise(5, 1), noise(8, 2)
    test[:4] = train[:4]
    with pytest.raises(InvalidDataset, match="4 of 8 in test"):
        leakage(image_set(train, val, test))
    test[3] = noise(1, 3)[0]
    assert leakage(image_set(train, val, test))


@pytest.mark.slow
def test_ten_thousand_images_fit_into_little_memory():
    images = np.random.default_rng(0).integers(0, 256, (10_000, 64, 64), np.uint8)
    images[9_999] = images[1]
    tracemalloc.start()
    groups = near_groups(images)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert groups[9_999] == groups[1]
    assert len(set(groups.tolist())) == 9_999
    assert peak < 400 * 2**20, f"{peak / 2**20:.0f} MiB"


def test_the_published_breastmnist_leaks_as_on_record(real_data):
    with pytest.warns(UserWarning, match="exact copies"):
        data = load_images("breastmnist", split="official", progress=False)
    report = near_duplicates(data)
    assert (len(report.groups), report.num_groups, report.largest) == (780, 621, 6)
    assert report.crossing["test"] == 52
    assert len(report.conflicting) == 5
    assert report.exact_conflicts == 1
    exact = report.pairs[report.pairs["exact"]].iloc[0]
    assert {exact["first_part"], exact["second_part"]} == {"train", "test"}
    for threshold, test_images in ((0.99, 22), (0.97, 39), (0.92, 59)):
        assert near_duplicates(data, threshold).crossing["test"] == test_images


def test_the_grouped_breastmnist_does_not_leak(real_data):
    data = load_images("breastmnist", progress=False)
    assert near_duplicates(data).crossing == {"train": 0, "val": 0, "test": 0}
    assert data.counts().to_numpy().tolist() == [[147, 399], [21, 57], [42, 114]]
    assert shared_images(data) == {"train": 0, "val": 0, "test": 0}


def test_near_copies_across_published_parts_are_counted_too(tmp_path):
    rng = np.random.default_rng(0)
    images = {
        p: rng.integers(0, 200, (n, 16, 16), np.uint8)
        for p, n in (("train", 40), ("val", 10), ("test", 20))
    }
    images["test"][:5] = images["train"][:5] + 1  # one grey brighter: no exact copies
    arrays = {f"{p}_images": a for p, a in images.items()}
    arrays |= {f"{p}_labels": np.arange(len(a)) % 2 for p, a in images.items()}
    np.savez(tmp_path / "alike.npz", **arrays)
    with pytest.warns(LeakageWarning, match=r"near copies .*5 of 20 in test"):
        load_images(tmp_path / "alike.npz", split="official")
