"""Lesson 06: the full recipe on the set's own parts, and fold by fold over all its images.

First rate and augmentation are chosen by validation loss on the real set's official parts, with
seeds that serve nothing else and the test images shut; then the chosen recipe runs on both sets.
Runs are kept in `build/experiments`, so a stopped publication goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from studies.full import run_fold, run_full
from studies.images import all_images, image_set, images_at_hand
from studies.working import completed
from tlcourse import metrics
from tlcourse.datasets import Split
from tlcourse.experiments import Grid
from tlcourse.results import save_table

COMMAND = "python -m tools.publish_results 06"
CHOICE: dict[str, list[Any]] = {
    "seed": [100],
    "augment": ["flip", "move"],
    "lr": [0.0005, 0.001],
    "source": ["breastmnist"],
    "partition": ["official"],
    "test": [False],
}
SEEDS = list(range(5))
FOLDS = list(range(5))
SPLIT_SEEDS = [0]
SETTING = (
    "MobileNetV2 with ImageNet weights at 128 px, all layers; AdamW, weight decay 0.01, batches of "
    "32, 10 epochs, rates rise over a fifth of the steps and fall to zero by a cosine, the last "
    "weights count"
)


def publish() -> list[Path]:
    """Run what is missing on the images at hand and write the tables."""
    data, name, _ = images_at_hand()
    choice = completed(run_full, Grid(CHOICE), "06_choice")
    augment, lr = choose(choice)
    recipe: dict[str, list[Any]] = {"augment": [augment], "lr": [lr], "source": [name]}
    partition = "grouped" if data.simulated else "official"
    own = Grid({"seed": SEEDS, **recipe, "partition": [partition]})
    runs = completed(run_full, own, f"06_detector_{name}")
    grid = Grid({"by": ["group"], "seed": SPLIT_SEEDS, "fold": FOLDS, **recipe})
    folds = completed(run_fold, grid, f"06_folds_{name}")
    labels = image_set(name, partition).test.labels
    about = f"{SETTING}; augmentation {augment!r} and rate {lr:g} as chosen in 06_choice"
    return [
        save_table(
            tidy_choice(choice, augment, lr),
            "06_choice",
            command=COMMAND,
            note=f"{SETTING}; official BreastMNIST, test images shut; chosen: the lowest "
            "val_loss, one run each",
        ),
        save_table(
            tidy(runs, labels, simulated=data.simulated),
            f"06_detector_{name}",
            command=COMMAND,
            note=f"{about}; {data.name}, test scores; seed 'ensemble': mean of the networks' "
            "probabilities; seconds: one thread, as many runs at a time as cores",
        ),
        save_table(
            tidy_folds(folds, all_images(name), simulated=data.simulated),
            f"06_folds_{name}",
            command=COMMAND,
            note=f"{about}; all {len(all_images(name))} images of {data.name} in {len(FOLDS)} "
            "folds that keep groups whole, each judged by a network that saw none of its group; "
            "an eighth of a fold's training images is held out",
        ),
    ]


def choose(runs: pd.DataFrame) -> tuple[str, float]:
    """Return the augmentation and the rate with the lowest mean validation loss.

    >>> runs = [{"augment": "flip", "lr": lr, "val_loss": 1 - lr} for lr in (0.1, 0.3)]
    >>> choose(pd.DataFrame(runs))
    ('flip', 0.3)
    """
    means = runs.groupby(["augment", "lr"], as_index=False)["val_loss"].mean()
    best = means.loc[means["val_loss"].idxmin()]
    return str(best["augment"]), float(best["lr"])


def tidy_choice(runs: pd.DataFrame, augment: str, lr: float) -> pd.DataFrame:
    """Return a row per run that chose, and whether its recipe was chosen."""
    kept = runs[["augment", "lr", "seed", "val_loss", "val_auc", "train_seconds"]]
    return kept.assign(chosen=(kept["augment"] == augment) & (kept["lr"] == lr))


def tidy(runs: pd.DataFrame, labels: NDArray[np.int64], *, simulated: bool) -> pd.DataFrame:
    """Return a row per seed, and one for the mean of their probabilities."""
    table = pd.DataFrame(
        {
            "images": "simulated" if simulated else "real",
            "split": "patient" if simulated else "official",
            "seed": runs["seed"].astype(str),
            "n": runs["train_images"],
            "epochs": 10,
            "augment": runs["augment"],
            "lr": runs["lr"],
            "val_loss": runs["val_loss"],
            "val_auc": runs["val_auc"],
            "auc": runs["auc"],
            "accuracy": runs["accuracy"],
            "loss": runs["loss"],
            "seconds": runs["train_seconds"].round(1),
        }
    )
    first = np.mean([np.array(probs) for probs in runs["probs"]], axis=0)
    probs = np.column_stack([first, 1 - first])
    scores = {
        "auc": metrics.auc(labels, probs),
        "accuracy": metrics.accuracy(labels, probs),
        "loss": metrics.log_loss(labels, probs),
        "seconds": table["seconds"].sum(),
    }
    nothing = {"val_loss": np.nan, "val_auc": np.nan}
    together = table.head(1).assign(**nothing, **scores, seed="ensemble")
    return pd.concat([table, together], ignore_index=True)


def tidy_folds(runs: pd.DataFrame, part: Split, *, simulated: bool) -> pd.DataFrame:
    """Return a row per image and dealing: by which fold it was judged, and how."""
    tables = [
        pd.DataFrame(
            {
                "images": "simulated" if simulated else "real",
                "seed": run["seed"],
                "fold": run["fold"],
                "image": run["rows"],
                "group": part.groups[run["rows"]],
                "label": part.labels[run["rows"]],
                "p_malignant": run["probs"],
            }
        )
        for run in runs.to_dict("records")
    ]
    return pd.concat(tables).sort_values(["seed", "image"], ignore_index=True)
