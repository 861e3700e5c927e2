"""Lesson 00: the same recipe from photographs and from random weights, over seeds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from torch.optim import AdamW
from tqdm import tqdm

from studies.images import images_at_hand
from tlcourse import plots
from tlcourse.backbones import load_backbone
from tlcourse.datasets import ImageSet
from tlcourse.metrics import accuracy, auc, mean_interval
from tlcourse.optim import warmup_cosine
from tlcourse.results import load_table, save_table
from tlcourse.runtime import repository_root
from tlcourse.training import fit, predict

SEEDS = range(5)
STARTS = {"pretrained": "imagenet", "scratch": None}


def publish() -> list[Path]:
    """Measure on the images at hand; redraw the README's picture once both tables exist."""
    data, name, kind = images_at_hand()
    jobs = [(start, seed) for start in STARTS for seed in SEEDS]
    rows = [run(data, start, seed) for start, seed in tqdm(jobs, desc="lesson 00")]
    table = pd.DataFrame(rows)
    table.insert(0, "images", kind)
    path = save_table(
        table,
        f"00_first_result_{name}",
        command="python -m tools.publish_results 00",
        note=f"MobileNetV2 on {data.name} ({data.partition} split, {len(data.train)} training "
        "images of 64 px enlarged to 96), AdamW 1e-3, 5 epochs, warmup 10 steps then cosine, "
        "flips; test scores of the last epoch; one row per start and seed",
    )
    return [path, *draw()]


def run(data: ImageSet, start: str, seed: int) -> dict[str, object]:
    """Train once and score the test images."""
    weights = STARTS[start]
    model = load_backbone("mobilenet_v2", weights=weights, num_classes=data.num_classes, seed=seed)
    schedule = partial(warmup_cosine, warmup_steps=10)
    optimizer = partial(AdamW, lr=1e-3)
    fit(
        model, data, epochs=5, optimizer=optimizer, schedule=schedule, augment="flip",
        size=96, seed=seed, progress=False,
    )  # fmt: skip
    probs = predict(model, data.test.images, size=96)
    return {
        "start": start,
        "seed": seed,
        "auc": auc(data.test.labels, probs),
        "accuracy": accuracy(data.test.labels, probs),
    }


def draw() -> list[Path]:
    """Draw README's picture from the two tables."""
    try:
        tables = [load_table(f"00_first_result_{s}") for s in ("breastmnist", "phantom")]
    except FileNotFoundError:
        return []
    bars = {
        f"{start}, {images} images": mean_interval(runs["auc"].to_numpy())
        for (images, start), runs in pd.concat(tables).groupby(["images", "start"])
    }
    root = repository_root()
    assert root is not None, "published from a checkout"
    path = root / "docs" / "first-result.png"
    path.parent.mkdir(exist_ok=True)
    title = "Starting from photographs beats starting from nothing"
    figure = plots.score_bars(bars, title=title, ylabel="start", chance=0.5).figure.figure
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close("all")
    return [path]
