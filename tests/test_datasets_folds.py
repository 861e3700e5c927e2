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
    judged_in_all = []
    for train, judged in grouped_folds(part, 5):
        assert not set(part.groups[train]) & set(part.groups[judged])
        assert sorted([*train, *judged]) == list(range(150))
        judged_in_all.extend(judged)
    assert sorted(judged_in_all) == list(range(150))


def test_the_seed_decides(part):
    first, again, other = (grouped_folds(part, 5, seed=s)[0][1].tolist() for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_too_few_groups_or_folds_are_an_error(part):
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        grouped_folds(part, 1)
    with pytest.raises(ValueError, match=r"label 0 has \d+: ask for fewer folds"):
        grouped_folds(part, 30)
