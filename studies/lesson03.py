"""Lesson 03: heads alone, trained by several recipes on frozen features, over many folds."""

from __future__ import annotations

from pathlib import Path

from studies.images import images_at_hand
from tlcourse.backbones import load_backbone
from tlcourse.features import extract_features
from tlcourse.results import save_table
from tlcourse.training.linear_head import compare_heads

NUM_SPLITS = 6
RECIPES = {
    "timid": {"lr": 1e-4, "epochs": 1},
    "notes": {"lr": 1e-3, "epochs": 10},
    "weighted": {"lr": 1e-3, "epochs": 10, "balanced": True},
    "longer": {"lr": 1e-3, "epochs": 50},
    "longer, weighted": {"lr": 1e-3, "epochs": 50, "balanced": True},
}


def publish() -> list[Path]:
    """Measure on the images at hand."""
    data, name, kind = images_at_hand()
    part = data.development
    features = extract_features(load_backbone("mobilenet_v2"), part.images, size=96)
    table = compare_heads(features, part, RECIPES, splits=NUM_SPLITS, with_probe=True)
    table.insert(0, "images", kind)
    path = save_table(
        table,
        f"03_head_only_{name}",
        command="python -m tools.publish_results 03",
        note=f"Heads on frozen MobileNetV2 features of {data.name} ({data.partition} split, "
        f"{len(part)} development images of 64 px enlarged to 96); SGD, momentum 0.9, batch 32: "
        "timid 1e-4, 1 epoch; notes and weighted 1e-3, 10 epochs; longer 1e-3, 50 epochs; weighted "
        f"= balanced class weights; {NUM_SPLITS} dealings into 5 folds that keep groups whole",
    )
    return [path]
