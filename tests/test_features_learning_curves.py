import numpy as np
import pandas as pd
import pytest

from tlcourse.datasets import Split
from tlcourse.features.learning_curves import fold_means, learning_curve, paired_gain
from tlcourse.metrics import fold_interval


@pytest.fixture
def part():
    labels = np.arange(120) % 3 // 2
    return Split(np.zeros((120, 4, 4), np.uint8), labels, np.arange(120) // 2)


@pytest.fixture
def features(part):
    noise = np.random.default_rng(0).normal(size=(120, 5))
    return {"noise": noise, "signal": noise + 2 * part.labels[:, None]}


def curve_of(features, part, sizes=(20, None), **options):
    return learning_curve(features, part, sizes, **{"progress": False, "folds": 4} | options)


def test_a_row_per_method_size_fold_and_subset(features, part):
    curve = curve_of(features, part, subsets=3)
    assert list(curve) == ["method", "images", "fold", "subset", "auc", "seconds"]
    assert curve.groupby(["method", "images"]).size().tolist() == [12, 4, 12, 4]
    assert (curve["seconds"] > 0).all()


def test_signal_beats_noise(features, part):
    curve = curve_of(features, part)
    assert paired_gain(curve, "signal", "noise").low > 0.1
    assert paired_gain(curve, "signal", "noise", images=20).estimate > 0.2


def test_no_group_is_trained_on_and_judged(part):
    """The number of the group is the only feature: k-NN would know its twin."""
    labels = np.random.default_rng(1).integers(0, 2, 60).repeat(2)
    twins = Split(part.images, labels, part.groups)
    onehot = np.eye(60)[twins.groups]
    curve = curve_of({"twin": onehot}, twins, (None,), kind="knn")
    assert curve["auc"].mean() < 0.7


def test_one_seed_gives_one_curve_and_other_sizes_do_not_change_it(features, part):
    first = curve_of(features, part, (20, None)).drop(columns="seconds")
    again = curve_of(features, part, (20, 40)).drop(columns="seconds")
    pd.testing.assert_frame_equal(
        first[first.images == 20].reset_index(drop=True),
        again[again.images == 20].reset_index(drop=True),
    )
    other = curve_of(features, part, (20, None), seed=1)
    assert not np.allclose(first["auc"], other["auc"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (500,)}, "leave 90 images to train on, got a size of 500"),
        ({"sizes": ()}, "one size"),
        ({"subsets": 0}, "one subset"),
        ({"features": {}}, "one kind"),
        ({"features": {"few": np.zeros((3, 2))}}, r"features 'few': expected \(120, F\)"),
    ],
)
def test_errors_say_what_was_expected(features, part, change, message):
    with pytest.raises(ValueError, match=message):
        curve_of(**{"features": features, "part": part} | change)


def test_subsets_are_averaged_before_folds_are_compared():
    curve = pd.DataFrame(
        {"method": "a", "images": 50, "fold": [0, 0, 1], "auc": [0.6, 0.8, 0.9], "seconds": 1}
    )
    assert fold_means(curve)["auc"].round(6).tolist() == [0.7, 0.9]


def test_a_gain_names_what_there_is(features, part):
    curve = curve_of(features, part, (20,))
    with pytest.raises(ValueError, match=r"methods \['noise', 'signal'\] and sizes \[20\]"):
        paired_gain(curve, "signal", "music")
    with pytest.raises(ValueError, match="at 30"):
        paired_gain(curve, "signal", "noise", images=30)


def test_a_gain_over_folds_is_honest(features, part):
    """Folds share training images: the interval is the corrected one."""
    curve = curve_of(features, part, (None,))
    by_fold = curve.pivot_table(index="fold", columns="method", values="auc")
    expected = fold_interval(by_fold["signal"], by_fold["noise"], folds=4)
    assert paired_gain(curve, "signal", "noise") == pytest.approx(expected)


def test_several_dealings_count_together_but_share_their_images(features, part):
    tables = [curve_of(features, part, seed=seed).assign(seed=seed) for seed in (1, 2)]
    both = pd.concat(tables)
    assert len(fold_means(both)) == 2 * len(fold_means(tables[0]))
    runs = fold_means(both).groupby(["method", "seed", "fold"])["auc"].mean().unstack(0)
    expected = fold_interval(runs["signal"], runs["noise"], folds=4)
    assert paired_gain(both, "signal", "noise") == pytest.approx(expected)


def test_a_tuned_block_chooses_its_penalty_on_whole_groups(part):
    """Twins and a feature per pair: with pairs torn apart no penalty would look best."""
    labels = np.random.default_rng(1).integers(0, 2, 60).repeat(2)
    twins = Split(part.images, labels, part.groups)
    curve = curve_of({"twin": np.eye(60)[twins.groups]}, twins, (None,), kind="tuned")
    assert curve["auc"].mean() < 0.7
