from __future__ import annotations

import base64
import io
import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image
from sklearn.metrics import average_precision_score

from tlcourse import plots
from tlcourse.metrics import (
    Interval,
    apply_temperature,
    at_threshold,
    calibration_error,
    fold_interval,
    mean_interval,
    precision_recall,
    reliability,
    sensitivity_at_specificity,
)
from tlcourse.plots import colours_for
from tlcourse.plots.style import ink

matplotlib.use("agg")

CLASSES = ("malignant", "normal or benign")
VERMILLION, BLUE, GREEN, GREY = "#d55e00", "#0072b2", "#009e73", "#7f7f7f"
ORANGE, SKY, YELLOW = "#e69f00", "#56b4e9", "#f0e442"


@pytest.fixture(autouse=True)
def no_figure_left():
    # The common tests hold a figure of every function open at once.
    with plt.rc_context({"figure.max_open_warning": 0}):
        yield
    plt.close("all")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def title_of(target) -> str:
    axes = np.ravel(np.array(target, dtype=object))
    return axes[0].figure.get_suptitle()


def line_colours(ax: Axes) -> list[str]:
    return [to_hex(line.get_color()) for line in ax.lines]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def split(*labels: int) -> SimpleNamespace:
    return SimpleNamespace(labels=np.array(labels))


def probabilities(rng, labels) -> np.ndarray:
    malignant = np.clip(np.where(labels == 0, 0.7, 0.3) + 0.15 * rng.normal(size=len(labels)), 0, 1)
    return np.stack([malignant, 1 - malignant], axis=1)


@pytest.fixture
def runs(rng) -> pd.DataFrame:
    rows = [
        (n, base + 0.001 * n + 0.01 * rng.normal(), name)
        for name, base in {"pretrained": 0.8, "HOG": 0.65, "pixels": 0.6}.items()
        for n in (50, 100, 200)
        for _ in range(1 if n == 200 else 4)
    ]
    return pd.DataFrame(rows, columns=["images", "auc", "method"])


@pytest.fixture
def probes(rng) -> pd.DataFrame:
    rows = [
        (stage, 0.5 + 0.1 * i + 0.01 * rng.normal(), task)
        for task in ("edge orientation", "texture", "cancer")
        for i, stage in enumerate(("stem", "stage1", "head"))
        for _ in range(3)
    ]
    return pd.DataFrame(rows, columns=["stage", "score", "task"])


def every_function(rng, runs, probes, tmp: str = "What the figure shows") -> dict[str, object]:
    """Call each plot once; a new function is added here and the common tests cover it."""
    labels = np.array([0, 1] * 20)
    probs = probabilities(rng, labels)
    log = pd.DataFrame({"epoch": [1, 2], "train_loss": [1, 0.5], "val_loss": [1, 0.7]})
    log["val_auc"] = [0.6, 0.8]
    images = rng.integers(0, 255, (4, 16, 16), dtype=np.uint8)
    parts = {"train": split(0, 1, 1), "val": split(0, 1), "test": split(0, 1)}
    rates = {"stem": None, "stage1": 1e-4, "head": 1e-3}
    curves = {"backbone": [0, 1e-4, 0], "head": [0, 1e-3, 0]}
    steps = pd.DataFrame({"step": [0, 1, 2], "lr/backbone": [1e-5, 1e-4, 1e-5], "lr/head": 1e-3})
    tried = pd.DataFrame({"step": range(3), "lr": [1e-4, 1e-3, 1e-2], "loss": [0.7, 0.5, 0.9]})
    tried = SimpleNamespace(table=tried.assign(smoothed=tried["loss"]), suggestion=1e-3, note="")
    mark = {"90 % specificity": sensitivity_at_specificity(labels, probs, 0.9)}
    return {
        "stage_rates": plots.stage_rates(rates, title=tmp),
        "schedule_curves": plots.schedule_curves(curves, title=tmp),
        "rate_schedule": plots.rate_schedule(SimpleNamespace(steps=steps), title=tmp),
        "rate_test": plots.rate_test(tried, title=tmp),
        "image_grid": plots.image_grid(images, labels[:4], CLASSES, rows=2, cols=2, title=tmp),
        "class_counts": plots.class_counts(SimpleNamespace(classes=CLASSES, **parts), title=tmp),
        "history_curves": plots.history_curves(log, title=tmp),
        "roc": plots.roc(labels, probs, title=tmp, mark=at_threshold(labels, probs, 0.5)),
        "precision_recall_curve": plots.precision_recall_curve(
            labels, {"fine-tuned from ImageNet": probs}, title=tmp, mark=mark
        ),
        "reliability_curve": plots.reliability_curve(labels, probs, title=tmp),
        "learning_curves": plots.learning_curves(runs, title=tmp),
        "score_bars": plots.score_bars({"HOG": Interval(0.7, 0.6, 0.8)}, title=tmp),
        "filters_grid": plots.filters_grid(rng.normal(size=(32, 3, 3, 3)), title=tmp),
        "response_grid": plots.response_grid(images[0], rng.random((5, 8, 8)), [0, 3], title=tmp),
        "activation_stages": plots.activation_stages(
            images[0], {"stem": rng.random((5, 8, 8)), "stage1": rng.random((5, 4, 4))}, title=tmp
        ),
        "patch_grid": plots.patch_grid({"channel 3": images}, title=tmp),
        "stage_curves": plots.stage_curves(probes, title=tmp),
        "heat_map": plots.heat_map(images[0], rng.random((4, 4)), title=tmp, label="fall of p"),
        "top_predictions": plots.top_predictions(probs[0], CLASSES, k=2, title=tmp),
        "confusion_matrix": plots.confusion_matrix(labels, probs.argmax(1), CLASSES, title=tmp),
        "confusion_matrices": plots.confusion_matrices(
            labels, {"a": labels, "b": 1 - labels}, CLASSES, title=tmp
        ),
    }


def test_every_function_sets_title_labels_and_white_paper(rng, runs, probes):
    drawn = every_function(rng, runs, probes)
    public = set(plots.__all__) - {"OKABE_ITO", "colour", "colours_for", "course_style", "show"}
    assert set(drawn) == public
    for name, result in drawn.items():
        axes = np.ravel(np.array(result, dtype=object))
        assert title_of(result) == "What the figure shows", name
        assert to_hex(axes[0].figure.get_facecolor()) == "#ffffff", name
        assert axes[0].figure.get_figwidth() == 7.5, name
        for ax in axes:
            named = ax.get_xlabel() or ax.get_title() or not ax.get_visible()
            assert named, f"{name} has an axis without a word"


def test_charts_name_both_axes(rng, runs, probes):
    drawn = every_function(rng, runs, probes)
    for name in ("class_counts", "history_curves", "roc", "learning_curves"):
        for ax in np.ravel(np.array(drawn[name], dtype=object)):
            assert ax.get_xlabel(), name
            assert ax.get_ylabel(), name
    decisions = ("precision_recall_curve", "reliability_curve")
    for name in ("score_bars", "stage_curves", "top_predictions", "confusion_matrix", *decisions):
        assert drawn[name].get_xlabel(), name
        assert drawn[name].get_ylabel(), name


def test_no_text_is_clipped_or_printed_over_another(rng, runs, probes):
    for name, result in every_function(rng, runs, probes).items():
        figure = np.ravel(np.array(result, dtype=object))[0].figure
        figure.canvas.draw()
        page = figure.bbox
        boxes = [
            (text.get_text(), text.get_window_extent())
            for text in visible_texts(figure)
            if text.get_text().strip()
        ]
        for words, box in boxes:
            assert box.x0 >= page.x0 - 1, (name, words)
            assert box.x1 <= page.x1 + 1, (name, words)
            assert box.y0 >= page.y0 - 1, (name, words)
            assert box.y1 <= page.y1 + 1, (name, words)
        for i, (words, box) in enumerate(boxes):
            for other, second in boxes[i + 1 :]:
                apart = not box.padded(-1.5).overlaps(second.padded(-1.5))
                assert apart, f"{name}: {words!r} over {other!r}"


def visible_texts(figure) -> list[matplotlib.text.Text]:
    found = list(figure.texts)
    for ax in figure.axes:
        if not ax.get_visible():
            continue
        found += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        found += ax.get_legend().get_texts() if ax.get_legend() else []
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            pairs = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
            found += [label for place, label in pairs if low <= place <= high]
    return found


@pytest.mark.parametrize("title", ["", "  ", None])
def test_a_figure_without_title_is_refused(runs, title):
    with pytest.raises(ValueError, match="title must say what the figure shows"):
        plots.learning_curves(runs, title=title)


def test_a_long_title_is_wrapped_and_gets_its_room(runs):
    short = plots.learning_curves(runs, title="Short").figure.get_figheight()
    ax = plots.learning_curves(runs, title="A finding " * 20)
    assert "\n" in title_of(ax)
    assert ax.figure.get_figheight() > short


def test_colours_have_one_meaning():
    meant = {
        "malignant": VERMILLION,
        "normal or benign": BLUE,
        "normal, benign": BLUE,
        "pretrained": GREEN,
        "ImageNet features": GREEN,
        "random network": GREY,
        "from scratch": GREY,
        "HOG": ORANGE,
        "pixels": SKY,
    }
    assert {name: plots.colour(name).lower() for name in meant} == meant
    assert plots.colour("brick") is None
    # A word inside another word means nothing.
    assert plots.colour("knowledgehog") is None


def test_a_name_has_its_colour_whatever_stands_beside_it():
    beside = colours_for(["grass", "pretrained", "brick", "random"])
    assert beside["pretrained"].lower() == GREEN
    assert beside["random"].lower() == GREY
    assert len(set(beside.values())) == 4
    assert colours_for(["pretrained"], {"pretrained": "#123456"}) == {"pretrained": "#123456"}


def test_more_names_than_colours_still_draw():
    assert len(colours_for([f"name {i}" for i in range(30)])) == 30


def test_text_in_a_colour_reads_on_white():
    for shade in plots.OKABE_ITO.values():
        rgb = np.array(matplotlib.colors.to_rgb(ink(shade)))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.49, shade


def test_style_is_left_behind_nowhere():
    before = dict(plt.rcParams)
    with plots.course_style():
        assert plt.rcParams["font.size"] == 11
        assert not plt.rcParams["axes.spines.top"]
    plots.roc([0, 1], np.eye(2), title="Perfect")
    assert dict(plt.rcParams) == before


def test_image_grid_tells_the_class_by_frame_and_text(rng):
    images = rng.integers(0, 255, (3, 8, 8), dtype=np.uint8)
    axes = plots.image_grid(
        images, [0, 1, 0], CLASSES, rows=2, cols=2, title="Three", captions=["a", "b", "c"]
    )
    assert axes.shape == (2, 2)
    assert [ax.get_xlabel() for ax in axes.ravel()[:3]] == [
        "malignant\na",
        "normal or benign\nb",
        "malignant\nc",
    ]
    frames = [to_hex(ax.spines["left"].get_edgecolor()) for ax in axes.ravel()[:3]]
    assert frames == [VERMILLION, BLUE, VERMILLION]
    assert [len(ax.images) for ax in axes.ravel()] == [1, 1, 1, 0]
    assert not axes[1, 1].get_visible()


def test_image_grid_draws_colour_and_grey_by_their_true_values(rng):
    colour = plots.image_grid(rng.random((1, 4, 4, 3)), rows=1, cols=1, title="Colour")[0, 0]
    assert colour.images[0].get_array().shape == (4, 4, 3)
    # A dark image must look dark: no stretching to its own extremes.
    dark = plots.image_grid(np.full((1, 4, 4), 51, np.uint8), rows=1, cols=1, title="Dark")[0, 0]
    assert dark.images[0].get_clim() == (0, 1)
    assert dark.images[0].get_array().max() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("images", "more", "message"),
    [
        (np.zeros((8, 8)), {}, r"expected images \(N, H, W\) or \(N, H, W, 3\), got \(8, 8\)"),
        (np.zeros((1, 3, 8, 8)), {}, r"got \(1, 3, 8, 8\)"),
        (np.zeros((1, 8, 8), int), {}, "uint8 or floats in 0..1, got int64"),
        (np.full((1, 8, 8), 255.0), {}, r"must lie in 0..1, found 255..255"),
        (np.zeros((3, 8, 8)), {}, "3 images do not fit 1 x 2"),
        (np.zeros((2, 8, 8)), {"labels": [0, 1]}, "labels and classes go together"),
        (np.zeros((2, 8, 8)), {"labels": [0], "classes": CLASSES}, r"expected labels \(2,\)"),
        (np.zeros((2, 8, 8)), {"labels": [0, 2], "classes": CLASSES}, "labels must lie in 0..1"),
        (np.zeros((2, 8, 8)), {"captions": ["one"]}, "expected 2 captions, one per image, got 1"),
    ],
)
def test_image_grid_says_what_is_wrong(images, more, message):
    with pytest.raises(ValueError, match=message):
        plots.image_grid(images, rows=1, cols=2, title="Wrong", **more)


def test_class_counts_bars_hold_the_counts():
    data = SimpleNamespace(
        classes=CLASSES, train=split(0, 1, 1, 1), val=split(1), test=split(0, 0, 1)
    )
    ax = plots.class_counts(data, title="Counts")
    assert [bar.get_height() for bar in ax.patches] == [1, 0, 2, 3, 1, 1]
    assert texts(ax) == ["1", "0", "2", "3", "1", "1"]
    assert [to_hex(bar.get_facecolor()) for bar in ax.patches[::3]] == [VERMILLION, BLUE]
    assert legend(ax) == list(CLASSES)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["training", "validation", "test"]


def test_history_takes_a_history_or_its_table():
    table = pd.DataFrame(
        {"epoch": [1, 2], "train_loss": [1, 0.5], "val_loss": [1, 0.7], "val_auc": [0.6, 0.8]}
    )
    loss, auc = plots.history_curves(SimpleNamespace(table=table), title="Falls")
    assert legend(loss) == ["training", "validation"]
    assert loss.lines[1].get_ydata().tolist() == [1, 0.7]
    assert "chance" in texts(auc)
    with pytest.raises(ValueError, match=r"history needs columns .*val_auc.*found \['epoch'"):
        plots.history_curves(table.drop(columns="val_auc"), title="Lacks")
    with pytest.raises(ValueError, match="history must hold at least one row"):
        plots.history_curves(table.head(0), title="Empty")


def test_roc_area_is_the_metric_for_either_class(rng):
    from tlcourse.metrics import auc

    labels = rng.integers(0, 2, 60)
    probs = probabilities(rng, labels)
    for positive in (0, 1):
        ax = plots.roc(labels, {"fine-tuned": probs}, positive=positive, title="Area")
        assert legend(ax) == [f"fine-tuned: AUC {auc(labels, probs):.2f}", "guessing: AUC 0.50"]
    assert ax.lines[-1].get_linestyle() == "--"


def test_roc_needs_both_kinds_of_images():
    with pytest.raises(ValueError, match="needs images of class 0 and of others"):
        plots.roc([1, 1], [[0.5, 0.5], [0.4, 0.6]], title="One class")


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall_curve])
def test_a_mark_stands_on_the_curve_and_says_its_figures(rng, draw):
    labels = rng.permutation([0] * 20 + [1] * 40)
    probs = probabilities(rng, labels)
    chosen = sensitivity_at_specificity(labels, probs, 0.9)
    half = at_threshold(labels, probs, 0.5)
    ax = draw(labels, {"a": probs}, title="Two points", mark={"90 %": chosen, "even": half})
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
    corners = np.stack(ax.lines[0].get_data(), axis=1)
    for line, point in zip(marks, (chosen, half), strict=True):
        place = (line.get_xdata()[0], line.get_ydata()[0])
        on_roc = (1 - point.specificity, point.sensitivity)
        assert place == (on_roc if draw is plots.roc else (point.sensitivity, point.precision))
        assert np.isclose(corners, place).all(axis=1).any()
    assert marks[0].get_marker() != marks[1].get_marker()
    assert f"90 %, threshold {chosen.threshold:.3f}:" in legend(ax)[-2]
    assert f"sensitivity {half.sensitivity:.2f}" in legend(ax)[-1]


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall_curve])
def test_a_mark_counted_on_other_predictions_is_refused(rng, draw):
    labels = np.array([0, 1] * 20)
    probs, others = probabilities(rng, labels), probabilities(rng, labels)
    point = at_threshold(labels, others[::-1], 0.4)
    with pytest.raises(ValueError, match="lies on none of the curves"):
        draw(labels, probs, title="Wrong", mark=point)
    with pytest.raises(ValueError, match="lies on none of the curves"):
        draw(labels[:20], probs[:20], title="Wrong", mark=at_threshold(labels, probs, 0.5))
    with pytest.raises(ValueError, match="positive=0"):
        draw(labels, probs, title="Wrong", mark=at_threshold(labels, probs, 0.5, positive=1))


def test_nobody_called_ill_has_a_place_on_the_roc_curve_alone(rng):
    labels = np.array([0, 1] * 20)
    probs = probabilities(rng, labels)
    nobody = at_threshold(labels, probs, np.inf)
    ax = plots.roc(labels, probs, title="Corner", mark=nobody)
    assert [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1] == [0]
    with pytest.raises(ValueError, match="no point where nobody is called ill"):
        plots.precision_recall_curve(labels, probs, title="Wrong", mark=nobody)


def test_precision_is_drawn_in_steps_whose_area_is_the_average_precision(rng):
    labels = rng.permutation([0] * 20 + [1] * 40)
    probs = np.round(probabilities(rng, labels), 1)  # ties
    ax = plots.precision_recall_curve(labels, {"HOG": probs}, title="Steps")
    expected = average_precision_score(labels == 0, probs[:, 0])
    assert legend(ax) == [f"HOG: average precision {expected:.2f}", "guessing: 0.33"]
    curve = ax.lines[0]
    assert curve.get_drawstyle() == "steps-pre"
    assert curve.get_xdata()[1:].tolist() == precision_recall(labels, probs)["recall"].tolist()
    assert np.sum(np.diff(curve.get_xdata()) * curve.get_ydata()[1:]) == pytest.approx(expected)


def test_reliability_shows_bins_with_intervals_and_the_calibration_error(rng):
    labels = rng.integers(0, 2, 200)
    probs = probabilities(rng, labels)
    several = {"before": probs, "after": apply_temperature(probs, 2)}
    ax = plots.reliability_curve(labels, several, title="Before and after", bins=8)
    gaps = [calibration_error(labels, rows, bins=8) for rows in several.values()]
    assert legend(ax) == [f"before: off by {gaps[0]:.2f}", f"after: off by {gaps[1]:.2f}", "honest"]
    table = reliability(labels, probs, 8)
    assert ax.lines[0].get_ydata().tolist() == table["observed"].tolist()
    segments = ax.containers[0].lines[2][0].get_segments()
    assert [s[:, 1].tolist() for s in segments] == table[["low", "high"]].to_numpy().tolist()
    assert ax.lines[0].get_marker() != ax.lines[3].get_marker()
    malignant = plots.reliability_curve(labels, probs, title="One class", positive=0)
    assert malignant.get_xlabel() == "predicted probability of malignant"
    assert malignant.get_xlim()[0] < 0 < ax.get_xlim()[0]


def test_learning_curves_draw_means_and_intervals(runs):
    ax = plots.learning_curves(runs, title="More is better", chance=0.5)
    assert line_colours(ax)[:1] == [GREEN]
    first = ax.lines[0].get_ydata()
    chosen = runs[(runs.method == "pretrained") & (runs.images == 50)]["auc"]
    assert first[0] == pytest.approx(mean_interval(chosen.to_numpy()).estimate)
    assert len(ax.containers) == 3
    assert {"pretrained", "HOG", "pixels", "chance"} <= set(texts(ax))
    assert ax.get_ylabel() == "test AUC, 95 % interval"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["50", "100", "200"]


def test_learning_curves_without_interval_say_so(runs):
    ax = plots.learning_curves(runs, title="Means", interval=False)
    assert not ax.containers
    assert ax.get_ylabel() == "test AUC"
    single = plots.learning_curves(runs.drop_duplicates(["images", "method"]), title="One run")
    assert not single.containers
    assert single.get_ylabel() == "test AUC"


def test_known_intervals_are_drawn_as_given():
    frame = pd.DataFrame(
        {"images": [50, 100], "auc": [0.7, 0.8], "method": "HOG", "low": [0.6, 0.7], "high": 0.9}
    )
    ax = plots.learning_curves(frame, title="Given")
    segments = ax.containers[0].lines[2][0].get_segments()
    assert [segment[:, 1].round(6).tolist() for segment in segments] == [[0.6, 0.9], [0.7, 0.9]]


def test_reference_is_dashed_and_guess_is_a_star(runs):
    reference = runs.drop_duplicates(["images", "method"])
    ax = plots.learning_curves(
        runs, title="Beside", reference=reference, reference_name="real images", guess=(100, 0.7)
    )
    assert legend(ax) == ["real images", "your guess"]
    dashed = [to_hex(line.get_color()) for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed[:3] == [GREEN, ORANGE, SKY]
    star = next(line for line in ax.lines if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (100, 0.7)
    assert to_hex(star.get_color()) == YELLOW


def test_no_guess_draws_no_star(runs):
    ax = plots.learning_curves(runs, title="None")
    assert "*" not in [line.get_marker() for line in ax.lines]
    assert ax.get_legend() is None


def test_neighbouring_sizes_do_not_print_over_each_other():
    frame = pd.DataFrame({"images": [50, 540, 546], "auc": 0.8, "method": "HOG"})
    ax = plots.learning_curves(frame, title="Close")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["50", "", "546"]


def test_end_labels_of_equal_scores_stand_apart_in_order():
    frame = pd.DataFrame(
        {"images": 100, "auc": [0.8, 0.801, 0.802], "method": ["pixels", "HOG", "pretrained"]}
    )
    ax = plots.learning_curves(frame, title="Equal")
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert heights["pixels"] + 0.03 < heights["HOG"] < heights["pretrained"] - 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"auc": "AUC"}), r"frame needs columns .* found .*'AUC'"),
        (lambda f: f.head(0), "at least one row"),
        (lambda f: f.assign(images=0), "sizes in column 'images' must be above 0"),
        (lambda f: f.assign(auc=np.nan), "must hold no missing value"),
    ],
)
def test_learning_curves_say_what_is_wrong(runs, change, message):
    with pytest.raises(ValueError, match=message):
        plots.learning_curves(change(runs), title="Wrong")


def test_intervals_over_folds_are_the_honest_ones():
    scores = [0.7, 0.8, 0.9, 0.7, 0.8, 0.9]
    runs = pd.DataFrame({"images": 50, "stage": "stem", "auc": scores, "name": "ImageNet"})
    for draw in (plots.learning_curves, partial(plots.stage_curves, x="stage", y="auc")):
        spread = []
        for folds in (None, 3):
            ax = draw(runs, group="name", title="Folds", folds=folds)
            low, high = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
            spread.append(high - low)
        expected = [np.ptp(f(scores)[1:]) for f in (mean_interval, partial(fold_interval, folds=3))]
        assert spread == pytest.approx(expected)
    with pytest.raises(ValueError, match="expected 4 scores for each dealing"):
        plots.learning_curves(runs, group="name", title="Wrong", folds=4)


def test_a_published_curve_may_stand_alone_on_a_given_axis(runs):
    ax = plots.learning_curves(None, reference=runs, title="Published", ylim=(0.4, 1), chance=0.5)
    assert ax.get_ylim() == (0.4, 1)
    drawn = [line for line in ax.lines if len(line.get_xdata()) > 2 or line.get_label() == "chance"]
    assert all(line.get_linestyle() == "--" for line in drawn)
    assert "published" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert set(runs["method"]) <= set(texts(ax))
    assert "interval" not in ax.get_ylabel()
    with pytest.raises(ValueError, match="a frame, a reference or both"):
        plots.learning_curves(None, title="Nothing")


def test_stage_curves_keep_the_order_of_the_network(probes):
    ax = plots.stage_curves(probes, title="Order", guess=("stage1", 0.6))
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["stem", "stage1", "head"]
    star = next(line for line in ax.lines if line.get_marker() == "*")
    assert star.get_xdata()[0] == 1
    assert {"edge orientation", "texture", "cancer"} <= set(texts(ax))
    assert len({line.get_marker() for line in ax.lines[:3]}) == 3 or len(ax.containers) == 3


def test_stage_curves_draw_one_line_of_chance(probes):
    assert texts(plots.stage_curves(probes, title="Chance", chance=0.5)).count("chance") == 1


def test_stage_curves_refuse_unknown_names(probes):
    with pytest.raises(ValueError, match="guess names 'stage9'; the frame has"):
        plots.stage_curves(probes, title="Wrong", guess=("stage9", 0.5))
    other = probes.assign(stage="layer1")
    with pytest.raises(ValueError, match="reference names 'layer1'"):
        plots.stage_curves(probes, title="Wrong", reference=other)


def test_score_bars_write_their_intervals():
    scores = {"pretrained": Interval(0.9, 0.85, 0.94), "random": Interval(0.7, 0.6, 0.8)}
    ax = plots.score_bars(scores, title="Written")
    assert texts(ax) == ["0.90 [0.85, 0.94]", "0.70 [0.60, 0.80]"]
    assert line_colours(ax) == [GREEN, GREEN, GREY, GREY]
    assert ax.get_legend() is None


def test_score_bars_mark_reference_guess_and_chance():
    ax = plots.score_bars(
        {"pretrained": Interval(0.9, 0.85, 0.94), "HOG": Interval(0.7, 0.6, 0.8)},
        title="Marks",
        reference={"HOG": 0.72},
        guess={"pretrained": 0.8},
        chance=0.5,
    )
    assert legend(ax) == ["published", "your guess", "chance"]
    diamond = next(line for line in ax.lines if line.get_marker() == "D")
    assert (diamond.get_xdata()[0], diamond.get_ydata()[0]) == (0.72, 1)


@pytest.mark.parametrize(
    ("scores", "more", "message"),
    [
        ({}, {}, "at least one name"),
        ({"HOG": Interval(0.9, 0.1, 0.2)}, {}, "estimate of 'HOG' lies outside its interval"),
        ({"HOG": Interval(0.7, 0.6, 0.8)}, {"guess": {"hog": 0.5}}, "guess names 'hog'"),
        ({"HOG": Interval(0.7, 0.6, 0.8)}, {"reference": {"x": 0.5}}, "reference names 'x'"),
    ],
)
def test_score_bars_say_what_is_wrong(scores, more, message):
    with pytest.raises(ValueError, match=message):
        plots.score_bars(scores, title="Wrong", **more)


def test_filters_are_scaled_each_with_zero_as_mid_grey():
    filters = np.zeros((4, 3, 5, 5))
    filters[:3, 0, 0, 0] = 1.0, -8.0, 0.001
    ax = plots.filters_grid(filters, title="Scaled")
    assert len(ax.images) == 4
    tiles = [image.get_array() for image in ax.images]
    assert tiles[0][0, 0].tolist() == [1, 0.5, 0.5]
    assert tiles[1][0, 0].tolist() == [0, 0.5, 0.5]
    assert np.unique(tiles[3]).tolist() == [0.5]
    assert np.abs(tiles[2] - 0.5).max() < 0.01  # a dead one is not brightened to look alive


def test_filters_are_counted_in_their_rows(rng):
    ax = plots.filters_grid(rng.normal(size=(64, 3, 7, 7)), title="Sixty-four")
    rows = [tick.get_text() for tick in ax.get_yticklabels()]
    assert rows == ["0 to 15", "16 to 31", "32 to 47", "48 to 63"]
    with pytest.raises(ValueError, match=r"expected filters \(K, 3, h, w\), got \(8, 1, 3, 3\)"):
        plots.filters_grid(np.zeros((8, 1, 3, 3)), title="Grey")


def test_responses_share_one_scale_and_signs_get_a_neutral_zero(rng):
    image = rng.random((8, 8))
    axes = plots.response_grid(image, rng.normal(size=(6, 4, 4)), [1, 5], title="Signed")
    low, high = axes[1].images[0].get_clim()
    assert low == -high
    assert axes[2].images[0].get_clim() == (low, high)
    positive = plots.response_grid(image, rng.random((6, 4, 4)), [0], title="Positive")
    assert positive[1].images[0].get_clim()[0] == 0
    bar = axes[0].figure.axes[-1]
    assert bar.get_ylabel() == "response (no unit)"


def test_response_grid_says_what_is_wrong(rng):
    with pytest.raises(ValueError, match=r"channels must name some of 0..5, got \[6\]"):
        plots.response_grid(rng.random((8, 8)), rng.random((6, 4, 4)), [6], title="Wrong")
    with pytest.raises(ValueError, match=r"expected responses \(C, h, w\), got \(1, 6, 4, 4\)"):
        plots.response_grid(rng.random((8, 8)), rng.random((1, 6, 4, 4)), [0], title="Wrong")


def test_activation_stages_pick_the_channels_that_vary_most(rng):
    maps = np.zeros((4, 8, 8))
    maps[2, :4], maps[1, :4], maps[3] = 5, 3, 100
    axes = plots.activation_stages(
        rng.random((8, 8)), {"stem": maps, "stage1": np.ones((1, 2, 2))}, title="Vary", channels=2
    )
    assert axes.shape == (2, 3)
    assert [ax.get_xlabel() for ax in axes[:, 1]] == ["channel 2", "channel 1"]
    assert axes[0, 1].get_title() == "stem\n8 x 8"
    # The second stage has one channel only: the place for another stays empty.
    assert not axes[1, 2].get_visible()
    with pytest.raises(ValueError, match="at least one stage"):
        plots.activation_stages(rng.random((8, 8)), {}, title="None")
    with pytest.raises(ValueError, match=r"stage 'stem' \(C, h, w\), got \(4,\)"):
        plots.activation_stages(rng.random((8, 8)), {"stem": np.ones(4)}, title="Wrong")


def test_patches_stand_in_a_row_per_name(rng):
    patches = rng.random((9, 6, 6))
    rows = plots.patch_grid({"channel 1": patches, "channel 2": patches}, title="Rows")
    assert len(rows.images) == 18
    assert [tick.get_text() for tick in rows.get_yticklabels()] == ["channel 1", "channel 2"]
    with pytest.raises(ValueError, match="patches of one shape"):
        plots.patch_grid({"a": patches, "b": patches[:4]}, title="Uneven")


def test_heat_map_covers_the_image_and_explains_its_colours(rng):
    plain, under = plots.heat_map(
        rng.random((16, 12)), rng.random((4, 3)), title="Heat", label="fall of P(malignant)"
    )
    assert len(plain.images) == 1
    assert under.images[1].get_extent() == under.images[0].get_extent()
    assert [ax.get_ylabel() for ax in plain.figure.axes][-1] == "fall of P(malignant)"
    with pytest.raises(ValueError, match=r"finite map \(h, w\), got \(1, 4, 4\)"):
        plots.heat_map(rng.random((8, 8)), np.ones((1, 4, 4)), title="Wrong", label="p")
    with pytest.raises(ValueError, match="label must say"):
        plots.heat_map(rng.random((8, 8)), np.ones((4, 4)), title="Wrong", label=" ")


def test_top_answers_are_sorted_and_not_zoomed():
    ax = plots.top_predictions([0.05, 0.6, 0.05, 0.3], list("abcd"), title="Answers", k=3)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["b", "d", "a"]
    assert texts(ax) == ["60.0 %", "30.0 %", "5.0 %"]
    assert ax.get_xlim() == (0, 1)
    rare = plots.top_predictions([0.9996, 0.0004], ["a", "b"], title="Sure", k=2)
    assert texts(rare) == ["100.0 %", "< 0.1 %"]
    with pytest.raises(ValueError, match=r"expected probs \(3,\), one per name, got \(1, 3\)"):
        plots.top_predictions([[0.1, 0.2, 0.7]], list("abc"), title="Wrong")
    with pytest.raises(ValueError, match=r"k must lie in 1..3, got 5"):
        plots.top_predictions([0.1, 0.2, 0.7], list("abc"), title="Wrong")


def test_top_answers_show_the_image_clear_of_the_bars(rng):
    for probs in ([0.97, 0.01, 0.01, 0.005, 0.005], [0.2] * 5):
        ax = plots.top_predictions(
            probs, list("abcde"), title="A cup", image=rng.random((8, 12, 3))
        )
        ax.figure.canvas.draw()
        (picture,) = ax.child_axes
        assert picture.images[0].get_array().shape == (8, 12, 3)
        place = picture.get_window_extent()
        drawn = [*ax.patches, *ax.texts]
        assert not any(place.overlaps(thing.get_window_extent()) for thing in drawn)
    with pytest.raises(ValueError, match="expected images"):
        plots.top_predictions([0.2, 0.8], ["a", "b"], title="Wrong", k=2, image=rng.random(8))


def test_confusion_counts_rows_by_truth():
    ax = plots.confusion_matrix([0, 0, 0, 1], [0, 1, 1, 1], CLASSES, title="Counts")
    assert texts(ax) == ["1\n33 %", "2\n67 %", "0\n0 %", "1\n100 %"]
    assert (ax.get_xlabel(), ax.get_ylabel()[:10]) == ("answered class", "true class")


def test_confusions_stand_side_by_side_under_their_names():
    predicted = {"timid": [1, 1, 1, 1], "bold": [0, 0, 1, 0]}
    axes = plots.confusion_matrices([0, 0, 0, 1], predicted, CLASSES, title="Two heads")
    assert [ax.get_title() for ax in axes] == ["timid", "bold"]
    assert texts(axes[0]) == ["0\n0 %", "3\n100 %", "0\n0 %", "1\n100 %"]
    assert texts(axes[1])[0] == "2\n67 %"
    with pytest.raises(ValueError, match="one model or more"):
        plots.confusion_matrices([0], {}, CLASSES, title="None")


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (np.eye(2), r"got \(2,\), \(2, 2\); of probabilities take probs.argmax\(axis=1\)"),
        ([0.1, 0.9], "predictions must be class numbers, got float64"),
        ([0, 2], r"predictions must lie in 0..1"),
    ],
)
def test_confusion_says_what_is_wrong(predictions, message):
    with pytest.raises(ValueError, match=message):
        plots.confusion_matrix([0, 1], predictions, CLASSES, title="Wrong")


def test_show_does_nothing_outside_notebooks(runs, capsys):
    ax = plots.learning_curves(runs, title="Seen by nobody")
    assert plots.show(ax, alt="A line") is None
    assert plt.get_fignums() == [ax.figure.number]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_show_needs_alt_text_everywhere(alt):
    with pytest.raises(ValueError, match="alt must describe the figure"):
        plots.show(plt.figure(), alt=alt)
    with pytest.raises(ValueError, match="alt must describe the figure"):
        plots.show(plt.figure())


@pytest.mark.parametrize("target", [None, "figure", [], [1, 2]])
def test_show_refuses_what_is_no_figure(target):
    with pytest.raises(TypeError, match="show needs axes or a figure, got"):
        plots.show(target, alt="Nothing")


@pytest.fixture
def shown(monkeypatch) -> list[dict[str, str]]:
    bundles: list[dict[str, str]] = []
    monkeypatch.setattr(sys.modules[plots.show.__module__], "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def test_show_sends_one_picture_with_escaped_alt_and_closes_it(runs, shown):
    ax = plots.learning_curves(runs, title="Seen")
    assert plots.show(ax, alt='AUC > 0.9 &\n "green" wins') is None
    assert plt.get_fignums() == []
    (bundle,) = shown
    assert bundle["text/plain"] == 'AUC > 0.9 &\n "green" wins'
    assert 'alt="AUC &gt; 0.9 &amp; &quot;green&quot; wins"' in bundle["text/html"]
    data = re.search(r'src="data:image/png;base64,([^"]+)"', bundle["text/html"])[1]
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert 700 < picture.width < 900
    assert picture.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_show_takes_axes_arrays_lists_and_figures(rng, shown):
    grid = plots.image_grid(rng.random((2, 8, 8)), rows=1, cols=2, title="Two")
    plots.show(grid, alt="Two images")
    plots.show(list(plt.subplots(1, 2)[1]), alt="Two axes")
    plots.show(plt.figure(), alt="A figure")
    assert len(shown) == 3
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_a_real_kernel_shows_a_figure_once_and_nbconvert_keeps_its_alt_text():
    code = (
        "%matplotlib inline\n"
        "from tlcourse import plots\n"
        "ax = plots.top_predictions([0.2, 0.8], ['cat', 'cup'], k=2, title='A cup')\n"
        "plots.show(ax, alt='Bars: cup 80 %, cat 20 %')"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    root = Path(plots.__file__).parents[2]
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(root)}}
    ).execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data["text/plain"] == "Bars: cup 80 %, cat 20 %"
    page, _ = HTMLExporter().from_notebook_node(notebook)
    (picture,) = re.findall(r"<img[^>]+>", page)
    assert 'alt="Bars: cup 80 %, cat 20 %"' in picture
    assert 'src="data:image/png;base64,' in picture


def test_a_guess_left_blank_draws_no_star():
    frame = pd.DataFrame({"images": [50, 100], "auc": [0.8, 0.9], "method": "pixels"})
    ax = plots.learning_curves(frame, title="t", guess=(50, ...))
    assert "your guess" not in {line.get_label() for line in ax.lines}
    bars = plots.score_bars({"a": Interval(0.8, 0.7, 0.9)}, title="t", guess={"a": ...})
    assert bars.get_legend() is None


def test_bars_of_one_meaning_share_its_colour():
    scores = {name: Interval(0.8, 0.7, 0.9) for name in ("pretrained, here", "pretrained, there")}
    ax = plots.score_bars(scores, title="t")
    assert len({line.get_color() for line in ax.lines if line.get_marker() == "o"}) == 1
