import math
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from tlcourse import plots
from tlcourse.plots import OKABE_ITO
from tlcourse.plots.style import ink

TITLE = "What the rates show"


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    plt.close("all")


def a_test(suggestion=1e-3, end=3.0):
    """A range test whose loss falls and breaks out."""
    rates = np.geomspace(1e-6, 1, 40)
    smoothed = np.interp(np.log10(rates), [-6, -4, -2, 0], [0.7, 0.7, 0.3, end])
    noise = 0.1 * np.random.default_rng(0).standard_normal(40)
    table = pd.DataFrame({"lr": rates, "loss": smoothed + noise, "smoothed": smoothed})
    return SimpleNamespace(table=table, suggestion=suggestion)


def steps(**rates):
    """A table of steps; double underscores stand for the slash of `/no_decay`."""
    columns = {f"lr/{name.replace('__', '/')}": values for name, values in rates.items()}
    return pd.DataFrame({"step": range(len(next(iter(rates.values()))))} | columns)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_the_rate_test_shows_the_smoothed_loss_on_a_log_axis_and_the_suggestion():
    result = a_test()
    ax = plots.rate_test(result, title=TITLE)
    dots, line, mark = ax.lines
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "learning rate (log scale)"
    assert ax.get_ylabel() == "loss (cross-entropy, nats)"
    assert ax.figure.get_suptitle() == TITLE
    np.testing.assert_array_equal(line.get_ydata(), result.table["smoothed"])
    np.testing.assert_array_equal(dots.get_ydata(), result.table["loss"])
    assert list(mark.get_xdata()) == [1e-3, 1e-3]
    assert sorted(texts(ax)) == ["loss at each step", "smoothed loss", "suggested: 0.001"]


def test_the_rate_test_tells_lines_apart_by_more_than_colour():
    dots, line, mark = plots.rate_test(a_test(), title=TITLE).lines
    looks = {(each.get_linestyle(), each.get_marker()) for each in (dots, line, mark)}
    assert len(looks) == 3
    shades = {to_hex(each.get_color()) for each in (dots, line, mark)}
    assert shades <= {to_hex(shade) for shade in OKABE_ITO.values()}


def test_words_in_the_rate_test_read_on_white():
    ax = plots.rate_test(a_test(), title=TITLE)
    assert all(text.get_color() == ink(text.get_color()) for text in ax.texts)


@pytest.mark.parametrize("end", [1e3, 1e30])
def test_a_loss_that_breaks_out_does_not_press_the_fall_flat(end):
    ax = plots.rate_test(a_test(end=end), title=TITLE)
    assert ax.get_ylim() == pytest.approx((0, 1.4))
    assert all(0 <= text.xy[1] <= 1.4 for text in ax.texts)


def test_without_a_suggestion_nothing_is_marked():
    ax = plots.rate_test(a_test(suggestion=math.nan), title=TITLE)
    assert len(ax.lines) == 2
    assert not any("suggested" in text for text in texts(ax))


def test_a_loss_that_is_no_number_is_left_out():
    result = a_test()
    result.table.loc[39, ["loss", "smoothed"]] = math.nan
    ax = plots.rate_test(result, title=TITLE)
    assert len(ax.lines[1].get_xdata()) == 39
    result.table[["loss", "smoothed"]] = math.nan
    with pytest.raises(ValueError, match="expected a finite loss in the rate test, got none"):
        plots.rate_test(result, title=TITLE)


def test_a_loss_of_zero_throughout_can_be_drawn():
    result = a_test()
    result.table[["loss", "smoothed"]] = 0.0
    assert plots.rate_test(result, title=TITLE).get_ylim() == (0, 1)


@pytest.mark.parametrize("column", ["lr", "loss", "smoothed"])
def test_a_rate_test_without_a_column_is_refused(column):
    result = a_test()
    result.table = result.table.drop(columns=column)
    with pytest.raises(ValueError, match="rate test needs columns"):
        plots.rate_test(result, title=TITLE)


def test_the_schedule_shows_each_group_against_the_steps_on_a_log_axis():
    table = steps(stem=[1e-5, 1e-4, 5e-5], head=[1e-4, 1e-3, 5e-4])
    ax = plots.rate_schedule(table, title=TITLE)
    assert (ax.get_yscale(), ax.get_xscale()) == ("log", "linear")
    assert ax.get_xlabel() == "optimizer step"
    assert ax.get_ylabel() == "learning rate (log scale)"
    np.testing.assert_allclose(ax.lines[0].get_ydata(), table["lr/stem"])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), table["lr/head"])
    assert texts(ax) == ["stem: 0.0001", "head: 0.001"]


def test_the_schedule_takes_a_history_and_ignores_other_columns():
    table = steps(all=[1e-3, 1e-4]).assign(epoch=1, loss=0.5)
    ax = plots.rate_schedule(SimpleNamespace(steps=table), title=TITLE)
    assert texts(ax) == ["all: 0.001"]


def test_groups_with_one_rate_share_a_line_whether_they_decay_or_not():
    low, high = [1e-5, 1e-4], [1e-4, 1e-3]
    halves = {"stem": low, "stem__no_decay": low, "stage1": low, "stage1__no_decay": low}
    table = steps(**halves, stage2=low, head=high, head__no_decay=high)
    ax = plots.rate_schedule(table, title=TITLE)
    assert len(ax.lines) == 2
    assert [" ".join(text.split()) for text in texts(ax)] == [
        "stem to stage2: 0.0001",
        "head: 0.001",
    ]


def test_halves_of_a_stage_with_different_rates_are_drawn_apart():
    table = steps(head=[1e-3, 1e-3], head__no_decay=[1e-2, 1e-2])
    assert len(plots.rate_schedule(table, title=TITLE).lines) == 2


def test_a_half_without_its_other_half_keeps_its_name():
    ax = plots.rate_schedule(steps(stem__no_decay=[1e-3], head=[1e-2]), title=TITLE)
    assert texts(ax)[0].startswith("stem/no_decay")


def test_a_warmup_from_zero_can_be_drawn():
    ax = plots.rate_schedule(steps(head=[0.0, 5e-4, 1e-3]), title=TITLE)
    assert math.isnan(ax.lines[0].get_ydata()[0])
    assert ax.get_ylim()[0] > 0


def test_a_schedule_without_rates_is_refused():
    with pytest.raises(ValueError, match="expected columns lr/NAME"):
        plots.rate_schedule(pd.DataFrame({"step": [0], "loss": [0.7]}), title=TITLE)
    with pytest.raises(ValueError, match=r"history.steps needs columns"):
        plots.rate_schedule(pd.DataFrame({"lr/head": [0.1]}), title=TITLE)
    with pytest.raises(ValueError, match="at least one row"):
        plots.rate_schedule(steps(head=[0.1]).iloc[:0], title=TITLE)


@pytest.mark.parametrize("draw", [plots.rate_test, plots.rate_schedule])
def test_a_figure_needs_a_title(draw):
    given = a_test() if draw is plots.rate_test else steps(head=[0.1, 0.2])
    with pytest.raises(ValueError, match="title must say"):
        draw(given, title=" ")
