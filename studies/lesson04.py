"""Lessons 04 and 05: nine ways to carry a network over, four sizes, several seeds, equal steps.

First every way gets one of three rates, by validation loss on real images of another seed
(`studies/04_rates.toml`); then all of them run with the test images. Runs are kept in
`build/experiments`, so a stopped publication goes on where it was. The grids lie there too: on a
cluster, fill the same tables ahead with `tlcourse experiments GRID.json --scheduler ADDRESS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from studies.images import images_at_hand
from studies.strategies import run_strategy
from studies.working import completed
from tlcourse.experiments import Grid
from tlcourse.results import save_table

COMMAND = "python -m tools.publish_results 04"
RATES = Path(__file__).with_name("04_rates.toml")
SEEDS = list(range(5))
SIZES = [50, 100, 200, None]
OFFICIAL = ("scratch", "frozen", "cold", "warmup")
"""Ways run on the official parts too, with all images: published tables are about those."""
SHIFTS = ["gain-14", "blur", "speckle", "scanner"]
DROPPED = ["key", "strategy", "source", "images", "train_images", "seed", "lr", "test", "partition"]
DROPPED += ["shifts", "seconds"]
SETTING = (
    "MobileNetV2 at 128 px; AdamW, weight decay 0.01, batches of 32, about 54 steps whatever the "
    "number of images, cosine to zero, two fixed views (flips); loss: cross-entropy"
)


def publish() -> list[Path]:
    """Run what is missing on the images at hand and write the tables."""
    data, name, _ = images_at_hand()
    rates = completed(run_strategy, Grid.from_file(RATES), "04_rates")
    chosen = choose_rates(rates)
    runs = [
        completed(run_strategy, grid, f"04_strategies_{name}")
        for grid in grids(rates, chosen, name)
    ]
    return [
        save_table(
            tidy(rates).assign(chosen=lambda t: t["lr"] == t["strategy"].map(chosen)),
            "04_rates",
            command=COMMAND,
            note=f"{SETTING}; 200 training images, test images shut; chosen: the way's lowest "
            "val_loss",
        ),
        save_table(
            tidy(pd.concat(runs)),
            f"04_strategies_{name}",
            command=COMMAND,
            note=f"{SETTING}; {data.name}, test scores; n training images; rates as chosen in "
            "04_rates; cka_STAGE, drift_STAGE: against the start of the same run; grad_*: mean "
            "norm over the first 5 steps; train_seconds: one thread, as many runs at a time as "
            "cores, caching of frozen stages included",
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


def grids(rates: pd.DataFrame, chosen: Mapping[str, float], source: str) -> list[Grid]:
    """Return the grids of one image set: its own partition, and the official one if there is."""
    by_name = {entry["name"]: entry for entry in rates["strategy"]}
    strategies = [{**entry, "lr": chosen[name]} for name, entry in by_name.items()]
    # Seeds change slowest: whenever it is stopped, whole seeds are there to be compared.
    own: dict[str, Any] = {
        "seed": SEEDS,
        "source": [source],
        "images": SIZES,
        "strategy": strategies,
    }
    if source == "phantom":
        return [Grid({**own, "shifts": [SHIFTS]})]
    few = [strategy for strategy in strategies if strategy["name"] in OFFICIAL]
    official = {**own, "images": [None], "strategy": few, "partition": ["official"]}
    return [Grid(own), Grid(official)]


def tidy(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a row per run and plain names in place of dictionaries."""
    simulated = runs["source"] == "phantom"
    own = simulated.map({True: "patient", False: "grouped"})
    given = runs["lr"] if "lr" in runs else [strategy["lr"] for strategy in runs["strategy"]]
    front = pd.DataFrame(
        {
            "images": simulated.map({True: "simulated", False: "real"}),
            "split": runs["partition"].fillna(own) if "partition" in runs else own,
            "strategy": [strategy["name"] for strategy in runs["strategy"]],
            "n": runs["images"].fillna(runs["train_images"]).astype(int),
            "seed": runs["seed"],
            "lr": given,
        }
    )
    scores = runs.drop(columns=DROPPED, errors="ignore")
    return pd.concat([front, scores.rename(columns=lambda name: name.replace("/", "_"))], axis=1)
