"""The learning block whose penalty is chosen inside the training images; see also test_features."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from tlcourse.features import probe
from tlcourse.features.probe import TUNED_C


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
def test_the_choice_is_that_of_folds_scaled_by_their_own_training_images(width):
    """Fewer or more features than images; every fold is scaled and judged by hand here."""
    features, labels = clouds(width=width)
    groups = np.arange(60) // 2
    losses = dict.fromkeys(TUNED_C, 0.0)
    splitter = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    for train, judged in splitter.split(labels, labels, groups):
        mean, spread = features[train].mean(axis=0), features[train].std(axis=0)
        scaled = (features - mean) / spread
        for penalty in TUNED_C:
            fitted = LogisticRegression(C=penalty, max_iter=1000).fit(scaled[train], labels[train])
            losses[penalty] += log_loss(labels[judged], fitted.predict_proba(scaled[judged]))
    found = probe(features, labels, kind="tuned", groups=groups)
    assert min(losses, key=losses.__getitem__) == found[-1].C


@pytest.mark.parametrize(("kind", "fits"), [("tuned", 3 * len(TUNED_C)), ("svm", 3)])
def test_nothing_is_fitted_on_images_that_a_fold_holds_back(monkeypatch, kind, fits):
    """A scaler that saw the held-out third would have told the folds about it."""
    seen = []
    fit = StandardScaler.fit

    def spied(self, rows, *arguments, **options):
        seen.append(len(rows))
        return fit(self, rows, *arguments, **options)

    monkeypatch.setattr(StandardScaler, "fit", spied)
    probe(*clouds(), kind=kind)
    assert seen == [40] * fits + [60]


def test_twins_do_not_make_the_svm_sure():
    """All is noise and every image has a twin: folds that part pairs fit a steep sigmoid."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(60, 200)), 2, axis=0)
    labels = np.repeat(rng.permutation(np.arange(60) % 2), 2)
    pairs = np.random.default_rng(1).permutation(120)  # lying side by side, twins fall together
    features, labels = features[pairs], labels[pairs]
    unseen = rng.normal(size=(50, 200))
    torn, whole = (
        probe(features, labels, kind="svm", groups=groups).predict_proba(unseen)[:, 0].std()
        for groups in (None, pairs // 2)
    )
    assert whole < 0.8 * torn


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
