"""Lesson 02: probes of every stage over many folds, likeness of networks over training seeds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from torch import nn
from tqdm import tqdm

from studies.images import images_at_hand
from tlcourse.backbones import load_backbone
from tlcourse.datasets import ImageSet, Split, grouped_folds
from tlcourse.datasets.toy import edge_orientations, texture_patches
from tlcourse.features import flat_maps, stage_features
from tlcourse.features.learning_curves import stage_scores
from tlcourse.freezing import snapshot
from tlcourse.results import save_table
from tlcourse.similarity import cka_by_stage, drift_by_stage
from tlcourse.training import fit

COMMAND = "python -m tools.publish_results 02"
SIZE = 96
NUM_SPLITS = 10
SEEDS = range(3)
COMPARED = 100
"""Images whose maps are compared, drawn from the training part."""


def publish() -> list[Path]:
    """Measure on the images at hand and write both tables."""
    data, name, kind = images_at_hand()
    setting = f"MobileNetV2 at {SIZE} px, {data.name} ({data.partition} split)"
    probes = save_table(
        probe_table(data, kind),
        f"02_stage_probes_{name}",
        command=COMMAND,
        note=f"{setting}; logistic regression on spatial means after each stage, AUC; {NUM_SPLITS} "
        "dealings of 3 grouped folds; cancer task on training and validation images; random: 3 "
        "draws of weights, batch-norm statistics as they come (the probe standardises)",
    )
    networks = save_table(
        network_table(data, kind),
        f"02_networks_{name}",
        command=COMMAND,
        note=f"{setting}; unbiased linear CKA with the pretrained network on the flattened maps "
        f"of {COMPARED} training images; drift: relative L2 change of the weights; fine-tuned: "
        "AdamW 1e-3, 3 epochs; one row per stage, network and seed",
    )
    return [probes, networks]


def probe_table(data: ImageSet, kind: str) -> pd.DataFrame:
    """Return scores per network, task, stage and fold."""
    tasks = {
        "edge orientation": edge_orientations(),
        "texture": texture_patches(),
        "cancer": data.development,
    }
    networks = {("pretrained", 0): load_backbone()}
    networks |= {("random", seed): random_network(seed) for seed in SEEDS}
    tables = []
    for (network, seed), model in tqdm(networks.items(), desc="lesson 02, probes"):
        for task, part in tasks.items():
            scores = score(model, part)
            tables.append(scores.assign(network=network, seed=seed, task=task))
    frame = pd.concat(tables).assign(images=kind)
    return frame[["images", "network", "seed", "task", "stage", "fold", "score", "chance"]]


def score(model: nn.Module, part: Split) -> pd.DataFrame:
    """Score a task at every stage over all dealings."""
    features = stage_features(model, part.images, size=SIZE, progress=False)
    folds = [fold for seed in range(NUM_SPLITS) for fold in grouped_folds(part, 3, seed=seed)]
    return stage_scores(features, part.labels, folds)


def random_network(seed: int) -> nn.Module:
    """Return a network of random weights, as it comes: lesson 01's strongest baseline."""
    return load_backbone(weights=None, num_classes=2, seed=seed)


def network_table(data: ImageSet, kind: str) -> pd.DataFrame:
    """Return CKA and drift per network, seed and stage."""
    images = data.train.subset(COMPARED).images
    before = flat_maps(load_backbone(), images, size=SIZE)
    rows = []
    for seed in tqdm(SEEDS, desc="lesson 02, networks"):
        tuned = load_backbone(num_classes=2, seed=seed)
        start = snapshot(tuned)
        fit(tuned, data, epochs=3, size=SIZE, seed=seed, progress=False)
        others = {"fine-tuned": tuned, "random": random_network(seed)}
        drift = {"fine-tuned": drift_by_stage(start, tuned)}
        for network, model in others.items():
            cka = cka_by_stage(before, flat_maps(model, images, size=SIZE))
            moved = drift.get(network, pd.Series(dtype=float)).reindex(cka.index)
            pairs = pd.DataFrame({"cka": cka, "drift": moved}).rename_axis("stage").reset_index()
            rows.append(pairs.assign(network=network, seed=seed))
    frame = pd.concat(rows).assign(images=kind)
    return frame[["images", "network", "seed", "stage", "cka", "drift"]]
