import numpy as np
import pandas as pd
import pytest

from tlcourse import metrics, results
from tlcourse.metrics import rows_by_shift, shift_effects


def scored(auc, ways=("frozen", "cold"), seeds=(0, 1, 2), shifts=("none", "blur", "noise")):
    rows = [(w, s, k, auc(w, s, k)) for w in ways for s in seeds for k in shifts]
    return pd.DataFrame(rows, columns=["way", "seed", "shift", "auc"])


def by_hand(way, seed, shift):
    start = {"frozen": 0.80, "cold": 0.90}[way] + 0.01 * seed
    fall = {"none": 0, "blur": 0.10, "noise": 0.20}[shift] * {"frozen": 1, "cold": 2}[way]
    return start - fall


def test_effects_against_means_by_hand():
    effects = shift_effects(scored(by_hand), reference="frozen")
    assert effects.loc["frozen", "lost"].estimate == pytest.approx(0.15)
    assert effects.loc["cold", "lost"].estimate == pytest.approx(0.30)
    assert effects.loc["cold", "lost_more"].estimate == pytest.approx(0.15)
    # cold starts 0.10 higher and loses 0.15 more
    assert effects.loc["cold", "left_more"].estimate == pytest.approx(-0.05)
    assert effects.loc["frozen", "left_more"].estimate == 0


def test_the_comparison_is_paired_by_seed():
    noise = np.random.default_rng(0).normal(0, 0.1, 5)  # shared by both ways
    runs = scored(lambda w, s, k: by_hand(w, 0, k) + noise[s], seeds=range(5))
    more = shift_effects(runs, reference="frozen").loc["cold", "left_more"]
    assert more.high - more.low < 1e-6


def test_the_order_of_rows_does_not_matter():
    runs = scored(by_hand)
    shuffled = runs.sample(frac=1, random_state=0)
    first, second = (shift_effects(r, reference="cold").sort_index() for r in (runs, shuffled))
    assert first.map(lambda i: round(i.estimate, 9)).equals(
        second.map(lambda i: round(i.estimate, 9))
    )


def test_a_missing_score_is_an_error():
    runs = scored(by_hand)
    with pytest.raises(ValueError, match="a score per way, seed and shift"):
        shift_effects(runs.drop(index=4), reference="frozen")
    with pytest.raises(ValueError, match="'none'"):
        shift_effects(runs[runs["shift"] != "none"], reference="frozen")


def test_an_unknown_reference_is_an_error():
    with pytest.raises(ValueError, match="frozen, cold, got 'warmup'"):
        shift_effects(scored(by_hand), reference="warmup")


def test_rows_of_the_published_table_keep_every_score():
    wide = results.load_table("04_strategies_phantom").query("n == 546 and strategy == 'cold'")
    rows = rows_by_shift(wide)
    assert set(rows["shift"]) == {"none", "gain-14", "blur", "speckle", "scanner"}
    assert len(rows) == 5 * len(wide)
    blurred = rows[rows["shift"] == "blur"].set_index("seed")["auc"]
    assert blurred.to_dict() == wide.set_index("seed")["auc_blur"].to_dict()
    assert isinstance(shift_effects(rows, reference="cold").loc["cold", "lost"], metrics.Interval)


def test_rows_need_a_shifted_score():
    with pytest.raises(ValueError, match="auc_NAME per shift, got strategy, seed, auc"):
        rows_by_shift(pd.DataFrame({"strategy": ["cold"], "seed": [0], "auc": [0.9]}))
