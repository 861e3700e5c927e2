"""Drawing and dealing: shares, whole groups, seeds."""

import numpy as np
import pytest

from tlcourse.datasets import InvalidDataset, grouped_split
from tlcourse.datasets.base import apportion, stratified_choice
from tlcourse.datasets.splits import split_rows

BREAST = np.repeat([0, 1], [210, 570])


def counts(labels, part, classes=2):
    return np.bincount(labels[part], minlength=classes).tolist()


@pytest.mark.parametrize("seed", range(30))
def test_apportioned_shares_sum_up_and_keep_the_minimum(seed):
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.3, size=rng.integers(1, 9)) + 1e-6
    total = int(rng.integers(len(weights), 200))
    shares = apportion(total, weights, minimum=1)
    assert shares.sum() == total
    assert shares.min() >= 1
    free = apportion(total, weights)
    assert (np.abs(free - total * weights / weights.sum()) < 1).all()


def test_single_images_are_dealt_in_exact_proportion():
    parts = grouped_split(BREAST, np.arange(780))
    assert [counts(BREAST, part) for part in parts] == [[147, 399], [21, 57], [42, 114]]


@pytest.mark.parametrize("malignant", [200, 203, 205, 207, 211])
def test_part_sizes_are_exact_whatever_the_class_counts(malignant):
    labels = np.repeat([0, 1], [malignant, 780 - malignant])
    assert [len(p) for p in grouped_split(labels, np.arange(780))] == [546, 78, 156]


@pytest.mark.parametrize("seed", range(20))
def test_groups_stay_whole_and_every_image_is_dealt_once(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 300)
    groups = rng.integers(0, 200, 300)
    parts = grouped_split(labels, groups, seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(300))
    owners = [set(groups[part]) for part in parts]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    overall = np.bincount(labels) / 300
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        assert abs(len(part) - share * 300) <= 3
        assert np.abs(np.bincount(labels[part], minlength=3) / len(part) - overall).max() < 0.08


def test_one_seed_deals_one_way_and_another_seed_another():
    groups = np.arange(780) // 2
    first, again, other = (grouped_split(BREAST, groups, seed=s) for s in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[2], other[2])


def test_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    grouped_split(BREAST, np.arange(780))
    stratified_choice(BREAST, 50)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_big_groups_are_not_always_dealt_to_train():
    groups = np.r_[np.zeros(20, int), np.arange(1, 181)]
    labels = np.arange(200) % 2
    homes = {
        next(i for i, part in enumerate(grouped_split(labels, groups, seed=s)) if 0 in part)
        for s in range(30)
    }
    assert homes >= {0, 2}


@pytest.mark.parametrize("seed", range(10))
def test_few_patients_of_a_class_reach_every_part(seed):
    labels = np.repeat([0, 1], [9, 21])  # three malignant patients with three images each
    for part in grouped_split(labels, np.arange(30) // 3, seed=seed):
        assert set(labels[part]) == {0, 1}


def test_a_rare_class_of_three_images_reaches_every_part():
    labels = np.r_[np.zeros(97, int), [1, 1, 1]]
    assert [counts(labels, p)[1] for p in grouped_split(labels, np.arange(100))] == [1, 1, 1]


def test_a_class_in_one_group_cannot_be_dealt():
    groups = np.r_[np.zeros(10, int), np.arange(1, 91)]
    labels = np.r_[np.zeros(10, int), np.ones(90, int)]
    with pytest.raises(ValueError, match="no image with label 0"):
        grouped_split(labels, groups)


def test_images_that_are_all_alike_are_refused_with_advice():
    groups = np.r_[np.zeros(90, int), np.arange(1, 11)]
    with pytest.raises(InvalidDataset, match=r"90 of 100 images alike.*threshold"):
        split_rows(np.arange(100) % 2, groups, where="rays")


def test_a_subset_holds_nobody_twice_and_keeps_proportions():
    chosen = stratified_choice(BREAST, 100, seed=1)
    assert len(set(chosen.tolist())) == 100
    assert counts(BREAST, chosen) == [27, 73]


def test_a_subset_keeps_a_rare_class():
    labels = np.r_[np.zeros(998, int), [1, 2]]
    assert counts(labels, stratified_choice(labels, 3), 3) == [1, 1, 1]


def test_smaller_subsets_are_part_of_larger_ones():
    small, large = (set(stratified_choice(BREAST, n, seed=5).tolist()) for n in (50, 200))
    assert small < large


@pytest.mark.parametrize("n", [-1, 0, 1, 781])
def test_a_subset_out_of_range_is_refused(n):
    with pytest.raises(ValueError, match=f"from 2 .* to 780 .*got {n}"):
        stratified_choice(BREAST, n)


def test_a_subset_of_all_is_all():
    assert (stratified_choice(BREAST, 780) == np.arange(780)).all()
