import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tlcourse import metrics
from tlcourse.metrics import Interval


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [60, 140]))
    score = 1 / (1 + np.exp(-(labels + rng.normal(0, 1, 200) - 0.5)))
    return labels, np.stack([1 - score, score], axis=1)


def test_auc_agrees_with_its_definition(predictions):
    labels, probs = predictions
    above = probs[labels == 1, 1][:, None] > probs[labels == 0, 1][None]
    assert metrics.auc(labels, probs) == pytest.approx(above.mean())


def test_auc_is_the_same_seen_from_either_class(predictions):
    labels, probs = predictions
    assert metrics.auc(1 - labels, probs[:, ::-1]) == pytest.approx(metrics.auc(labels, probs))


def test_auc_of_three_classes_is_one_against_the_rest():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 90)
    probs = rng.dirichlet(np.ones(3), 90)
    expected = roc_auc_score(labels, probs, multi_class="ovr", average="macro")
    assert metrics.auc(labels, probs) == pytest.approx(expected)


def test_auc_needs_two_classes():
    with pytest.raises(ValueError, match=r"two classes.*only \[1\]"):
        metrics.auc([1, 1], [[0.5, 0.5], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        ([0, 1], [[0.5, 0.5]], r"labels \(N,\) and probs \(N, C\), got \(2,\), \(1, 2\)"),
        ([0], [[2.0, -1.0]], "apply softmax"),
        ([0], [[0.4, 0.4]], "apply softmax"),
        ([0], [[np.nan, 1.0]], "apply softmax"),
        ([2], [[0.5, 0.5]], r"must lie in 0\.\.1, found 2\.\.2"),
        ([], np.empty((0, 2)), "at least one prediction"),
    ],
)
def test_bad_predictions_are_named(labels, probs, message):
    with pytest.raises(ValueError, match=message):
        metrics.accuracy(labels, probs)


def test_majority_answer_fools_accuracy_but_not_balanced_accuracy():
    labels, probs = np.repeat([0, 1], [42, 114]), np.tile([0.2, 0.8], (156, 1))
    assert metrics.accuracy(labels, probs) == pytest.approx(114 / 156)
    assert metrics.balanced_accuracy(labels, probs) == 0.5


def test_confusion_counts_every_image(predictions):
    table = metrics.confusion(*predictions)
    assert table.sum() == 200
    assert table.sum(axis=1).tolist() == [60, 140]


def test_calibration_of_an_honest_forecaster_is_small():
    rng = np.random.default_rng(0)
    score = rng.uniform(size=20_000)
    labels = (rng.uniform(size=20_000) < score).astype(int)
    honest = np.stack([1 - score, score], axis=1)
    sure = np.stack([score < 0.5, score >= 0.5], axis=1).astype(float)
    assert metrics.calibration_error(labels, honest) < 0.02
    assert metrics.calibration_error(labels, sure) == pytest.approx(0.25, abs=0.02)


def test_bootstrap_interval_holds_the_estimate_and_narrows_with_images(predictions):
    labels, probs = predictions
    few = metrics.bootstrap(metrics.auc, labels, probs, resamples=300)
    many = metrics.bootstrap(metrics.auc, np.tile(labels, 9), np.tile(probs, (9, 1)), resamples=300)
    assert few.low < few.estimate < few.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(60):
        score = np.r_[rng.normal(1, 1, 60), rng.normal(0, 1, 60)]
        p = 1 / (1 + np.exp(-score))
        labels = np.repeat([1, 0], 60)
        interval = metrics.bootstrap(
            metrics.auc, labels, np.stack([1 - p, p], 1), resamples=200, seed=seed
        )
        hits += not interval.excludes(0.7602)  # P(a > b) of two normals one deviation apart
    assert 50 <= hits <= 60


def test_pairing_gives_a_narrower_interval_than_two_separate_ones(predictions):
    labels, probs = predictions
    noise = 0.5 * np.random.default_rng(0).normal(size=200)
    worse = 1 / (1 + np.exp(-(np.log(probs[:, 1] / probs[:, 0]) - noise)))
    worse = np.stack([1 - worse, worse], axis=1)
    one = metrics.bootstrap(metrics.auc, labels, probs)
    paired = metrics.paired_difference(metrics.auc, labels, probs, worse)
    assert paired.high - paired.low < 0.5 * (one.high - one.low)
    assert paired.low < 0 < paired.high


def test_pairing_finds_a_real_difference(predictions):
    labels, probs = predictions
    chance = np.tile([0.5, 0.5], (200, 1))
    assert metrics.paired_difference(metrics.auc, labels, probs, chance).excludes(0)


def right_share(labels, probs):
    return float((probs.argmax(axis=1) == labels).mean())


def patients(count, images, rng):
    """Images of one patient are all answered rightly or, three times in ten, all wrongly."""
    labels = np.repeat(np.arange(count) % 2, images)
    right = np.repeat(rng.random(count) < 0.7, images)
    probs = np.where((labels == 1) == right, 0.8, 0.2)
    return labels, np.stack([1 - probs, probs], axis=1), np.repeat(np.arange(count), images)


@pytest.mark.parametrize(
    "names", [np.arange, lambda n: np.arange(n)[::-1] * 3, lambda n: [str(i) for i in range(n)]]
)
def test_groups_of_one_image_change_nothing(predictions, names):
    labels, probs = predictions
    other, more = probs[::-1], {"resamples": 60, "seed": 3}
    plain = metrics.bootstrap(metrics.auc, labels, probs, **more)
    assert metrics.bootstrap(metrics.auc, labels, probs, groups=names(200), **more) == plain
    plain = metrics.paired_difference(metrics.auc, labels, probs, other, **more)
    grouped = metrics.paired_difference(
        metrics.auc, labels, probs, other, groups=names(200), **more
    )
    assert grouped == plain


def test_images_of_one_patient_widen_the_interval_as_if_they_were_one():
    labels, probs, groups = patients(60, 4, np.random.default_rng(0))
    plain = metrics.bootstrap(right_share, labels, probs)
    grouped = metrics.bootstrap(right_share, labels, probs, groups=groups)
    one_each = metrics.bootstrap(right_share, labels[::4], probs[::4])
    assert grouped == one_each
    assert grouped.high - grouped.low > 1.6 * (plain.high - plain.low)  # twice, but for chance
    guess = np.tile([0.4, 0.6], (240, 1))
    plain = metrics.paired_difference(right_share, labels, probs, guess)
    grouped = metrics.paired_difference(right_share, labels, probs, guess, groups=groups)
    assert grouped.high - grouped.low > 1.6 * (plain.high - plain.low)


def test_only_the_interval_over_patients_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    plain = grouped = 0
    for seed in range(60):
        labels, probs, groups = patients(50, 5, rng)
        more = {"resamples": 200, "seed": seed}
        plain += not metrics.bootstrap(right_share, labels, probs, **more).excludes(0.7)
        grouped += not metrics.bootstrap(
            right_share, labels, probs, groups=groups, **more
        ).excludes(0.7)
    assert grouped >= 52
    assert plain <= 48


def test_groups_are_drawn_whole_and_no_draw_lacks_a_class():
    # a, e: 0 0; b, f: 0 1; c, g: 1; d, h: 1 0 2, and none of them in one piece.
    labels = np.array([0, 0, 1, 0, 1, 1, 0, 2] * 2)
    groups = np.array(list("abbacddd" + "effeghhh"))[np.r_[0:16:2, 1:16:2]]
    labels = labels[np.r_[0:16:2, 1:16:2]]
    seen = []

    def watch(truth, rows):
        seen.append((truth, rows[:, 0].round(3)))
        return 0.0

    number = np.arange(16) / 100
    rest = (1 - number) / 2
    metrics.bootstrap(watch, labels, np.stack([number, rest, rest], 1), groups=groups, resamples=50)
    for truth, marks in seen[:-1]:
        counts = np.bincount((marks * 100).round().astype(int), minlength=16)
        for name in "abcdefgh":
            assert len(set(counts[groups == name])) == 1, "a group came in part"
        assert [counts[np.isin(groups, list(pair))].sum() for pair in ("ae", "cg")] == [4, 2]
        assert set(truth) == {0, 1, 2}
    assert len(seen) == 51


def test_patients_are_exchanged_among_those_with_the_same_classes():
    labels = np.array([0, 0, 0, 0, 1, 1, 0, 1, 0, 1])
    groups = np.array([0, 0, 1, 2, 3, 4, 5, 5, 6, 6])  # three of class 0, two of 1, two of both
    kinds = []

    def watch(truth, rows):
        kinds.append((truth == 1).sum())
        return 0.0

    metrics.bootstrap(watch, labels, np.tile([0.5, 0.5], (10, 1)), groups=groups, resamples=50)
    assert set(kinds) == {4}


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 1], r"one group per image, \(4,\), got \(2,\)"),
        ([[0], [1], [2], [3]], r"got \(4, 1\)"),
        ([0, 1, np.nan, 2], "no missing value"),
        (np.array(["a", None, "b", "c"], object), "no missing value"),
    ],
)
def test_bad_groups_are_named(groups, message):
    probs = np.eye(2)[[0, 1, 0, 1]]
    with pytest.raises(ValueError, match=message):
        metrics.bootstrap(metrics.accuracy, [0, 1, 0, 1], probs, groups=groups)
    with pytest.raises(ValueError, match=message):
        metrics.paired_difference(metrics.accuracy, [0, 1, 0, 1], probs, probs, groups=groups)


def test_interval_over_runs_needs_two():
    with pytest.raises(ValueError, match="two runs or more, got 1"):
        metrics.mean_interval([0.9])


def test_paired_runs_must_pair():
    with pytest.raises(ValueError, match="pair up, got 2 and 3"):
        metrics.paired_mean_interval([1, 2], [1, 2, 3])


def test_interval_prints_and_excludes():
    interval = Interval(0.9, 0.85, 0.95)
    assert str(interval) == "0.900 [0.850, 0.950]"
    assert interval.excludes(0.8)
    assert not interval.excludes(0.9)
    assert [Interval(x, x - 1, x + 1).verdict for x in (2, 0, 1, -1, -2)] == [
        "better", "open", "open", "open", "worse",
    ]  # fmt: skip


def test_the_interval_over_folds_is_the_corrected_resampled_t_test():
    """By hand: differences .2 .1 .1 .2 .1 .1, two dealings of three folds."""
    first = [0.9, 0.8, 0.7, 0.8, 0.8, 0.7]
    second = [0.7, 0.7, 0.6, 0.6, 0.7, 0.6]
    mean, deviation = 0.8 / 6, math.sqrt((2 * (0.4 / 6) ** 2 + 4 * (0.2 / 6) ** 2) / 5)
    spread = 2.570582 * deviation * math.sqrt(1 / 6 + 1 / 2)  # t with 5 degrees of freedom
    found = metrics.fold_interval(first, second, folds=3)
    assert found == pytest.approx((mean, mean - spread, mean + spread), abs=1e-6)
    alone = metrics.fold_interval(np.subtract(first, second), folds=3)
    assert alone == pytest.approx(found)


def test_the_interval_over_folds_is_wider_than_over_runs_and_stays_so():
    rng = np.random.default_rng(0)
    for splits in (1, 4, 16):
        scores = rng.normal(0.8, 0.05, 10 * splits)
        folds, runs = metrics.fold_interval(scores, folds=10), metrics.mean_interval(scores)
        grown = (folds.high - folds.low) / (runs.high - runs.low)
        assert grown == pytest.approx(math.sqrt(1 + 10 * splits / 9))
        assert folds.high - folds.low > 0.05 / 3, "no number of dealings replaces new images"


@pytest.mark.parametrize(
    ("first", "second", "folds", "message"),
    [
        ([0.8, 0.9], [0.8], 2, "pair up, got 2 and 1"),
        ([0.8, 0.9, 0.7], None, 2, "expected 2 scores for each dealing into folds.*got 3"),
        ([], None, 2, "got 0"),
        ([0.8, 0.9], None, 1, "two folds or more"),
        ([[0.8, 0.9]], None, 2, "expected 2 scores for each"),
    ],
)
def test_scores_of_folds_must_be_whole_dealings(first, second, folds, message):
    with pytest.raises(ValueError, match=message):
        metrics.fold_interval(first, second, folds=folds)


def test_the_interval_over_folds_keeps_its_promise_where_the_naive_one_breaks_it():
    """Two methods that are equally good: how often is their difference called decided?"""
    rng = np.random.default_rng(0)
    naive = honest = 0
    for _ in range(60):
        labels, rows = rng.integers(0, 2, 60), rng.normal(size=(60, 12))
        gains = []
        for _ in range(5):
            order = rng.permutation(60)
            for held_out in np.array_split(order, 3):
                train = np.setdiff1d(order, held_out)
                shares = []
                for part in (rows[:, :6], rows[:, 6:]):
                    ahead = part[train][labels[train] == 1].mean(0)
                    behind = part[train][labels[train] == 0].mean(0)
                    middle = (ahead + behind) / 2
                    said = (part[held_out] - middle) @ (ahead - behind) > 0
                    shares.append((said == labels[held_out]).mean())
                gains.append(shares[0] - shares[1])
        naive += metrics.mean_interval(gains).excludes(0)
        honest += metrics.fold_interval(gains, folds=3).excludes(0)
    assert naive > 12
    assert honest <= 6
