"""Strategies are data; one run of each gives comparable scores."""

import dataclasses
import inspect
import math
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from studies import images
from studies import strategies as study
from studies.full import run_full
from studies.starts import run_start
from studies.strategies import run_strategy
from tests.test_training import an_image_set
from tlcourse.backbones import load_backbone
from tlcourse.experiments import Grid
from tlcourse.freezing import freeze, frozen_stages
from tlcourse.optim import OptimizerWarning
from tlcourse.training.strategies import (
    STRATEGIES,
    Strategy,
    fitted_to,
    get_strategy,
    starting_model,
)

GRIDS = sorted((Path(__file__).parents[1] / "studies").glob("*.toml"))
WRITTEN = {
    entry["name"]: entry
    for grid in GRIDS
    for entry in tomllib.loads(grid.read_text(encoding="utf-8"))["factors"]["strategy"]
}
NAMES = (
    "scratch", "frozen", "cold", "warmup", "lp_ft", "discriminative", "decay", "gradual",
    "warmup_discriminative",
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A small set in place of the breast images, and one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(images, "load_images", lambda *_, **__: an_image_set(train=24))
    monkeypatch.setattr(study, "COMPARED", 8)
    images.image_set.cache_clear()
    images.shifted.cache_clear()
    yield
    images.image_set.cache_clear()
    images.shifted.cache_clear()
    torch.set_num_threads(before)


def run(name, **options):
    given = {"images": 16, "seed": 0, "lr": 1e-3, "steps": 4, "size": 32, **options}
    return run_strategy(WRITTEN[name], **given)


def test_the_written_grids_hold_the_nine_strategies():
    assert GRIDS
    assert tuple(WRITTEN) == NAMES
    for path in GRIDS:
        assert Grid.from_file(path).function == "studies.strategies:run_strategy"


def test_the_package_has_the_nine_that_the_grids_hold():
    assert tuple(STRATEGIES) == NAMES
    model = load_backbone("mobilenet_v2", weights=None)  # what all grids are written for
    for grid in GRIDS:
        for entry in tomllib.loads(grid.read_text(encoding="utf-8"))["factors"]["strategy"]:
            written = dataclasses.replace(Strategy.from_data(entry), lr=None)
            assert written == fitted_to(get_strategy(written.name), model)
    with pytest.raises(ValueError, match=r"expected a strategy of scratch, .*; got 'hot'"):
        get_strategy("hot")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings(f"error::{OptimizerWarning.__module__}.{OptimizerWarning.__name__}")
def test_every_written_strategy_runs_and_scores(name):
    scores = run(name)
    assert scores["steps"] == 4
    assert 0 <= scores["auc"] <= 1
    assert all(math.isfinite(value) for value in scores.values())
    assert scores["drift/head"] > 0
    assert (scores["drift/stem"] > 0) == (name != "frozen")
    assert (scores["cka/stage5"] > 0.999) == (name == "frozen")
    assert scores["grad/head"] > 0


def test_what_starts_frozen_sends_no_gradient_down_at_first():
    assert run("lp_ft")["grad/backbone"] < run("cold")["grad/backbone"]
    assert run("frozen")["grad/backbone"] == 0


class Shut(np.ndarray):
    """Images that say their shape and nothing else: whoever reads one gets an error."""

    def _read(self, *_, **__):
        raise AssertionError("a test image was read")

    __getitem__ = __iter__ = __array__ = __array_ufunc__ = __array_function__ = _read
    astype = copy = tobytes = view = reshape = transpose = mean = _read


def with_shut_test(data):
    """Return a set whose test images cannot be read."""
    return dataclasses.replace(
        data, test=dataclasses.replace(data.test, images=data.test.images.view(Shut))
    )


RUNS = {
    "strategy": lambda **test: run("frozen", **test),
    "start": lambda **test: run_start("small", 16, 0, 1e-3, steps=4, size=32, **test),
    "full": lambda **test: run_full(0, 1e-3, "flip", epochs=1, size=32, **test),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_choose_touch_no_test_image(monkeypatch, name):
    shut = with_shut_test(an_image_set(train=24))
    monkeypatch.setattr(images, "load_images", lambda *_, **__: shut)
    row = RUNS[name](test=False)
    assert {"val_auc", "val_loss"} <= set(row)
    assert not {"auc", "loss"} & set(row)
    with pytest.raises(AssertionError, match="a test image was read"):
        RUNS[name](test=True)


def test_runs_that_choose_touch_no_shifted_or_spoiled_test_image(monkeypatch):
    simulated = dataclasses.replace(an_image_set(train=24), simulated=True)
    monkeypatch.setattr(images, "load_images", lambda *_, **__: with_shut_test(simulated))
    row = run("frozen", test=False, shifts=["blur"], corruptions=["blur@5"])
    assert "val_auc" in row
    assert not [name for name in row if "blur" in name]


def test_every_run_with_a_choice_of_test_images_is_among_those_that_were_tried():
    """A new run function with `test` needs its line in `RUNS`."""
    folder = Path(study.__file__).parent
    found = {
        name
        for path in folder.glob("*.py")
        for name, function in vars(import_module(f"studies.{path.stem}")).items()
        if name.startswith("run_") and "test" in inspect.signature(function).parameters
    }
    assert found == {f"run_{name}" for name in RUNS}


def test_the_rate_written_into_a_strategy_is_the_one_it_gets():
    entry = WRITTEN["cold"]
    given = {"images": 16, "seed": 0, "steps": 2, "size": 32}
    by_entry = run_strategy({**entry, "lr": 3e-3}, **given)
    assert by_entry["loss"] == run_strategy(entry, lr=3e-3, **given)["loss"]
    assert by_entry["loss"] != run_strategy(entry, lr=1e-3, **given)["loss"]
    with pytest.raises(ValueError, match="cold has no rate: give lr"):
        run_strategy(entry, **given)


def test_shifted_test_images_are_scored_beside_the_others(monkeypatch):
    simulated = dataclasses.replace(an_image_set(train=24), simulated=True)
    monkeypatch.setattr(images, "load_images", lambda *_, **__: simulated)
    assert {"auc", "auc/blur", "loss/blur"} <= set(run("cold", shifts=["blur"]))


def test_spoiled_test_images_are_scored_beside_the_others():
    scores = run("cold", corruptions=["blur@5", "brightness_down@5"])
    assert {"auc/blur@5", "loss/brightness_down@5"} <= set(scores)
    assert scores["loss/brightness_down@5"] != scores["loss"]


def test_real_patients_cannot_be_imaged_anew():
    with pytest.raises(ValueError, match="only simulated patients can be imaged anew"):
        run("cold", shifts=["blur"])


def test_all_strategies_get_the_same_steps_whatever_the_size():
    counts = {n: run("frozen", images=n, steps=8)["steps"] for n in (8, 16, None)}
    assert set(counts.values()) == {8}


def test_releases_fall_on_epochs_and_never_on_the_first():
    gradual = Strategy.from_data(WRITTEN["gradual"])
    assert gradual.unfreeze_at(5) == {"stage5": 2, "stage4": 3, "stage3": 4, "stem": 5}
    assert gradual.unfreeze_at(45)["stage5"] == 10
    assert set(gradual.unfreeze_at(2).values()) == {2}


def test_rates_reach_the_groups():
    model = starting_model(Strategy("a"), "mobilenet_v2", num_classes=2)
    rates = {
        name: {g["name"]: g["lr"] for g in Strategy.from_data(WRITTEN[name]).groups(model, 0.1, 5)}
        for name in ("cold", "discriminative", "decay")
    }
    assert set(rates["cold"].values()) == {0.1}
    assert rates["discriminative"]["stem"] == pytest.approx(0.01)
    assert rates["decay"]["stage5"] == pytest.approx(0.1 / 2.6)
    frozen = freeze(model)
    only = Strategy.from_data(WRITTEN["frozen"]).groups(frozen, 0.1, 5)
    assert [g["name"] for g in only] == ["head"]
    assert "stem" in frozen_stages(frozen)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"warmup": 0.1}, "expected a name"),
        ({"name": "a", "freezing": True}, "freezing"),
    ],
)
def test_a_strategy_that_cannot_be_read_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Strategy.from_data(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "expected a name for the strategy, got ''"),
        ({"backbone": 0.1, "decay": 0.5}, "a: give backbone or decay, not both"),
        ({"unfreeze": {"stem": 0.5}}, "a: only what starts frozen is released"),
        ({"freeze": True, "backbone": 0.1}, "a: a backbone that stays frozen has no rate"),
        ({"freeze": True, "decay": 0.5}, "a: a backbone that stays frozen has no rate"),
        ({"pretrained": "no"}, "a: expected pretrained True or False, got 'no'"),
        ({"freeze": 1}, "a: expected freeze True or False, got 1"),
        ({"freeze": True, "unfreeze": {"stem": 0}}, "a: expected unfreeze as shares .*'stem': 0"),
        ({"freeze": True, "unfreeze": {"stem": 1.0}}, "a: expected unfreeze as shares"),
        ({"freeze": True, "unfreeze": {"stem": "half"}}, "a: expected unfreeze as shares"),
        ({"freeze": True, "unfreeze": ["stem"]}, "a: expected unfreeze as shares"),
        ({"warmup": -0.1}, "a: expected warmup from 0 to 1, got -0.1"),
        ({"warmup": 1.1}, "a: expected warmup from 0 to 1, got 1.1"),
        ({"warmup": math.nan}, "a: expected warmup from 0 to 1, got nan"),
        ({"backbone": 0}, "a: expected backbone above 0, got 0"),
        ({"backbone": math.inf}, "a: expected backbone above 0, got inf"),
        ({"decay": 1.5}, "a: expected decay above 0 and at most 1, got 1.5"),
        ({"decay": True}, "a: expected decay above 0 and at most 1, got True"),
        ({"lr": 0}, "a: expected lr above 0, or None, got 0"),
    ],
)
@pytest.mark.parametrize(
    "build",
    [
        lambda options: Strategy(**options),
        Strategy.from_data,
        lambda options: dataclasses.replace(Strategy("b"), **options),
    ],
    ids=["built", "read", "replaced"],
)
def test_a_strategy_that_contradicts_itself_is_refused_however_it_is_built(build, options, message):
    with pytest.raises(ValueError, match=message):
        build({"name": "a", **options})


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
def test_a_named_stage_is_that_stage_and_an_unknown_one_is_refused(name):
    model = load_backbone(name, weights=None)
    own = Strategy("mine", freeze=True, unfreeze={"stage3": 0.5, "stem": 0.7})
    assert fitted_to(own, model) == own
    for unknown in ("stage9", "head", "head-0", "top"):
        wrong = dataclasses.replace(own, unfreeze={unknown: 0.5})
        with pytest.raises(ValueError, match=rf"mine releases '{unknown}'.*\(stem, .*stage4"):
            fitted_to(wrong, model)


def test_stages_counted_from_the_head_end_at_the_stem():
    model = load_backbone("resnet18", weights=None)
    own = Strategy("mine", freeze=True, unfreeze={"head-7": 0.4, "head-2": 0.2, "stem": 0.3})
    assert fitted_to(own, model).unfreeze == {"stem": 0.3, "stage3": 0.2}


def test_a_run_counts_stages_from_the_head_too():
    strategy = {
        "name": "mine",
        "pretrained": False,
        "freeze": True,
        "unfreeze": {"head-1": 0.5},
    }
    given = {"images": 16, "seed": 0, "lr": 1e-3, "steps": 4, "size": 32}
    row = run_strategy(strategy, backbone="resnet18", **given)
    assert row["drift/stage4"] > 0
    assert row["drift/stage3"] == 0
    with pytest.raises(ValueError, match=r"mine releases 'stage5'.*\(stem, .*stage4"):
        run_strategy({**strategy, "unfreeze": {"stage5": 0.5}}, backbone="resnet18", **given)
