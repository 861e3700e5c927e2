"""Lessons 04 and 05: nine ways to carry a network over, four sizes, several seeds, equal steps.

First every way gets one of three rates, by validation loss and with seeds of its own
(`data/experiments/04_rates.toml`); then all of them run with the test images. Runs are kept in
`build/experiments`, so a stopped publication goes on where it was. The grids lie there too: on a
cluster, fill the same tables ahead with `tlcourse experiments GRID.json --scheduler ADDRESS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tlcourse.datasets import ImageSet, load_images
from tlcourse.experiments import Grid, read_runs, run_grid
from tlcourse.experiments.strategies import run_strategy
from tlcourse.results import save_table
from tlcourse.runtime import usable_cores

COMMAND = "python -m tools.publish_results 04"
RATES = Path("data") / "experiments" / "04_rates.toml"
WORKING = Path("build") / "experiments"
FUNCTION = "tlcourse.experiments.strategies:run_strategy"
SEEDS = list(range(5))
SIZES = [50, 100, 200, None]
OFFICIAL = ("scratch", "frozen", "cold", "warmup")
"""Ways run on the official parts too, with all images: published tables are about those."""
SHIFTS = ["gain-14", "blur", "speckle", "scanner"]
SETTING = (
    "MobileNetV2 at 128 px; AdamW, weight decay 0.01, batches of 32, about 90 steps whatever the "
    "number of images, cosine to zero, two fixed views (flips); loss: cross-entropy"
)


def publish() -> list[Path]:
    """Run what is missing on the images at hand and write the tables."""
    torch.set_num_threads(1)  # the workers share the cores; what runs here shall not crowd them
    data = load_images("breast")
    name = "phantom" if data.simulated else "breastmnist"
    rates = _work(Grid.from_file(RATES), f"04_rates_{name}")
    chosen = choose_rates(rates)
    runs = [_work(grid, f"04_strategies_{name}") for grid in grids(rates, chosen, data)]
    return [
        save_table(
            tidy(rates, data).assign(chosen=lambda t: t["lr"] == t["strategy"].map(chosen)),
            f"04_rates_{name}",
            command=COMMAND,
            note=f"{SETTING}; {data.name}, 200 training images, test images shut; chosen: the "
            "lowest mean val_loss of the way's three rates",
        ),
        save_table(
            tidy(pd.concat(runs), data),
            f"04_strategies_{name}",
            command=COMMAND,
            note=f"{SETTING}; {data.name}, test scores; n training images; rates as chosen in "
            f"04_rates_{name}; cka_STAGE, drift_STAGE: against the start of the same run; grad_*: "
            "mean norm over the first 5 steps; train_seconds: one thread, as many runs at a time "
            "as cores, caching of frozen stages included",
        ),
    ]


def choose_rates(rates: pd.DataFrame) -> dict[str, float]:
    """Return for each strategy's name the rate with the lowest mean validation loss.

    >>> runs = [{"strategy": {"name": "a"}, "lr": lr, "val_loss": 1 - lr} for lr in (0.1, 0.3)]
    >>> choose_rates(pd.DataFrame(runs))
    {'a': 0.3}
    """
    named = rates.assign(name=[strategy["name"] for strategy in rates["strategy"]])
    means = named.groupby(["name", "lr"], sort=False)["val_loss"].mean().unstack()
    return {str(name): float(lr) for name, lr in means.idxmin(axis=1).items()}


def grids(rates: pd.DataFrame, chosen: Mapping[str, float], data: ImageSet) -> list[Grid]:
    """Return the grids of one image set: its own partition, and the official one if there is."""
    by_name = {entry["name"]: entry for entry in rates["strategy"]}
    ways = [{**entry, "lr": chosen[name]} for name, entry in by_name.items()]
    # Seeds change slowest: whenever it is stopped, whole seeds are there to be compared.
    own: dict[str, Any] = {"seed": SEEDS, "images": SIZES, "strategy": ways}
    if data.simulated:
        return [Grid({**own, "shifts": [SHIFTS]}, FUNCTION)]
    few = [way for way in ways if way["name"] in OFFICIAL]
    official: dict[str, Any] = {
        "seed": SEEDS,
        "images": [None],
        "strategy": few,
        "partition": ["official"],
    }
    return [Grid(own, FUNCTION), Grid(official, FUNCTION)]


def tidy(runs: pd.DataFrame, data: ImageSet) -> pd.DataFrame:
    """Return a table with a row per run and plain names in place of dictionaries."""
    names = [strategy["name"] for strategy in runs["strategy"]]
    rates = [lr if lr == lr else way["lr"] for lr, way in _rates(runs)]
    own = "patient" if data.simulated else "grouped"
    split = runs["partition"].fillna(own) if "partition" in runs else own
    counts = runs["images"].fillna(len(data.train)).astype(int)
    front = pd.DataFrame(
        {
            "images": "simulated" if data.simulated else "real",
            "split": split,
            "strategy": names,
            "n": counts,
            "seed": runs["seed"],
            "lr": rates,
        }
    )
    given = ["key", "strategy", "images", "seed", "lr", "test", "partition", "shifts", "seconds"]
    scores = runs.drop(columns=given, errors="ignore").rename(columns=lambda c: c.replace("/", "_"))
    return pd.concat([front, scores], axis=1)


def _rates(runs: pd.DataFrame) -> zip[tuple[float, dict[str, Any]]]:
    given = runs["lr"] if "lr" in runs else [float("nan")] * len(runs)
    return zip(given, runs["strategy"], strict=True)


def _work(grid: Grid, name: str) -> pd.DataFrame:
    """Make the runs that are missing; leave the grid beside their table."""
    WORKING.mkdir(parents=True, exist_ok=True)
    table = WORKING / f"{name}.jsonl"
    text = json.dumps({"function": FUNCTION, "factors": grid.factors}, indent=1)
    (WORKING / f"{name}_{len(grid)}.json").write_text(text, encoding="utf-8")
    run_grid(run_strategy, grid, table, workers=usable_cores())
    return read_runs(table, grid)
