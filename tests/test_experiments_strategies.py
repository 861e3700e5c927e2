"""Strategies are data; one run of each gives comparable scores."""

import dataclasses
import math
import tomllib
from pathlib import Path

import pytest
import torch

from tests.test_training import an_image_set
from tlcourse.experiments import scoring, strategies
from tlcourse.experiments.grid import Grid
from tlcourse.experiments.named import NAMED, named_strategy
from tlcourse.experiments.strategies import Strategy, run_strategy
from tlcourse.freezing import freeze, frozen_stages
from tlcourse.optim import OptimizerWarning
from tlcourse.training import predict

GRIDS = sorted((Path(__file__).parents[1] / "data" / "experiments").glob("*.toml"))
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
    monkeypatch.setattr(scoring, "load_images", lambda *_, **__: an_image_set(train=24))
    monkeypatch.setattr(strategies, "COMPARED", 8)
    scoring.image_set.cache_clear()
    scoring.shifted.cache_clear()
    yield
    scoring.image_set.cache_clear()
    scoring.shifted.cache_clear()
    torch.set_num_threads(before)


def run(name, **options):
    given = {"images": 16, "seed": 0, "lr": 1e-3, "steps": 4, "size": 32, **options}
    return run_strategy(WRITTEN[name], **given)


def test_the_written_grids_hold_the_nine_strategies():
    assert GRIDS
    assert tuple(WRITTEN) == NAMES
    for path in GRIDS:
        assert Grid.from_file(path).function == "tlcourse.experiments.strategies:run_strategy"


def test_the_package_has_the_nine_that_the_grids_hold():
    assert tuple(NAMED) == NAMES
    for grid in GRIDS:
        for entry in tomllib.loads(grid.read_text(encoding="utf-8"))["factors"]["strategy"]:
            written = dataclasses.replace(Strategy.from_data(entry), lr=None)
            assert written == named_strategy(written.name)
    with pytest.raises(ValueError, match=r"expected a strategy of scratch, .*; got 'hot'"):
        named_strategy("hot")


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


def test_runs_that_choose_rates_leave_the_test_images_shut(monkeypatch):
    opened = []

    def noting(model, images, **options):
        opened.append(images)
        return predict(model, images, **options)

    monkeypatch.setattr(scoring, "predict", noting)
    data = scoring.image_set("breast", "grouped")
    assert "auc" not in run("frozen", test=False)
    assert any(images is data.val.images for images in opened)
    assert not any(images is data.test.images for images in opened)


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
    monkeypatch.setattr(scoring, "load_images", lambda *_, **__: simulated)
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
    assert gradual.releases(5) == {"stage5": 2, "stage4": 3, "stage3": 4, "stem": 5}
    assert gradual.releases(45)["stage5"] == 10
    assert set(gradual.releases(2).values()) == {2}


def test_rates_reach_the_groups():
    model = strategies._start(Strategy("a"), "mobilenet_v2", 2, seed=0)
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
        ({"name": "a", "backbone": 0.1, "decay": 0.5}, "backbone or decay, not both"),
    ],
)
def test_a_strategy_that_cannot_be_read_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        Strategy.from_data(data)
