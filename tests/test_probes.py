"""The learning block whose penalty is chosen inside the training images; see also test_features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from tlcourse.probes import TUNED_C, probe


def clouds(n=60, width=300, distance=0.5, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return rng.normal(size=(n, width)) + distance * labels[:, None], labels


@pytest.mark.filterwarnings("error")
def test_a_tuned_probe_learns_and_takes_several_classes_and_dead_features():
    features, labels = clouds()
    unseen, truth = clouds(seed=1)
    assert probe(features, labels, kind="tuned").score(unseen, truth) > 0.9
    features[:, :40] = 0
    several = labels + 2 * (np.arange(60) % 3 == 0)
    assert probe(features, several, kind="tuned").predict_proba(features).shape == (60, 4)


@pytest.mark.parametrize("width", [5, 300])
def test_turning_the_features_changes_no_choice(width):
    """Fewer or more features than images: the choice is that of a search on all of them."""
    features, labels = clouds(width=width)
    groups = np.arange(60) // 2
    dealer = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    searched = GridSearchCV(
        LogisticRegression(max_iter=1000),
        {"C": TUNED_C},
        scoring="neg_log_loss",
        cv=list(dealer.split(labels, labels, groups)),
    ).fit(StandardScaler().fit_transform(features), labels)
    found = probe(features, labels, kind="tuned", groups=groups)
    assert searched.best_params_["C"] == found[-1].C
    expected = searched.predict_proba(found[0].transform(features))
    np.testing.assert_allclose(found.predict_proba(features), expected, atol=1e-6)


def test_noise_is_held_back_and_a_clear_difference_is_not():
    noise, labels = clouds(distance=0, n=120)
    clear, _ = clouds(distance=3, width=4, n=120)
    assert min(TUNED_C) == probe(noise, labels, kind="tuned")[-1].C
    assert max(TUNED_C) == probe(clear, labels, kind="tuned")[-1].C


def test_twins_do_not_talk_the_penalty_down():
    """Every image has a twin, and all is noise: only folds that keep pairs whole show it."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(60, 200)), 2, axis=0)
    labels = np.repeat(rng.permutation(np.arange(60) % 2), 2)
    torn = probe(features, labels, kind="tuned")
    whole = probe(features, labels, kind="tuned", groups=np.arange(120) // 2)
    assert whole[-1].C < torn[-1].C


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 1, 2, 2], "found 1 of class 1"),
        ([0, 1], r"a group per image, got \(2,\) for \(4,\)"),
    ],
)
def test_groups_must_leave_folds(groups, message):
    with pytest.raises(ValueError, match=message):
        probe(np.eye(4), [0, 0, 1, 1], kind="tuned", groups=groups)
