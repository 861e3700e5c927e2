"""Lesson 07: four starts, three ways under corruption, what a leak is worth, a probe's audit.

Runs are kept in `build/experiments`, so a stopped publication goes on where it was. Starts and
ways that lessons 04 and 05 have run already are taken from their tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from studies.audit import MOST_EPOCHS, MOST_MOVING, PUBLISHED, STEPS, run_probe_step
from studies.full import run_fold
from studies.images import images_at_hand
from studies.starts import run_start
from studies.strategies import run_strategy
from studies.working import completed
from tlcourse.experiments import Grid
from tlcourse.results import load_table, save_table
from tlcourse.training.strategies import STRATEGIES

COMMAND = "python -m tools.publish_results 07"
SEEDS = list(range(5))
FOLDS = list(range(5))
RATES: dict[str, list[Any]] = {
    "start": ["shuffled", "small"],
    "images": [200],
    "seed": [100],
    "lr": [0.0003, 0.001, 0.003],
    "source": ["breastmnist"],
    "test": [False],
}
SIZES = [50, 200, None]
FROM_04 = {"cold": "imagenet", "scratch": "scratch"}
"""Strategies of lesson 04 that are starts of this one."""
STRATEGIES_COMPARED = ("frozen", "cold", "lp_ft")
CORRUPTIONS = ["gaussian_noise", "speckle_noise", "blur", "jpeg", "contrast_down", "gamma"]
SEVERITY = 3
VIEWS = {"phantom": 3, "breastmnist": 1}
"""Images of a patient among those that the leak is measured on."""
SHORT: dict[str, list[Any]] = {"lr": [0.001], "augment": ["flip"], "epochs": [4], "size": [64]}
"""The training by which the leak is measured: it must run a hundred times."""
ALIKE = (
    "MobileNetV2 at 128 px; AdamW, weight decay 0.01, batches of 32, about 54 steps whatever the "
    "number of images, cosine to zero, two fixed views (flips)"
)


def publish() -> list[Path]:
    """Run what is missing on the images at hand and write the tables."""
    data, name, kind = images_at_hand()
    tables = [
        _save(_starts(name), f"07_starts_{name}", kind, f"{ALIKE}; {name}, test scores; rates by "
              "validation loss on 200 real images, one run each; imagenet and scratch: cold and "
              "scratch of 04_strategies"),
        _save(_shift(name), f"07_shift_{name}", kind, f"{ALIKE}; all training images of {name}, "
              f"test images corrupted at severity {SEVERITY}; rates as in 04_rates"),
        _save(_leak(name), f"07_leak_{name}", kind, f"all images of {name}, {VIEWS[name]} of a "
              "patient; MobileNetV2 at 64 px, all layers, 4 epochs, AdamW 1e-3; folds by group or "
              "by image; shared: share of the judged images with a relative in training"),
    ]  # fmt: skip
    if not data.simulated:  # the audited number is one on real scans
        tables += [
            _save(_probes(name), "07_probe", kind, f"{name}, official parts, 28 px but in the last "
                  f"step; MobileNetV2; at most {MOST_MOVING[PUBLISHED]} epochs as published, later "
                  f"{MOST_EPOCHS}; majority_said: share of images answered with the most frequent "
                  "class"),
        ]  # fmt: skip
    return tables


def _save(table: pd.DataFrame, name: str, kind: str, note: str) -> Path:
    table.insert(0, "images", kind)
    return save_table(table, name, command=COMMAND, note=note)


def _starts(name: str) -> pd.DataFrame:
    rates = completed(run_start, Grid(RATES), "07_rates")
    kept = rates.loc[rates.groupby("start")["val_loss"].idxmin()]
    runs = pd.concat(
        completed(run_start, Grid({"seed": SEEDS, "images": SIZES, "start": [start], "lr": [lr],
                               "source": [name]}), f"07_starts_{name}")
        for start, lr in zip(kept["start"], kept["lr"], strict=True)
    )  # fmt: skip
    runs = runs.rename(columns={"train_images": "n"})
    known = load_table(f"04_strategies_{name}")
    known = known[known["strategy"].isin(FROM_04) & (known["split"] != "official")]
    known = known.assign(start=known["strategy"].map(FROM_04))
    columns = ["start", "n", "seed", "lr", "auc", "accuracy", "loss", "train_seconds"]
    return pd.concat([known[columns], runs[columns]], ignore_index=True)


def _shift(name: str) -> pd.DataFrame:
    rates = load_table("04_rates").query("chosen").set_index("strategy")["lr"]
    asked = [f"{corruption}@{SEVERITY}" for corruption in CORRUPTIONS]
    strategies = [{**_as_data(label), "lr": float(rates[label])} for label in STRATEGIES_COMPARED]
    grid = Grid({"seed": SEEDS, "images": [None], "strategy": strategies, "source": [name],
                 "corruptions": [asked]})  # fmt: skip
    runs = completed(run_strategy, grid, f"07_shift_{name}")
    rows = [
        {"way": run["strategy"]["name"], "seed": run["seed"], "shift": shift.split("@")[0],
         "severity": 0 if shift == "none" else SEVERITY,
         "auc": run["auc" if shift == "none" else f"auc/{shift}"]}
        for run in runs.to_dict("records")
        for shift in ("none", *asked)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _as_data(label: str) -> dict[str, Any]:
    strategy = STRATEGIES[label]
    return {"name": label, "freeze": strategy.freeze, "unfreeze": dict(strategy.unfreeze)}


def _leak(name: str) -> pd.DataFrame:
    grid = Grid({"seed": SEEDS, "fold": FOLDS, "by": ["image", "group"], "source": [name],
                 "views": [VIEWS[name]], **SHORT})  # fmt: skip
    runs = completed(run_fold, grid, f"07_leak_{name}")
    return runs[["by", "seed", "fold", "auc", "accuracy", "shared", "train_seconds"]].copy()


def _probes(name: str) -> pd.DataFrame:
    grid = Grid({"seed": SEEDS, "step": list(STEPS), "source": [name]})
    runs = completed(run_probe_step, grid, f"07_probe_{name}")
    columns = ["step", "seed", "accuracy", "auc", "majority", "majority_said", "epochs"]
    return runs[columns].copy()
