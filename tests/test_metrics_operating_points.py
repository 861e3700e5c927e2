import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from tlcourse import metrics
from tlcourse.metrics import (
    ChosenThreshold,
    OperatingPoint,
    at_threshold,
    precision_recall,
    roc_points,
    sensitivity_at_specificity,
    threshold_for_cost,
)


def of(scores):
    """Probabilities whose column 0, the ill, holds `scores`."""
    scores = np.asarray(scores, dtype=float)
    return np.stack([scores, 1 - scores], axis=1)


def part(count=200, seed=0, digits=2):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [count // 4, count - count // 4]))
    score = 1 / (1 + np.exp(-(1 - 2 * labels + rng.normal(0, 1.2, count))))
    return labels, of(np.round(score, digits))  # rounding makes ties


@pytest.mark.parametrize("positive", [0, 1])
def test_points_of_the_curves_are_scikit_learns(positive):
    labels, probs = part()
    alarms, found, steps = roc_curve(
        labels == positive, probs[:, positive], drop_intermediate=False
    )
    table = roc_points(labels, probs, positive=positive)
    assert table["threshold"].tolist() == steps.tolist()
    assert table["sensitivity"].to_numpy() == pytest.approx(found)
    assert 1 - table["specificity"].to_numpy() == pytest.approx(alarms)
    precision, recall, steps = precision_recall_curve(labels == positive, probs[:, positive])
    table = precision_recall(labels, probs, positive=positive)
    assert table["threshold"].tolist() == steps[::-1].tolist()
    assert table["precision"].to_numpy() == pytest.approx(precision[-2::-1])
    assert table["recall"].to_numpy() == pytest.approx(recall[-2::-1])


def test_every_row_is_what_its_threshold_does():
    labels, probs = part()
    for row in roc_points(labels, probs).itertuples():
        point = at_threshold(labels, probs, row.threshold)
        assert (point.found, point.missed) == (row.found, row.missed)
        assert (point.alarms, point.cleared) == (row.alarms, row.cleared)
        assert (point.sensitivity, point.specificity) == (row.sensitivity, row.specificity)


def test_three_classes_are_one_against_the_rest():
    labels, rng = np.array([0, 1, 2, 2, 1, 0]), np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 6)
    two = of(probs[:, 2])
    assert roc_points(labels, probs, positive=2).equals(roc_points(labels != 2, two))


def test_the_best_attainable_sensitivity_is_chosen():
    for seed in range(20):
        labels, probs = part(seed=seed)
        for target in (0, 0.5, 0.9, 0.95, 1):
            chosen = sensitivity_at_specificity(labels, probs, target)
            points = [at_threshold(labels, probs, t) for t in np.append(probs[:, 0], np.inf)]
            allowed = [p for p in points if p.specificity >= target]
            assert chosen.specificity >= target
            assert chosen.sensitivity == max(p.sensitivity for p in allowed)
            equals = [p for p in allowed if p.sensitivity == chosen.sensitivity]
            assert chosen.specificity == max(p.specificity for p in equals)
            assert chosen.threshold in {*probs[:, 0], np.inf}


def test_a_tie_is_called_together_and_never_split():
    """Interpolating the curve would give half of the tied ill images at half of its alarms."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    probs = of([0.9, 0.6, 0.6, 0.6, 0.6, 0.6, 0.2, 0.1, 0.1])
    chosen = sensitivity_at_specificity(labels, probs, 0.8)
    assert (chosen.threshold, chosen.sensitivity, chosen.specificity) == (0.9, 0.25, 1)
    chosen = sensitivity_at_specificity(labels, probs, 0.6)
    assert (chosen.threshold, chosen.sensitivity, chosen.specificity) == (0.6, 1, 0.6)


def test_a_specificity_met_exactly_counts_whatever_the_last_bit_says():
    for others in (1, 3, 7, 10, 29, 49, 57):
        labels = np.arange(2 * others + 1) % 2  # ill and others in turn
        probs = of(np.linspace(0.9, 0.1, len(labels)))
        for cleared in range(others):
            above = np.nextafter(cleared / others, 2)
            for target in (cleared / others, above):
                assert sensitivity_at_specificity(labels, probs, target).cleared == cleared


def test_where_the_surest_image_is_a_false_alarm_nobody_may_be_called():
    chosen = sensitivity_at_specificity([1, 0], of([0.9, 0.8]), 1.0)
    assert (chosen.threshold, chosen.sensitivity, chosen.specificity) == (np.inf, 0, 1)


def cost_per_image(point, missed, alarm):
    images = point.found + point.missed + point.alarms + point.cleared
    return (point.missed * missed + point.alarms * alarm) / images


@pytest.mark.parametrize("costs", [(1, 1), (10, 1), (1, 10), (1000, 1), (1, 1000), (0.3, 0.1)])
def test_no_threshold_is_cheaper_than_the_chosen_one(costs):
    missed, alarm = costs
    for seed in range(10):
        labels, probs = part(seed=seed)
        chosen = threshold_for_cost(labels, probs, cost_missed=missed, cost_alarm=alarm)
        points = [at_threshold(labels, probs, t) for t in np.append(probs[:, 0], np.inf)]
        costs_ = [cost_per_image(p, missed, alarm) for p in points]
        assert chosen.cost == pytest.approx(min(costs_))
        assert chosen.cost == pytest.approx(cost_per_image(chosen, missed, alarm))
        equals = [
            p for p, cost in zip(points, costs_, strict=True) if math.isclose(cost, chosen.cost)
        ]
        assert chosen.threshold == min(p.threshold for p in equals)


def test_of_equal_costs_the_one_that_misses_fewer_is_taken():
    chosen = threshold_for_cost([0, 1, 0, 1], of([0.9, 0.8, 0.7, 0.1]), cost_missed=1, cost_alarm=1)
    assert (chosen.threshold, chosen.missed, chosen.cost) == (0.7, 0, 0.25)


def test_costs_decide_between_calling_nobody_and_everybody():
    labels, probs = [0, 1, 1, 1], of([0.5] * 4)
    assert threshold_for_cost(labels, probs, cost_missed=2, cost_alarm=1).threshold == np.inf
    assert threshold_for_cost(labels, probs, cost_missed=4, cost_alarm=1).threshold == 0.5


def test_with_honest_probabilities_the_threshold_is_the_one_of_theory():
    rng = np.random.default_rng(0)
    score = rng.uniform(size=40_000)
    labels = (rng.uniform(size=40_000) > score).astype(int)
    chosen = threshold_for_cost(labels, of(score), cost_missed=4, cost_alarm=1)
    assert chosen.threshold == pytest.approx(1 / 5, abs=0.03)


def test_a_threshold_is_not_judged_on_the_images_it_was_chosen_on():
    labels, probs = part()
    for chosen in (
        sensitivity_at_specificity(labels, probs),
        threshold_for_cost(labels, probs, cost_missed=5, cost_alarm=1),
    ):
        with pytest.raises(ValueError, match="judge it on another part"):
            at_threshold(labels, probs, chosen)
        with pytest.raises(ValueError, match="judge it on another part"):
            at_threshold(labels.tolist(), probs.tolist(), chosen)
        other = at_threshold(*part(seed=1), chosen)
        assert not isinstance(other, ChosenThreshold)
        assert other.threshold == chosen.threshold
        assert "chosen on these images" in str(chosen)
        assert "chosen" not in str(other)


def test_choosing_flatters_and_the_other_part_shows_it():
    promised, held = [], []
    for seed in range(60):
        chosen = threshold_for_cost(*part(60, seed, digits=9), cost_missed=5, cost_alarm=1)
        promised.append(chosen.cost)
        held.append(cost_per_image(at_threshold(*part(2000, 1000 + seed), chosen), 5, 1))
    assert metrics.paired_mean_interval(held, promised).low > 0


def test_shares_are_of_the_right_whole_and_nan_of_nothing():
    point = at_threshold([0, 0, 0, 1, 1, 1, 1], of([0.9, 0.5, 0.1, 0.8, 0.2, 0.2, 0.1]), 0.5)
    assert (point.found, point.missed, point.alarms, point.cleared) == (2, 1, 1, 3)
    assert (point.sensitivity, point.specificity) == (2 / 3, 3 / 4)
    assert point.precision == 2 / 3
    nobody = at_threshold([0, 0, 1], of([0.3, 0.2, 0.1]), 0.5)
    assert (nobody.sensitivity, nobody.specificity) == (0, 1)
    assert math.isnan(nobody.precision)
    healthy = at_threshold([1, 1], of([0.3, 0.2]), 0.1)
    assert math.isnan(healthy.sensitivity)


def test_the_figures_of_a_threshold_can_be_bootstrapped_on_the_other_part():
    chosen = sensitivity_at_specificity(*part(seed=1), 0.9)
    labels, probs = part()
    interval = metrics.bootstrap(
        lambda truth, rows: at_threshold(truth, rows, chosen).sensitivity,
        labels,
        probs,
        resamples=50,
    )
    assert interval.low < interval.estimate < interval.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: roc_points([1, 1], of([0.5, 0.4])), "class 0 and of others, found 0 and 2"),
        (lambda: precision_recall([0], of([0.5])), "class 0 and of others, found 1 and 0"),
        (
            lambda: roc_points([0, 1], np.eye(2), positive=2),
            r"positive must name a class in 0\.\.1",
        ),
        (lambda: sensitivity_at_specificity([0, 1], np.eye(2), 90), r"must lie in 0\.\.1, got 90"),
        (
            lambda: threshold_for_cost([0, 1], np.eye(2), cost_missed=0, cost_alarm=1),
            "cost_missed must be a finite number above 0, got 0",
        ),
        (
            lambda: threshold_for_cost([0, 1], np.eye(2), cost_missed=1, cost_alarm=np.nan),
            "cost_alarm must be a finite number above 0, got nan",
        ),
        (lambda: at_threshold([0, 1], np.eye(2), 90), r"probability in 0\.\.1 or inf, got 90"),
        (lambda: at_threshold([0, 1], np.eye(2), math.nan), "got nan"),
        (lambda: at_threshold([0, 1], np.eye(2), 0.5, positive=-1), "positive must name"),
        (
            lambda: at_threshold(*part(), sensitivity_at_specificity(*part(seed=1)), positive=1),
            "chosen for class 0 as ill, got positive=1",
        ),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_point_says_its_counts():
    point = OperatingPoint(0.25, positive=0, found=1, missed=1, alarms=0, cleared=3)
    expected = "threshold 0.250: sensitivity 0.500 (1 of 2), specificity 1.000 (3 of 3)"
    assert str(point) == expected
