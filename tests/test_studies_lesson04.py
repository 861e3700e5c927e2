"""How the published runs of lessons 04 and 05 are put together."""

import pandas as pd
import pytest

from studies import lesson04
from studies.strategies import run_strategy
from tlcourse.experiments import Grid, load_function, read_runs, run_grid

STRATEGIES = [{"name": "cold"}, {"name": "frozen", "freeze": True}]


def rates():
    losses = {"cold": {0.1: 0.4, 0.3: 0.6}, "frozen": {0.1: 0.9, 0.3: 0.5}}
    return pd.DataFrame(
        {"strategy": strategy, "lr": lr, "val_loss": losses[strategy["name"]][lr], "seed": 100}
        for strategy in STRATEGIES
        for lr in (0.1, 0.3)
    )


def test_each_way_gets_the_rate_with_the_lowest_validation_loss():
    assert lesson04.choose_rates(rates()) == {"cold": 0.1, "frozen": 0.3}


def test_the_grids_hold_the_chosen_rates_and_no_seed_that_chose_them():
    own, official = lesson04.grids(rates(), {"cold": 0.1, "frozen": 0.3}, "breastmnist")
    assert len(own) == len(STRATEGIES) * len(lesson04.SIZES) * len(lesson04.SEEDS)
    for run in [*own.runs(), *official.runs()]:
        assert run["strategy"]["lr"] == {"cold": 0.1, "frozen": 0.3}[run["strategy"]["name"]]
        assert run["seed"] not in set(rates()["seed"])
        assert "lr" not in run
        assert run.get("test", True)
    assert {run["partition"] for run in official.runs()} == {"official"}
    (simulated,) = lesson04.grids(rates(), {"cold": 0.1, "frozen": 0.3}, "phantom")
    assert {tuple(run["shifts"]) for run in simulated.runs()} == {tuple(lesson04.SHIFTS)}


def test_the_file_of_rates_names_the_function_that_makes_its_runs():
    assert load_function(Grid.from_file(lesson04.RATES).function) is run_strategy


def test_the_rates_are_chosen_by_runs_that_leave_the_test_images_shut():
    for run in Grid.from_file(lesson04.RATES).runs():
        assert run["test"] is False
        assert run["seed"] not in lesson04.SEEDS


def scored(strategy, images, seed, source, partition="grouped", shifts=()):
    return {"train_images": images or 546, "auc": 0.5, "drift/head": 0.1}


@pytest.mark.parametrize(
    ("source", "splits"), [("breastmnist", ["grouped", "official"]), ("phantom", ["patient"])]
)
def test_the_table_has_plain_names_and_a_row_per_run(tmp_path, source, splits):
    grids = lesson04.grids(rates(), {"cold": 0.1, "frozen": 0.3}, source)
    for grid in grids:
        run_grid(scored, grid, tmp_path / "runs.jsonl", progress=False)
    runs = pd.concat([read_runs(tmp_path / "runs.jsonl", grid) for grid in grids])
    table = lesson04.tidy(runs)
    assert list(table.columns) == [
        "images", "split", "strategy", "n", "seed", "lr", "auc", "drift_head",
    ]  # fmt: skip
    assert len(table) == sum(len(grid) for grid in grids)
    assert list(table["split"].unique()) == splits
    assert set(table["n"]) == {50, 100, 200, 546}
    assert table.groupby("strategy")["lr"].unique().str[0].to_dict() == {"cold": 0.1, "frozen": 0.3}
    assert not table.duplicated(["images", "split", "strategy", "n", "seed"]).any()
