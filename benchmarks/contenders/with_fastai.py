"""The same with fastai: a DataBlock and `vision_learner`.

Body and head are the layers of torchvision's MobileNetV2, not fastai's own larger head, and a
frozen body is frozen whole (`train_bn=False`; by default fastai goes on training its batch norms,
which takes longer). The training loader drops the images that fill no batch, as fastai does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from fastai.vision.all import (  # type: ignore[import-not-found]
    CategoryBlock,
    CrossEntropyLossFlat,
    DataBlock,
    DataLoaders,
    ImageBlock,
    IndexSplitter,
    Normalize,
    OptimWrapper,
    Resize,
    ResizeMethod,
    accuracy,
    default_split,
    model_meta,
    vision_learner,
)
from torch import nn

from benchmarks.jobs import BACKBONE, LR, MEAN, STD, WEIGHT_DECAY, Job, plain_layout
from tlcourse.datasets import ImageSet


def train(model: nn.Module, data: ImageSet, job: Job) -> nn.Module:
    """Train with `Learner.fit`, the body frozen or not."""
    plain_layout(model)
    classifier = model.get_submodule("classifier").children()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), *classifier)
    learner = vision_learner(
        _loaders(data, job),
        _architecture(model),
        n_out=data.num_classes,
        custom_head=head,
        init=None,
        loss_func=CrossEntropyLossFlat(),
        opt_func=partial(OptimWrapper, opt=torch.optim.AdamW),
        train_bn=False,
        metrics=accuracy,
    )
    if job.frozen != BACKBONE:
        learner.unfreeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit(job.epochs, lr=LR, wd=WEIGHT_DECAY)
    trained: nn.Module = learner.model
    return trained


def _architecture(model: nn.Module) -> Callable[..., nn.Module]:
    """Register the network as one that fastai knows to cut before its last child."""

    def build(pretrained: bool) -> nn.Module:
        return model

    # `vision_learner` takes `cut`, but does not hand it on (2.8.12).
    model_meta[build] = {"cut": -1, "split": default_split}
    return build


def _loaders(data: ImageSet, job: Job) -> DataLoaders:
    grey = np.concatenate([data.train.images, data.val.images])
    images = np.repeat(grey[..., None], 3, axis=3)
    labels = np.concatenate([data.train.labels, data.val.labels])
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=lambda index: images[index],
        get_y=lambda index: int(labels[index]),
        splitter=IndexSplitter(range(len(data.train), len(labels))),
        item_tfms=Resize(job.size, method=ResizeMethod.Squish),
        batch_tfms=Normalize.from_stats(MEAN, STD),
    )
    return block.dataloaders(
        range(len(labels)),
        bs=job.batch_size,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
        device=torch.device("cpu"),
    )
