"""Draw what a report shows, each picture with its text, as HTML."""

from __future__ import annotations

import pandas as pd

from tlcourse.detectors.artifacts import Artifacts
from tlcourse.plots.curves import history_curves
from tlcourse.plots.evaluation import confusion_matrix, roc
from tlcourse.plots.images import image_grid
from tlcourse.plots.learning_rates import stage_rates
from tlcourse.plots.style import as_html

MISTAKES_PER_ROW = 4
"""Images in a row of mistakes."""


def draw_rates(artifacts: Artifacts) -> str:
    """Draw the rate of each stage; one that never moves is frozen."""
    plan = artifacts.run["training"]
    moving = {group["name"]: group["lr"] for group in plan["rates"]}
    title = f"Full rate of each stage, strategy {artifacts.run['arguments']['strategy']['name']}"
    ax = stage_rates({name: moving.get(name) for name in plan["stages"]}, title=title)
    said = [f"{n} {moving[n]:.2g}" if n in moving else f"{n} frozen" for n in plan["stages"]]
    return as_html(ax, alt=f"Learning rate of each stage on a log axis: {', '.join(said)}.")


def draw_history(artifacts: Artifacts) -> str:
    """Draw losses and validation AUC by epoch of the training that was chosen."""
    chosen = artifacts.run["chosen"]
    table = artifacts.history.query(f"head_lr == {chosen['lr']!r}")
    last = table.iloc[-1]
    title = f"Epoch {chosen['epoch']} of {len(table)} is kept: its validation loss is the lowest"
    alt = (
        f"Two line charts over {len(table)} epochs. Training loss goes from "
        f"{table['train_loss'].iloc[0]:.2f} to {last['train_loss']:.2f}, validation loss from "
        f"{table['val_loss'].iloc[0]:.2f} to {last['val_loss']:.2f}, validation AUC from "
        f"{table['val_auc'].iloc[0]:.2f} to {last['val_auc']:.2f}."
    )
    return as_html(history_curves(table, title=title), alt=alt)


def draw_confusion(artifacts: Artifacts) -> str:
    """Draw true against answered classes of the test images."""
    predicted = pd.Categorical(artifacts.predictions["answer"], artifacts.classes).codes
    right = int((predicted == artifacts.labels).sum())
    title = f"{right} of {len(predicted)} test images are answered rightly"
    ax = confusion_matrix(artifacts.labels, predicted, artifacts.classes, title=title)
    said = [
        f"of {int((artifacts.labels == i).sum())} {name}, "
        f"{int(((artifacts.labels == i) & (predicted == i)).sum())} are called so"
        for i, name in enumerate(artifacts.classes)
    ]
    return as_html(ax, alt=f"Table of true against answered classes: {'; '.join(said)}.")


def draw_roc(artifacts: Artifacts) -> str | None:
    """Draw the ROC curve of the first class against the second; None for more than two."""
    if len(artifacts.classes) != 2:
        return None
    area = artifacts.run["scores"]["test"]["auc"]["estimate"]
    first = artifacts.classes[0]
    title = f"{first} ranks above {artifacts.classes[1]} in {100 * area:.0f} of 100 pairs"
    models = {"detector": artifacts.probs}
    ax = roc(artifacts.labels, models, title=title, positive=0, positive_name=first)
    return as_html(ax, alt=f"ROC curve for {first} with the diagonal of guessing, AUC {area:.2f}.")


def draw_mistakes(artifacts: Artifacts) -> str | None:
    """Draw the most wrong test images with what they are and what they were called."""
    count = len(artifacts.most_wrong)
    if not count:
        return None
    labels = artifacts.labels[artifacts.most_wrong_rows]
    called = artifacts.predictions["answer"].to_numpy()[artifacts.most_wrong_rows]
    sure = artifacts.probs[artifacts.most_wrong_rows].max(axis=1)
    places = artifacts.predictions["image"].to_numpy()[artifacts.most_wrong_rows]
    captions = [
        f"no. {place}: called {name}, p\u00a0=\u00a0{p:.2f}"
        for place, name, p in zip(places, called, sure, strict=True)
    ]
    axes = image_grid(
        artifacts.most_wrong,
        labels,
        artifacts.classes,
        rows=-(-count // MISTAKES_PER_ROW),
        cols=MISTAKES_PER_ROW,
        title="Most wrong first: below each image its true class, then what it was called",
        captions=captions,
    )
    said = [f"{artifacts.classes[i]}, {text}" for i, text in zip(labels, captions, strict=True)]
    return as_html(axes, alt=f"Thumbnails of {count} test images: {'; '.join(said)}.")
