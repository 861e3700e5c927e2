import numpy as np
import pytest

from tlcourse.datasets import Split, grouped_folds


@pytest.fixture
def part():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 150)
    labels = (groups % 4 > 0).astype(int)
    return Split(np.zeros((150, 4, 4), np.uint8), labels, groups)


def test_groups_are_never_parted_and_every_image_is_judged_once(part):
    held_out_in_all = []
    for train, held_out in grouped_folds(part, 5):
        assert not set(part.groups[train]) & set(part.groups[held_out])
        assert sorted([*train, *held_out]) == list(range(150))
        held_out_in_all.extend(held_out)
    assert sorted(held_out_in_all) == list(range(150))


def test_the_seed_decides(part):
    first, again, other = (grouped_folds(part, 5, seed=s)[0][1].tolist() for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_too_few_groups_or_folds_are_an_error(part):
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        grouped_folds(part, 1)
    with pytest.raises(ValueError, match=r"label 0 has \d+: ask for fewer folds"):
        grouped_folds(part, 30)
