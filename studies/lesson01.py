"""Lesson 01: pixels, hand-made, random and ImageNet features, over sizes, folds and dealings."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from studies.images import images_at_hand
from tlcourse.backbones import load_backbone
from tlcourse.datasets import Split
from tlcourse.features import extract_features
from tlcourse.features.extract import Features
from tlcourse.features.handcrafted import classic_features
from tlcourse.features.learning_curves import fold_means, learning_curve
from tlcourse.results import save_table

SEEDS = range(1, 5)
SIZES = (50, 100, 200, 400, None)


def publish() -> list[Path]:
    """Measure on the images at hand."""
    data, name, kind = images_at_hand()
    features = extract(data.development)
    curves = []
    for seed in tqdm(SEEDS, desc="lesson 01"):
        curve = learning_curve(
            features, data.development, SIZES, folds=10, subsets=3, seed=seed, kind="tuned",
            progress=False,
        )  # fmt: skip
        curves.append(fold_means(curve).assign(seed=seed))
    table = pd.concat(curves).assign(set=kind)
    path = save_table(
        table[["set", "method", "images", "seed", "fold", "auc"]],
        f"01_learning_curves_{name}",
        command="python -m tools.publish_results 01",
        note=f"Logistic regression on features of the {len(data.development)} development images "
        f"of {data.name} ({data.partition} split), penalty chosen by log loss over 3 folds of the "
        "training images, anew for each kind of features, size and fold; 10 grouped folds dealt "
        "with seeds 1 to 4, mean of 3 subsets per size and fold; MobileNetV2 at 128 px, random "
        "weights of seed 0; one row per method, size, seed and fold",
    )
    return [path]


def extract(part: Split) -> dict[str, Features]:
    """Extract the four kinds of features that lesson 01 compares, by the names it uses."""
    trained, random = load_backbone("mobilenet_v2"), load_backbone("mobilenet_v2", weights=None)
    return {
        "pixels": part.images.reshape(len(part), -1).astype("float32"),
        "hand-made features": classic_features(part.images),
        "random network": extract_features(random, part.images, progress=False),
        "ImageNet network": extract_features(trained, part.images, progress=False),
    }
