"""The same with Lightning: a LightningModule around the network, a Trainer around the loop.

The frozen backbone runs in eval mode under `no_grad`, as Lightning's page on transfer learning
has it; that is the fastest way it can run without a cache.
"""

from __future__ import annotations

import logging
import warnings

import lightning as L  # type: ignore[import-not-found]
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.contenders.pictures import loaders
from benchmarks.jobs import BACKBONE, LR, WEIGHT_DECAY, Job, plain_layout
from tlcourse.datasets import ImageSet


class Classifier(L.LightningModule):  # type: ignore[misc]
    """A network with its loss and its optimizer.

    Args:
        model: MobileNetV2.
        frozen: Whether its backbone is.
    """

    def __init__(self, model: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.features = model.get_submodule("features")
        self.classifier = model.get_submodule("classifier")
        self.frozen = frozen
        self.features.requires_grad_(not frozen)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(N, C)`."""
        if self.frozen:
            self.features.eval()
            with torch.no_grad():
                maps = self.features(images)
        else:
            maps = self.features(images)
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(maps, 1).flatten(1))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        """Return the loss of a training batch."""
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        """Write down loss and accuracy of a validation batch."""
        images, labels = batch
        logits = self(images)
        self.log("val_loss", F.cross_entropy(logits, labels))
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW over what may move."""
        moving = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(moving, lr=LR, weight_decay=WEIGHT_DECAY)


def train(model: nn.Module, data: ImageSet, job: Job) -> nn.Module:
    """Train with a Trainer that does nothing beside training and validation."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    batches = loaders(data, job)
    classifier = Classifier(plain_layout(model), frozen=job.frozen == BACKBONE)
    trainer = L.Trainer(
        max_epochs=job.epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(classifier, batches["train"], batches["val"])
    trained: nn.Module = classifier
    return trained
