"""The simulated ultrasound: reproducible, honest about its factors, and clear about mistakes."""

import random
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_info, threadpool_limits

from tlcourse.simulation import SHIFTS, Phantom, Shift, descriptors, simulate
from tlcourse.simulation import phantom as phantom_module
from tlcourse.simulation.scanner import shrink

LESION_WORDS = ["posterior", "echo"]
LESION_NUMBERS = ["size", "aspect", "tilt", "depth", "lateral", "edge", "echo_db", "posterior_db"]
MARKER_GREY = 215


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return simulate(160, seed=3)


@pytest.fixture(scope="module")
def unmarked() -> Phantom:
    return simulate(240, seed=1, shift=Shift(markers=0))


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_same_seed_gives_the_same_set_and_another_seed_another():
    first, again, other = simulate(12, seed=5), simulate(12, seed=5), simulate(12, seed=6)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    pd.testing.assert_frame_equal(first.factors, again.factors)
    assert not np.array_equal(first.images, other.images)


def test_images_do_not_depend_on_how_they_are_batched(monkeypatch):
    whole = simulate(10, seed=5, views=3)
    monkeypatch.setattr(
        "tlcourse.simulation.phantom.PHANTOM_BATCH", 5
    )  # 5 cuts through a patient's views
    np.testing.assert_array_equal(simulate(10, seed=5, views=3).images, whole.images)


def test_global_generators_are_left_alone():
    def states():
        numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
        return random.getstate(), numpy_state, torch.get_rng_state().tolist()

    before = states()
    simulate(6, seed=1)
    assert states() == before


@pytest.mark.parametrize("size", [16, 28, 64, 100, 128])
def test_shapes_and_types_at_every_size(size):
    got = simulate(5, size=size, views=2)
    assert got.images.shape == (5, size, size)
    assert got.images.dtype == np.uint8
    assert got.labels.dtype == got.patients.dtype == np.int64
    assert got.patients.tolist() == [0, 0, 1, 1, 2]
    assert len(got) == len(got.factors) == 5


def test_shrink_keeps_brightness_and_place_at_sizes_that_do_not_divide_the_grid():
    shown = np.zeros((1, 128, 128), np.float32)
    shown[:, :64] = 1
    small = shrink(shown, 30)[0]
    assert small.mean() == pytest.approx(127.5, abs=0.01)
    assert (small[:15] == 255).all()
    assert (small[15:] == 0).all()


@pytest.mark.parametrize("malignant", [0.27, 0.5, 0.9])
def test_class_share_is_met_exactly_by_patient(malignant):
    got = simulate(100, malignant=malignant)
    assert (got.labels == 0).sum() == round(100 * malignant)
    extreme = simulate(4, malignant=malignant / 100)
    assert (extreme.labels == 0).sum() == 1


def test_images_use_the_range_and_are_not_clipped_flat(phantom):
    low, middle, high = np.percentile(phantom.images, [1, 50, 99])
    assert low < 15
    assert 50 < middle < 110
    assert 150 < high < 255
    assert phantom.images.std(axis=(1, 2)).min() > 10
    assert (phantom.images == 255).mean() < 0.01


def test_top_is_brighter_than_the_attenuated_bottom(phantom):
    rows = phantom.images.mean((0, 2))
    assert rows[:16].mean() > 1.5 * rows[-16:].mean()


def test_views_of_a_patient_look_more_alike_than_two_patients():
    got = simulate(90, seed=2, views=3)
    # What every image shares (bright skin, dark bottom) says nothing about a patient.
    images = got.images - got.images.mean(0)
    same = [correlation(images[i], images[i + 1]) for i in range(0, 90, 3)]
    different = [correlation(images[i], images[(i + 3) % 90]) for i in range(0, 90, 3)]
    assert np.mean(same) > np.mean(different) + 0.2
    assert max(same) < 0.99  # no two views are the same picture


def test_views_share_label_descriptors_and_tissue_but_not_the_view():
    got = simulate(30, seed=2, views=3)
    shared = [*descriptors.YES_NO, *LESION_WORDS, "lesion", "log_odds", "fat_depth", "muscle_depth"]
    of_patient = got.factors[shared].assign(label=got.labels).groupby(got.patients)
    assert (of_patient.nunique(dropna=False) == 1).all(axis=None)
    assert (got.factors.groupby(got.patients)["shift_x"].nunique() == 3).all()


@pytest.mark.parametrize("name", [name for name in SHIFTS if name != "none"])
def test_shifted_set_shows_the_same_patients(name):
    plain, shifted = simulate(40, seed=4), simulate(40, seed=4, shift=name)
    np.testing.assert_array_equal(plain.labels, shifted.labels)
    pd.testing.assert_frame_equal(plain.factors, shifted.factors)
    alike = [correlation(a, b) for a, b in zip(plain.images, shifted.images, strict=True)]
    others = [correlation(a, b) for a, b in zip(plain.images, shifted.images[1:], strict=False)]
    assert not np.array_equal(plain.images, shifted.images)
    assert min(alike) > 0.6
    assert np.mean(alike) > np.mean(others) + 0.2


def test_gain_brightens_blur_smooths_and_speckle_roughens():
    plain, bright, dim, blurred, rough = (
        simulate(24, seed=4, shift=Shift(**{"markers": 0.0, **change})).images.astype(float)
        for change in ({}, {"gain": 8}, {"gain": -14}, {"blur": 1.8}, {"speckle": 2.2})
    )
    brightness = plain.mean((1, 2))
    assert (bright.mean((1, 2)) > brightness).all()
    assert (dim.mean((1, 2)) < brightness).all()

    def sideways(images):
        return np.abs(np.diff(images, axis=2)).mean()

    assert sideways(blurred) < 0.9 * sideways(plain)
    assert sideways(rough) > 1.3 * sideways(plain)


def test_gain_factor_tells_brightness_among_patients(phantom):
    brightness = phantom.images.mean((1, 2))
    assert np.corrcoef(phantom.factors["gain"], brightness)[0, 1] > 0.5


def test_shift_can_be_named_or_built_and_none_is_no_shift():
    named, built = (
        simulate(6, shift="scanner"),
        simulate(6, shift=Shift(**asdict(SHIFTS["scanner"]))),
    )
    np.testing.assert_array_equal(named.images, built.images)
    np.testing.assert_array_equal(simulate(6, shift="none").images, simulate(6).images)


def test_patients_without_a_lesion_have_no_lesion_factor(phantom):
    factors, none = phantom.factors, ~phantom.factors["lesion"]
    assert none.any()
    assert (phantom.labels[none] == 1).all()
    assert not factors.loc[none, [*descriptors.YES_NO, "mimic", "satellites"]].any(axis=None)
    assert (factors.loc[none, LESION_WORDS] == "absent").all(axis=None)
    assert factors.loc[none, LESION_NUMBERS].isna().all(axis=None)
    assert (factors.loc[none, "log_odds"] == descriptors.NO_LESION_LOG_ODDS).all()
    assert not factors[~none].isna().any(axis=None)
    assert not (factors.loc[~none, LESION_WORDS] == "absent").any(axis=None)


def test_cysts_are_darker_where_the_factors_say_they_are(unmarked):
    got = unmarked
    chosen = (got.factors["echo"] == "anechoic") & got.factors["lateral"].abs().lt(0.3)
    darker = []
    for row, factors in got.factors[chosen & ~got.factors["indistinct"]].iterrows():
        z, x = round(factors["depth"] * 64), round((factors["lateral"] + 0.5) * 64)
        darker.append(
            got.images[row, z - 1 : z + 2, x - 1 : x + 2].mean() < got.images[row, z].mean()
        )
    assert len(darker) > 20
    assert np.mean(darker) > 0.9


def test_shadow_darkens_and_enhancement_brightens_what_lies_behind(unmarked):
    got = unmarked

    def behind(kind):
        chosen = (got.factors["posterior"] == kind) & got.factors["lateral"].abs().lt(0.3)
        differences = []
        for row, f in got.factors[chosen & (got.factors["echo_db"] < -8)].iterrows():
            z = min(60, round((f["depth"] + f["size"] * f["aspect"] ** 0.5) * 64) + 5)
            x = round((f["lateral"] + 0.5) * 64)
            row_mean = got.images[row, z - 2 : z + 3].mean()
            differences.append(got.images[row, z - 2 : z + 3, x - 2 : x + 3].mean() - row_mean)
        return np.mean(differences)

    assert behind("shadowing") < behind("unchanged") - 5 < behind("enhancement") - 15


def test_oracle_knows_nearly_all_and_mimic_takes_it_away(phantom):
    malignant = phantom.labels == 0
    assert roc_auc_score(malignant, phantom.factors["log_odds"]) > 0.98
    hard = simulate(240, seed=3, mimic=0.15, size=16)
    share = hard.factors.loc[hard.factors["lesion"], "mimic"].mean()
    assert 0.08 < share < 0.22
    assert roc_auc_score(hard.labels == 0, hard.factors["log_odds"]) < 0.95


def test_log_odds_are_calibrated():
    # Where the oracle says p, a share of about p is malignant.
    labels = (np.random.default_rng(0).random(40_000) >= 0.27).astype(np.int64)
    rng = np.random.default_rng(1)
    frame = descriptors.draw_patients(labels, rng, malignant=0.27, contrast=1.0, mimic=0.05)
    claimed = 1 / (1 + np.exp(-frame["log_odds"]))
    for low, high in [(0, 0.2), (0.2, 0.8), (0.8, 1)]:
        inside = claimed.between(low, high)
        assert (labels[inside] == 0).mean() == pytest.approx(claimed[inside].mean(), abs=0.03)


@pytest.mark.parametrize("name", descriptors.ONE_OF)
def test_tables_are_probabilities(name):
    chances = np.array(list(descriptors.ONE_OF[name].values()))
    np.testing.assert_allclose(chances.sum(0), 1)


def test_descriptors_come_as_often_as_the_tables_say():
    labels = np.zeros(20_000, np.int64)
    rng = np.random.default_rng(0)
    frame = descriptors.draw_patients(labels, rng, malignant=0.5, contrast=1.0, mimic=0.0)
    for name, (p_malignant, _) in descriptors.YES_NO.items():
        assert frame[name].mean() == pytest.approx(p_malignant, abs=0.015)
    for name, table in descriptors.ONE_OF.items():
        for level, (p_malignant, _) in table.items():
            assert (frame[name] == level).mean() == pytest.approx(p_malignant, abs=0.015)


def test_contrast_makes_lesions_stand_out():
    faint, strong = simulate(40, seed=2, contrast=0.4), simulate(40, seed=2, contrast=2.0)
    lesion = faint.factors["lesion"]
    assert (strong.factors["echo_db"][lesion] < faint.factors["echo_db"][lesion]).all()
    np.testing.assert_array_equal(faint.images[~lesion], strong.images[~lesion])
    assert strong.images[lesion].std() > faint.images[lesion].std()


def test_shortcut_puts_calipers_by_class_and_changes_nothing_else():
    plain, marked = (
        simulate(90, seed=7, shift=Shift(markers=0)),
        simulate(90, seed=7, shortcut=(0.9, 0.1)),
    )
    calipers = marked.factors["calipers"]
    assert calipers[marked.labels == 0].mean() > 0.75
    assert calipers[marked.labels == 1].mean() < 0.25
    assert not marked.factors["text"].any()
    changed = (plain.images != marked.images).any((1, 2))
    np.testing.assert_array_equal(changed, calipers)
    assert set(marked.images[plain.images != marked.images]) == {MARKER_GREY}


def test_markers_are_drawn_where_and_only_where_the_factors_say():
    bare, marked = (
        simulate(60, seed=7, shift=Shift(markers=0)),
        simulate(60, seed=7, shift=Shift(markers=1)),
    )
    assert not bare.factors[["calipers", "text"]].any(axis=None)
    assert (marked.factors["calipers"] ^ marked.factors["text"]).all()
    assert (bare.images != marked.images).any((1, 2)).all()


@pytest.mark.parametrize("size", [16, 128])
def test_markers_fit_into_small_and_large_images(size):
    assert len(simulate(40, seed=7, size=size, shift=Shift(markers=1))) == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 1}, r"got n=1, views=1: ask for at least 2 images"),
        (
            {"n": 3, "views": 3},
            r"both classes have a patient; got n=3, views=3: ask for at least 4",
        ),
        ({"views": 0}, r"at least 1 view per patient, got views=0"),
        ({"seed": -1}, r"seed of 0 or more, got -1"),
        ({"size": 8}, r"size from 16 to 128 pixels, got 8"),
        ({"size": 224}, r"size from 16 to 128 pixels, got 224"),
        ({"malignant": 0.0}, r"malignant above 0 and below 1, got 0.0"),
        ({"malignant": 27}, r"malignant above 0 and below 1, got 27"),
        ({"contrast": 0}, r"contrast above 0 .* got 0"),
        ({"mimic": 1.5}, r"mimic from 0 to 1, got 1.5"),
        ({"shortcut": (0.9, -0.1)}, r"shortcut from 0 to 1, got -0.1"),
        ({"shortcut": (0.9,)}, r"two probabilities as shortcut .* got \(0.9,\)"),
        ({"shift": "gain+80"}, r"one of none, gain\+8, .*scanner as shift, got 'gain\+80'"),
    ],
)
def test_argument_errors_say_what_was_expected_and_what_came(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate(**{"n": 8, **arguments})


@pytest.mark.parametrize("values", [{"blur": 0}, {"speckle": -1}, {"markers": 2}])
def test_shift_refuses_values_without_meaning(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}.*got"):
        Shift(**values)


def test_progress_bar_is_silent_unless_asked_for(capsys):
    simulate(4)
    assert capsys.readouterr().err == ""
    simulate(4, progress=True)
    assert "simulating" in capsys.readouterr().err


def test_algebra_stays_on_one_thread(monkeypatch):
    """On a busy machine the set took 33 s instead of 3 while BLAS threads waited for each other."""
    seen = []
    render = phantom_module._render

    def spied(*arguments, **options):
        seen.extend(x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas")
        return render(*arguments, **options)

    monkeypatch.setattr(phantom_module, "_render", spied)
    with threadpool_limits(2, user_api="blas"):
        simulate(4)
    assert seen
    assert set(seen) == {1}
