from statistics import NormalDist

import numpy as np
import pytest
from scipy.special import softmax

from tlcourse import metrics
from tlcourse.metrics import apply_temperature, fit_temperature, reliability


def draws(count, classes=3, temperature=1.0, seed=0):
    """Labels drawn from honest probabilities, and what a model says that is off by a factor."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, classes))
    honest = softmax(logits, axis=1)
    labels = (honest.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return labels, softmax(logits * temperature, axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_that_spoiled_the_probabilities_is_found(temperature, classes):
    labels, probs = draws(20_000, classes, temperature)
    assert fit_temperature(labels, probs) == pytest.approx(temperature, rel=0.05)


def test_hardly_unequal_probabilities_have_a_very_small_temperature():
    labels, probs = draws(5000)
    timid = apply_temperature(probs, 1000)
    assert fit_temperature(labels, timid) == pytest.approx(1 / 1000, rel=0.1)


def test_no_other_temperature_has_a_smaller_loss():
    labels, probs = draws(300, temperature=2.5)
    best = fit_temperature(labels, probs)
    least = metrics.log_loss(labels, apply_temperature(probs, best))
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2):
        assert metrics.log_loss(labels, apply_temperature(probs, factor * best)) > least


def test_scaling_mends_calibration_on_images_it_was_not_fitted_on():
    t = fit_temperature(*draws(500, temperature=3, seed=1))
    labels, probs = draws(5000, temperature=3, seed=2)
    mended = apply_temperature(probs, t)
    before, after = (metrics.calibration_error(labels, rows) for rows in (probs, mended))
    assert before > 0.1
    assert after < 0.03


def test_the_answers_and_with_two_classes_the_order_stay():
    labels, probs = draws(200, classes=2)
    scaled = apply_temperature(probs, 4.0)
    assert metrics.auc(labels, scaled) == metrics.auc(labels, probs)
    labels, probs = draws(200, classes=4)
    scaled = apply_temperature(probs, 4.0)
    assert (scaled.argmax(axis=1) == probs.argmax(axis=1)).all()
    assert np.allclose(scaled.sum(axis=1), 1)
    assert np.allclose(apply_temperature(probs, 1), probs)
    assert np.allclose(apply_temperature(scaled, 0.25), probs)


def test_probabilities_serve_as_well_as_logits():
    logits = np.random.default_rng(0).normal(size=(20, 3))
    expected = softmax((logits - 7) / 1.7, axis=1)
    assert np.allclose(apply_temperature(softmax(logits, axis=1), 1.7), expected)


def test_a_probability_of_zero_stays_and_costs_nothing_where_it_is_right():
    assert apply_temperature([[1.0, 0.0]], 5).tolist() == [[1, 0]]
    labels, probs = draws(300, temperature=2)
    sure = np.eye(3)[[0, 1]]
    with_sure = fit_temperature(np.r_[labels, 0, 1], np.r_[probs, sure])
    assert with_sure == pytest.approx(fit_temperature(labels, probs), rel=1e-3)


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        ([1, 1], [[0.5, 0.5], [0.2, 0.8]], "images of two classes, found only 1"),
        ([0, 1], [[np.nan, 0.5], [0.2, 0.8]], "must be finite"),
        ([0, 1], [[3.0, -2.0], [0.2, 0.8]], "apply softmax"),
        ([0, 1], [[0.0, 1.0], [0.2, 0.8]], "1 images have probability 0 for their true class"),
        ([0, 1], [[0.6, 0.4], [0.2, 0.8]], "every image is answered rightly, so surer is"),
        ([0, 1, 1], [[0.6, 0.4], [0.2, 0.8], [0.5, 0.5]], "every image is answered rightly"),
        ([0, 1, 1], [[0.4, 0.6], [0.8, 0.2], [0.5, 0.5]], "no better than guessing"),
        ([0, 1], [[0.4, 0.6], [0.8, 0.2]], "no better than guessing, so less sure is"),
    ],
)
def test_where_no_temperature_can_be_fitted_the_reason_is_named(labels, probs, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(labels, probs)


@pytest.mark.parametrize("t", [0, -1, np.nan, np.inf])
def test_a_temperature_is_a_number_above_zero(t):
    with pytest.raises(ValueError, match="t must be a finite number above 0"):
        apply_temperature([[0.5, 0.5]], t)


def test_what_is_scaled_must_be_probabilities():
    with pytest.raises(ValueError, match="apply softmax"):
        apply_temperature([[2.0, 1.0]], 2)
    with pytest.raises(ValueError, match=r"probs \(N, C\)"):
        apply_temperature([0.5, 0.5], 2)


def test_reliability_counts_every_image_once_and_agrees_with_the_calibration_error():
    labels, probs = draws(500, temperature=2)
    for bins in (1, 7, 10):
        table = reliability(labels, probs, bins)
        assert table["images"].sum() == 500
        gap = np.average(abs(table["confidence"] - table["observed"]), weights=table["images"])
        assert gap == pytest.approx(metrics.calibration_error(labels, probs, bins=bins))
        assert (
            (table["left"] <= table["confidence"]) & (table["confidence"] <= table["right"])
        ).all()


def test_reliability_of_a_class_is_about_its_probability():
    labels = np.array([0, 0, 1, 1, 1])
    said = np.array([0.75, 0.75, 0.75, 0.1, 1.0])
    table = reliability(labels, np.stack([said, 1 - said], axis=1), 4, positive=0)
    assert table["left"].tolist() == [0, 0.75]  # bins without images are left out
    assert table["images"].tolist() == [1, 4]
    assert table["observed"].tolist() == [0, 0.5]
    assert table["confidence"].tolist() == pytest.approx([0.1, 3.25 / 4])


def test_intervals_are_wilsons():
    """By hand: (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)."""
    labels = np.array([0] * 9 + [1])
    row = reliability(labels, np.tile([0.95, 0.05], (10, 1))).iloc[0]
    z, p, n = NormalDist().inv_cdf(0.975), 0.9, 10
    middle = p + z**2 / (2 * n)
    reach = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    ends = [(middle - reach) / (1 + z**2 / n), (middle + reach) / (1 + z**2 / n)]
    assert [row["low"], row["high"]] == pytest.approx(ends)


def test_reliability_says_what_is_wrong():
    with pytest.raises(ValueError, match="one bin or more, got bins=0"):
        reliability([0], [[0.5, 0.5]], 0)
    with pytest.raises(ValueError, match=r"positive must name a class in 0\.\.1, got 2"):
        reliability([0], [[0.5, 0.5]], positive=2)
