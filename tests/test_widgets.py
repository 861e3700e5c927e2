"""Explorers: what a control changes is shown; they are labelled, closed, and leave no trace."""

import re
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from torchvision.models import shufflenet_v2_x0_5

from tlcourse import widgets
from tlcourse.backbones import stages
from tlcourse.freezing import freeze
from tlcourse.freezing.costs import estimate
from tlcourse.freezing.report import count_trainable
from tlcourse.widgets import Explorer, explore_freezing, explore_rates, explorers
from tlcourse.widgets.controls import buttons, choice_slider
from tlcourse.widgets.explorers import DECAY, TWO, UNIFORM

NAMES = ["stem", "stage1", "stage2", "stage3", "head"]


@pytest.fixture(scope="module")
def model():
    return shufflenet_v2_x0_5(num_classes=2)


@pytest.fixture
def costs(model):
    counts = [sum(p.numel() for p in s.parameters()) for s in stages(model).values()]
    figures = {
        "activation_mb": [8.0, 4.0, 2.0, 1.0, 0.5],
        "output_mb": [0.5, 0.4, 0.3, 0.2, 0.0],
        "forward_seconds": [0.02] * 5,
        "backward_seconds": [0.04] * 5,
        "frozen_seconds": [0.01] * 5,
    }
    return pd.DataFrame({"parameters": counts} | figures, pd.Index(NAMES, name="stage"))


@pytest.fixture
def known_costs(costs, monkeypatch):
    monkeypatch.setattr(explorers, "stage_costs", lambda _model, **_: costs)


@pytest.fixture
def freezing_explorer(model, known_costs):
    explorer = explore_freezing(model, images=100)
    explorer.controls["Batch size"].value = 16
    return explorer


@pytest.fixture
def rates_explorer(model):
    return explore_rates(model)


@pytest.fixture(params=["freezing_explorer", "rates_explorer"])
def explorer(request):
    return request.getfixturevalue(request.param)


def pictures(page):
    return re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', page)


def rows(page):
    return dict(re.findall(r"<tr><th[^>]*>([^<]+)</th><td>([^<]+)</td></tr>", page))


def other_value(control):
    if isinstance(control, ipywidgets.IntSlider):
        return control.value + control.step
    values = [option[1] if isinstance(option, tuple) else option for option in control.options]
    return next(value for value in values if value != control.value)


def test_every_control_has_a_label_of_its_own_and_is_of_a_kind_the_keyboard_reaches(explorer):
    found = [child for child in explorer.children if child is not explorer.shown]
    assert found == list(explorer.controls.values())
    for control in found:
        assert control.description.strip()
        # Measured in JupyterLab 4.6: the arrow keys never reach a Dropdown in an output.
        assert isinstance(
            control, ipywidgets.IntSlider | ipywidgets.SelectionSlider | ipywidgets.ToggleButtons
        )
    assert len({control.description for control in found}) == len(found)


def test_every_control_that_is_in_use_changes_what_is_shown(explorer):
    for name, control in explorer.controls.items():
        if getattr(control, "disabled", False):
            continue
        before = explorer.shown.value
        control.value = other_value(control)
        assert explorer.shown.value != before, name


def test_sliders_wait_until_they_are_let_go(explorer):
    sliders = [c for c in explorer.controls.values() if hasattr(c, "continuous_update")]
    assert len(sliders) >= 4
    assert not any(slider.continuous_update for slider in sliders)


def test_all_figures_are_closed_and_have_a_text(explorer):
    assert plt.get_fignums() == []
    for control in explorer.controls.values():
        control.value = other_value(control)
        assert plt.get_fignums() == []
    found = pictures(explorer.shown.value)
    assert len(found) in (1, 2)
    assert all("learning rate" in alt for _, alt in found)


def test_figures_of_the_reader_stay_open_and_current(explorer):
    own = plt.figure()
    try:
        control = explorer.controls["Warmup steps"]
        control.value = 20
        assert plt.get_fignums() == [own.number]
        assert plt.gcf() is own
    finally:
        plt.close(own)


def test_two_explorers_do_not_share_anything(model, known_costs):
    first, second = (explore_freezing(model, images=100) for _ in range(2))
    before = second.shown.value
    first.controls["Frozen through"].value = "stage1"
    assert second.controls["Frozen through"].value == "nothing"
    assert second.shown.value == before != first.shown.value


def test_the_model_and_the_generators_stay_as_they_were(explorer, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [(p.requires_grad, p.grad) for p in model.parameters()]
    drawn = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for control in explorer.controls.values():
        control.value = other_value(control)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert flags == [(p.requires_grad, p.grad) for p in model.parameters()]
    assert torch.equal(drawn[0], torch.get_rng_state())
    assert np.array_equal(drawn[1], np.random.get_state()[1])  # noqa: NPY002


def test_the_output_of_a_cell_holds_the_widget_and_a_page_without_it(explorer):
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/html"] == explorer.shown.value
    assert bundle["text/plain"]


def test_freezing_shows_what_the_costs_say(freezing_explorer, costs):
    for through in ("nothing", *NAMES[:-1]):
        freezing_explorer.controls["Frozen through"].value = through
        found = estimate(
            costs, through=None if through == "nothing" else through, images=100, batch_size=16
        )
        shown = rows(freezing_explorer.shown.value)
        total = int(costs["parameters"].sum())
        assert shown["Trainable parameters"].startswith(f"{found.trainable:,} of {total:,} (")
        memory = [float(word) for word in re.findall(r"\d[\d.]*", shown["Memory"])]
        assert memory[0] == pytest.approx(found.memory_mb, rel=0.06)
        assert memory[0] == pytest.approx(sum(memory[1:]), rel=0.06)
        assert float(shown["Seconds per epoch"]) == pytest.approx(found.epoch_seconds, rel=0.06)
        cached = shown.get("Seconds per epoch, frozen part cached")
        if through == "nothing":
            assert cached is None
            continue
        figures = [float(word) for word in re.findall(r"\d[\d.]*", cached)]
        expected = [found.cached_epoch_seconds, found.caching_seconds, found.cache_mb]
        assert figures == pytest.approx(expected, rel=0.06)


def test_the_batch_size_changes_memory_and_steps(freezing_explorer):
    before = rows(freezing_explorer.shown.value)
    freezing_explorer.controls["Batch size"].value = 32
    after = rows(freezing_explorer.shown.value)
    assert (before["Epochs"], after["Epochs"]) == ("14 of 7 steps each", "25 of 4 steps each")
    assert before["Memory"] != after["Memory"]
    assert before["Trainable parameters"] == after["Trainable parameters"]


def test_freezing_names_what_moves_and_draws_the_schedule(freezing_explorer):
    ((_, alt),) = pictures(freezing_explorer.shown.value)
    assert "From zero to the full rate in 10 steps, then down to zero at step 100" in alt
    assert "stem to head 0.001" in alt
    freezing_explorer.controls["Frozen through"].value = "stage2"
    assert "Full rates: stage3 to head 0.001" in freezing_explorer.shown.value
    freezing_explorer.controls["Frozen through"].value = "stage3"
    assert "Full rates: head 0.001" in freezing_explorer.shown.value
    freezing_explorer.controls["Warmup steps"].value = 0
    assert "Full rate at once" in freezing_explorer.shown.value


def test_warmup_never_outlasts_the_training(explorer):
    explorer.controls["Warmup steps"].value = 90
    explorer.controls["Total steps"].value = 50
    assert explorer.controls["Warmup steps"].value == explorer.controls["Warmup steps"].max == 50
    assert "in 50 steps, then down to zero at step 50" in explorer.shown.value
    explorer.controls["Total steps"].value = 200
    assert explorer.controls["Warmup steps"].max == 200


def test_costs_are_measured_once_when_the_explorer_is_made(model, costs, monkeypatch):
    calls = []

    def measure(_model, *, size):
        calls.append(size)
        return costs

    monkeypatch.setattr(explorers, "stage_costs", measure)
    explorer = explore_freezing(model, images=100, size=64)
    for control in explorer.controls.values():
        control.value = other_value(control)
    assert calls == [64]


def test_a_network_is_really_measured(model):
    explorer = explore_freezing(model, images=100, size=32)
    assert float(rows(explorer.shown.value)["Seconds per epoch"]) > 0


def test_rates_are_those_of_param_groups(rates_explorer):
    def given():
        return pictures(rates_explorer.shown.value)[0][1].removesuffix(".").split(": ")[1]

    assert given() == "stem 0.001, stage1 0.001, stage2 0.001, stage3 0.001, head 0.001"
    rates_explorer.controls["Rates given as"].value = TWO
    assert given() == "stem 0.0001, stage1 0.0001, stage2 0.0001, stage3 0.0001, head 0.001"
    rates_explorer.controls["Backbone rate"].value = 1e-5
    assert given().startswith("stem 1e-05,")
    rates_explorer.controls["Rates given as"].value = DECAY
    assert given() == "stem 2.2e-05, stage1 5.7e-05, stage2 0.00015, stage3 0.00038, head 0.001"
    rates_explorer.controls["Decay factor"].value = 1 / 2
    rates_explorer.controls["Head rate"].value = 1e-2
    assert given() == "stem 0.00063, stage1 0.0013, stage2 0.0025, stage3 0.005, head 0.01"


def test_only_the_rates_in_use_can_be_turned(rates_explorer):
    controls = rates_explorer.controls

    def disabled():
        return controls["Backbone rate"].disabled, controls["Decay factor"].disabled

    assert disabled() == (True, True)
    controls["Rates given as"].value = TWO
    assert disabled() == (False, True)
    controls["Rates given as"].value = DECAY
    assert disabled() == (True, False)


def test_frozen_stages_are_shown_as_frozen_and_counted_so():
    model = freeze(shufflenet_v2_x0_5(num_classes=2), through="stage2")
    explorer = explore_rates(model)
    left = f"{count_trainable(model):,} of "
    assert rows(explorer.shown.value)["Trainable parameters"].startswith(left)
    for way in (UNIFORM, TWO, DECAY):
        explorer.controls["Rates given as"].value = way
        alt = pictures(explorer.shown.value)[0][1]
        assert "stem frozen, stage1 frozen, stage2 frozen, stage3 0.0" in alt


@pytest.mark.parametrize("way", [UNIFORM, TWO, DECAY])
def test_a_network_of_which_only_the_head_moves_has_one_rate(way):
    explorer = explore_rates(freeze(shufflenet_v2_x0_5()))
    explorer.controls["Rates given as"].value = way
    alts = [alt for _, alt in pictures(explorer.shown.value)]
    assert alts[0].endswith("stage3 frozen, head 0.001.")
    assert alts[1].endswith("Full rates: head 0.001.")


@pytest.mark.usefixtures("known_costs")
def test_too_few_images_are_named(model):
    with pytest.raises(ValueError, match="got 1 images"):
        explore_freezing(model, images=1)
    assert plt.get_fignums() == []


def test_a_frozen_head_is_named():
    with pytest.raises(ValueError, match="head is frozen"):
        explore_rates(freeze(shufflenet_v2_x0_5(), through="head"))


def test_controls_without_a_label_or_with_the_same_are_refused():
    with pytest.raises(ValueError, match=r"description of its own for each control, got \[''\]"):
        Explorer([ipywidgets.IntSlider()], str)
    twice = [buttons("A", ["x"]), choice_slider("A", [("x", 1)], 1)]
    with pytest.raises(ValueError, match=r"got \['A', 'A'\]"):
        Explorer(twice, str)


@pytest.mark.slow
def test_in_a_kernel_without_a_front_end_explorers_just_run():
    code = (
        "%matplotlib inline\n"
        "from torchvision.models import shufflenet_v2_x0_5\n"
        "from tlcourse.widgets import explore_freezing, explore_rates\n"
        "model = shufflenet_v2_x0_5(num_classes=2)\n"
        "explorer = explore_freezing(model, images=100, size=32)\n"
        "explorer.controls['Frozen through'].value = 'stage1'\n"
        "explorer"
    )
    cells = [nbformat.v4.new_code_cell(text) for text in (code, "explore_rates(model)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    root = Path(widgets.__file__).parents[2]
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(root)}}
    ).execute()
    for cell, count in zip(notebook.cells, (1, 2), strict=True):
        (output,) = cell.outputs  # the explorer alone: no figure is shown a second time
        assert output.output_type == "execute_result"
        assert len(pictures(output.data["text/html"])) == count
    assert "stage2 to head" in notebook.cells[0].outputs[0].data["text/html"]
