"""Rates of stages and schedules of groups, drawn; a figure as HTML."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text

from tlcourse.plots import schedule_curves, stage_rates
from tlcourse.plots.style import as_html, ink

NAMES = ["stem", "stage1", "stage2", "stage3", "stage4", "stage5", "head"]
RATES = {name: 1e-3 * 2.6**-i for i, name in enumerate(reversed(NAMES))}
RATES = {name: RATES[name] for name in NAMES}
UP_AND_DOWN = np.concatenate([np.linspace(0, 1, 11), np.linspace(1, 0, 31)[1:]])


@pytest.fixture(autouse=True)
def no_figure_left():
    yield
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts]


def ticks(ax):
    return [tick.get_text() for tick in ax.get_xticklabels()]


def tops(ax):
    return [float(line.get_ydata()[0]) for line in ax.lines]


def test_dots_stand_at_the_rates_on_a_log_axis():
    ax = stage_rates(RATES, title="Decay")
    assert ax.get_yscale() == "log"
    assert ticks(ax) == NAMES
    assert tops(ax) == pytest.approx(list(RATES.values()))
    assert texts(ax)[-3:] == ["0.00015", "0.00038", "0.001"]
    assert ax.get_ylim()[0] < min(RATES.values())
    # Equal factors are equal steps.
    heights = np.diff([ax.transData.transform((0, top))[1] for top in tops(ax)])
    assert heights == pytest.approx(heights[0])


def test_frozen_stages_have_a_place_and_a_word_but_no_dot():
    ax = stage_rates({"stem": None, "stage1": None, "head": 1e-3}, title="Head only")
    assert ticks(ax) == ["stem", "stage1", "head"]
    assert texts(ax) == ["frozen", "frozen", "0.001"]
    assert tops(ax) == pytest.approx([1e-3])
    low, high = ax.get_xlim()
    assert low < -0.5
    assert high > 2.5


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({}, "expected rates above 0"),
        ({"stem": None}, "expected rates above 0"),
        ({"stem": 0.0, "head": 1.0}, "None for a frozen stage"),
        ({"stem": float("inf")}, "expected rates above 0"),
    ],
)
def test_rates_that_cannot_be_drawn_are_named(rates, message):
    with pytest.raises(ValueError, match=message):
        stage_rates(rates, title="Wrong")
    assert plt.get_fignums() == []


def test_lines_run_over_the_steps_from_zero():
    ax = schedule_curves({"backbone": 1e-4 * UP_AND_DOWN, "head": 1e-3 * UP_AND_DOWN}, title="Two")
    lines = [line.get_ydata() for line in ax.lines]
    assert lines[0] == pytest.approx(1e-4 * UP_AND_DOWN)
    assert lines[1] == pytest.approx(1e-3 * UP_AND_DOWN)
    assert ax.get_yscale() == "linear"
    assert ax.get_ylim()[0] == 0
    assert ax.get_xlim() == (0, 40)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("optimizer step", "learning rate")


def test_names_stand_at_the_highest_rates_in_the_lines_colours():
    ax = schedule_curves({"backbone": 1e-4 * UP_AND_DOWN, "head": 1e-3 * UP_AND_DOWN}, title="Two")
    assert [tuple(note.xy) for note in ax.texts] == [(40, 1e-4), (40, 1e-3)]
    assert texts(ax) == ["backbone: 0.0001", "head: 0.001"]
    for note, line in zip(ax.texts, ax.lines, strict=True):
        assert to_hex(note.get_color()) == ink(to_hex(line.get_color()))


def test_a_log_axis_leaves_out_what_is_next_to_zero():
    ax = schedule_curves({n: r * UP_AND_DOWN for n, r in RATES.items()}, title="All", log=True)
    assert ax.get_yscale() == "log"
    for line, rate in zip(ax.lines, RATES.values(), strict=True):
        drawn = line.get_ydata()
        assert np.isnan(drawn[[0, -1]]).all()
        assert np.nanmin(drawn) >= 0.01 * rate
        assert np.isnan(drawn).sum() == 2
    assert ax.get_ylabel() == "learning rate (log scale)"


def test_groups_with_equal_rates_share_a_line():
    uniform = schedule_curves(dict.fromkeys(NAMES, UP_AND_DOWN), title="One")
    assert texts(uniform) == ["stem to head: 1"]
    assert len(uniform.lines) == 1
    two = schedule_curves({"a": UP_AND_DOWN, "b": UP_AND_DOWN / 2, "c": UP_AND_DOWN}, title="Two")
    assert sorted(texts(two)) == ["a and c: 1", "b: 0.5"]


@pytest.mark.parametrize(
    ("rates", "log", "message"),
    [
        ({}, False, "of one length"),
        ({"a": []}, False, "of one length"),
        ({"a": [1, 2], "b": [1]}, False, r"of one length, got \[\(1,\), \(2,\)\]"),
        ({"a": [[1, 2]]}, False, "of one length"),
        ({"a": [1, -1]}, False, "0 or more, on a log axis not all 0, for a"),
        ({"a": [1, np.nan]}, False, "finite"),
        ({"a": [0, 0]}, True, "not all 0"),
    ],
)
def test_schedules_that_cannot_be_drawn_are_named(rates, log, message):
    with pytest.raises(ValueError, match=message):
        schedule_curves(rates, title="Wrong", log=log)
    assert plt.get_fignums() == []


def drawn():
    many = {n: r * UP_AND_DOWN for n, r in RATES.items()}
    return {
        "dots": stage_rates(RATES, title="What it shows"),
        "frozen": stage_rates({"stem": None, "stage1": 1e-4, "head": 1e-3}, title="What it shows"),
        "linear": schedule_curves(many, title="What it shows"),
        "log": schedule_curves(many, title="What it shows", log=True),
        "one": schedule_curves({"all": UP_AND_DOWN}, title="What it shows"),
    }


def test_every_figure_has_title_labels_and_white_paper():
    for name, ax in drawn().items():
        assert ax.figure.get_suptitle() == "What it shows", name
        assert ax.get_xlabel(), name
        assert ax.get_ylabel(), name
        assert to_hex(ax.figure.get_facecolor()) == "#ffffff", name
        assert ax.figure.get_figwidth() == 7.5, name


def test_no_text_is_clipped_or_printed_over_another():
    for name, ax in drawn().items():
        figure = ax.figure
        figure.canvas.draw()
        labels = [*ax.xaxis.get_ticklabels(), *ax.yaxis.get_ticklabels()]
        found = [*figure.texts, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        low, high = ax.get_ylim()
        places = [*ax.get_xticks(), *ax.get_yticks()]
        found += [
            label
            for label, place in zip(labels, places, strict=True)
            if label in ax.xaxis.get_ticklabels() or low <= place <= high
        ]
        # The words alone: an annotation's own box holds its arrow, too.
        boxes = [(t.get_text(), Text.get_window_extent(t)) for t in found if t.get_text().strip()]
        for i, (words, box) in enumerate(boxes):
            inside = figure.bbox.padded(1)
            assert inside.contains(box.x0, box.y0), (name, words)
            assert inside.contains(box.x1, box.y1), (name, words)
            for other, second in boxes[i + 1 :]:
                apart = not box.padded(-1.5).overlaps(second.padded(-1.5))
                assert apart, f"{name}: {words!r} over {other!r}"


def test_a_figure_as_html_is_closed_and_keeps_its_words():
    before = plt.figure()
    page = as_html(stage_rates(RATES, title="Decay"), alt='Bars & "figures"\n each 1/2.6')
    assert plt.get_fignums() == [before.number]
    assert 'alt="Bars &amp; &quot;figures&quot; each 1/2.6"' in page
    assert re.match(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+"', page)
    with pytest.raises(ValueError, match="alt must describe the figure"):
        as_html(plt.figure(), alt=" ")


def test_rates_as_tensors_are_drawn():
    ax = schedule_curves({"all": torch.tensor([0.0, 0.5, 1.0])}, title="Tensor")
    assert ax.lines[0].get_ydata().tolist() == [0.0, 0.5, 1.0]
