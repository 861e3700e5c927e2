"""The loop of PyTorch's transfer learning tutorial (Chilamkurthy): a phase each for train and val.

Left out, in the tutorial's favour: saving the best weights to disk and printing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader

from benchmarks.contenders.pictures import loaders
from benchmarks.jobs import BACKBONE, LR, WEIGHT_DECAY, Job, plain_layout
from tlcourse.datasets import ImageSet


def train(model: nn.Module, data: ImageSet, job: Job) -> nn.Module:
    """Train as the tutorial's `train_model` does."""
    plain_layout(model)
    if job.frozen == BACKBONE:
        for parameter in model.get_submodule("features").parameters():
            parameter.requires_grad = False
    optimizer = AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LR, weight_decay=WEIGHT_DECAY
    )
    dataloaders = loaders(data, job)
    for _ in range(job.epochs):
        for phase in ("train", "val"):
            model.train(phase == "train")
            _pass(model, dataloaders[phase], optimizer, phase)
    return model


def _pass(
    model: nn.Module,
    batches: DataLoader[tuple[Tensor, Tensor]],
    optimizer: AdamW,
    phase: str,
) -> tuple[float, float]:
    """Go once through a phase's images; return mean loss and accuracy."""
    criterion = nn.CrossEntropyLoss()
    running_loss, running_corrects, count = 0.0, 0, 0
    for inputs, labels in batches:
        optimizer.zero_grad()
        with torch.set_grad_enabled(phase == "train"):
            outputs = model(inputs)
            _, preds = torch.max(outputs, 1)
            loss = criterion(outputs, labels)
            if phase == "train":
                loss.backward()
                optimizer.step()
        running_loss += loss.item() * inputs.size(0)
        running_corrects += int(torch.sum(preds == labels))
        count += inputs.size(0)
    return running_loss / count, running_corrects / count
