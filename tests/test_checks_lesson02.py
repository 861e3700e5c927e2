import numpy as np
import pandas as pd
import pytest

from tlcourse.checks import CheckFailed, lesson02

BASE = np.indices((8, 8))[1] / 7.0
# Channels: bright everywhere, spreads on both, vertical, horizontal, silent.
VERTICAL = np.stack([np.full((8, 8), 9.0), 6 * BASE, 3 * BASE, 0 * BASE, 0 * BASE])
HORIZONTAL = np.stack([np.full((8, 8), 9.0), 6 * BASE.T, 0 * BASE, 3 * BASE.T, 0 * BASE])
MEANS = pd.Series({"stem": 0.6, "stage1": 0.7, "stage2": 0.97, "stage3": 0.98, "stage4": 0.96})


def cka(x, y, centre=0, power=2):
    if centre is not None:
        x, y = (t - t.mean(axis=centre, keepdims=True) for t in (x, y))
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return np.linalg.norm(x.T @ y) ** power / own


def test_right_answers_pass():
    assert lesson02.check_edge_channel(2, VERTICAL, HORIZONTAL).passed
    assert lesson02.check_cut_stage("stage2", MEANS).passed
    assert lesson02.check_cka(cka).passed


def test_blanks_get_a_hint():
    assert not lesson02.check_edge_channel(..., VERTICAL, HORIZONTAL).passed
    assert not lesson02.check_cut_stage(..., MEANS).passed
    assert not lesson02.check_cka(lambda x, y: ...).passed


@pytest.mark.parametrize(
    ("channel", "message"),
    [(3, "other way round"), (1, "subtract"), (0, "largest mean"), (4, "compare all")],
)
def test_a_wrong_channel_is_named(channel, message):
    with pytest.raises(CheckFailed, match=message):
        lesson02.check_edge_channel(channel, VERTICAL, HORIZONTAL)


@pytest.mark.parametrize(
    ("stage", "message"),
    [("stage3", "an earlier stage"), ("stage1", "below the best"), ("head", "expected one of")],
)
def test_a_wrong_stage_is_named(stage, message):
    with pytest.raises(CheckFailed, match=message):
        lesson02.check_cut_stage(stage, MEANS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x, y: cka(x, y, centre=None), "not centred"),
        (lambda x, y: cka(x, y, centre=1), "rows were centred"),
        (lambda x, y: cka(x, y, power=1), "must be squared"),
        (lambda x, y: 0.123, "expected"),
    ],
)
def test_a_wrong_cka_is_named(wrong, message):
    with pytest.raises(CheckFailed, match=message):
        lesson02.check_cka(wrong)
