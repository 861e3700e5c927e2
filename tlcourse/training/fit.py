"""Train a network: `fit` prepares what the loop needs and writes down what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from tlcourse.backbones.preprocessing import preprocess
from tlcourse.datasets.base import ImageSet
from tlcourse.freezing.freeze import plan_unfreezing
from tlcourse.loaders.augment import Augment
from tlcourse.loaders.batches import TrainingBatches, model_device
from tlcourse.optim.factory import (
    Keep,
    MakeOptimizer,
    MakeSchedule,
    check_choices,
    make_class_weights,
    make_optimizer,
    make_scheduler,
)
from tlcourse.optim.groups import check_optimizer, trainable_parameters
from tlcourse.runtime import device, seeded
from tlcourse.training.activation_cache import Feeding
from tlcourse.training.checkpoint import fingerprint
from tlcourse.training.history import History, Recorder
from tlcourse.training.loop import Best, Loop
from tlcourse.training.malloc import large_buffers_kept
from tlcourse.training.predict import probabilities
from tlcourse.training.settings import (
    describe_augment,
    describe_frozen,
    describe_optimizer,
    describe_schedule,
    plain,
)

_TRIED = 8
"""Images that an augmentation is known by."""


def fit(
    model: nn.Module,
    data: ImageSet,
    *,
    epochs: int = 10,
    optimizer: Optimizer | MakeOptimizer | None = None,
    schedule: LRScheduler | MakeSchedule | None = None,
    batch_size: int = 32,
    size: int = 128,
    augment: Literal["flip"] | Augment | None = None,
    class_weights: Literal["balanced"] | ArrayLike | Tensor | None = None,
    keep: Keep = "last",
    unfreeze_at: Mapping[str, int] | None = None,
    views: int | None = None,
    cache: bool = True,
    checkpoint: Path | str | None = None,
    gradients: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train `model` on `data.train` with cross-entropy; leave it trained and in eval mode.

    Each epoch deals all training images into batches in a new order; a single image left over
    joins the last batch. After each epoch the validation images are scored in eval mode. The test
    images are not looked at. Frozen stages stay as they are (see `tlcourse.freezing`), and run only
    once: training goes on from their cached activations, unless images are augmented anew in every
    epoch.

    Ctrl-C ends the training and keeps what was learned; the history says so. The same seed gives
    the same weights, bit for bit, on the CPU of one machine with one number of threads.

    Args:
        model: A network with as many answers as `data` has classes. A model on the CPU moves to
            `runtime.device()`, unless its optimizer has already made steps; others stay put.
        data: Images and labels.
        epochs: Times that every training image is seen, at least 1.
        optimizer: An optimizer; or a function that makes one from a list of param groups (one
            group named "all" with everything that may move), such as
            `functools.partial(torch.optim.SGD, lr=1e-3)`; None is AdamW with rate 1e-3 and weight
            decay 0.01.
        schedule: A scheduler of that optimizer, or a function of the optimizer and the total
            number of steps that makes one, such as `optim.warmup_cosine`; it makes one step after
            every optimizer step. None keeps the rates as they are.
        batch_size: Images in a batch, at least 2.
        size: Side in pixels of the images that the network sees.
        augment: None, "flip" (left to right, every other image) or a function of a prepared batch
            `(N, 3, H, W)` and a CPU `torch.Generator` that returns such a batch.
        class_weights: None; "balanced" for weights N / (C * images of the class); or C weights.
        keep: "last" keeps the last epoch's weights; "best" goes back to those of the epoch with
            the highest validation AUC (of equal ones, with the lowest loss), "best_loss" to those
            with the lowest validation loss.
        unfreeze_at: Epoch (from 2) before which a frozen stage is released, with all above it, by
            name: `{"stage4": 3, "stage3": 5}` is gradual unfreezing (Howard & Ruder 2018),
            `{"stem": 6}` a linear probe, then fine-tuning (Kumar et al. 2022). What is released
            starts without stale gradients or momentum. An optimizer given ready-made must hold
            it from the start (see `unfreezing` of `optim.param_groups`).
        views: Number of augmented versions of each image, drawn once and taken in turn, epoch by
            epoch; None draws anew in every epoch, and then nothing can be cached.
        cache: Whether frozen stages may run only once. The images are the same either way;
            activations, and so weights, differ by rounding.
        checkpoint: File written after every epoch. If it is there at the start, the training goes
            on from it and ends with the weights, bit for bit, of one that was never stopped. Call
            `fit` with a network in the state in which that training began. Every option is
            compared, of optimizer and schedule as well; an augmentation is known by what it makes
            of a few images (it is called twice before the first step), a frozen part by its
            numbers.
        gradients: Whether to write down the norm of each group's gradient in every step.
        seed: Seed of order, augmentation and dropout; the global generators stay as they were.
        progress: Whether to show a progress bar.

    Returns:
        What happened, per epoch and per step.

    Raises:
        ValueError: If an argument is out of range, the head does not fit the classes, nothing
            may move, or optimizer and schedule do not belong together.
        CheckpointMismatch: If the checkpoint belongs to another training; it says what differs.
        FloatingPointError: If the loss is no longer a finite number.

    >>> from tlcourse.backbones import load_backbone
    >>> from tlcourse.datasets import load_images
    >>> data = load_images("phantom", n=60)
    >>> model = load_backbone("mobilenet_v2", weights=None, num_classes=2)
    >>> history = fit(model, data, epochs=1, size=32, progress=False)
    >>> len(history.table), model.training
    (1, False)
    """
    plan = _Plan(**locals())  # its fields are this function's arguments
    with large_buffers_kept():
        loop = plan.loop()
        with seeded(seed):
            interrupted = loop.run(epochs, progress)
    return loop.recorder.history(interrupted=interrupted, kept_epoch=loop.best.held(interrupted))


@dataclass(frozen=True)
class _Plan:
    """The arguments of `fit`, and how they become a loop."""

    model: nn.Module
    data: ImageSet
    epochs: int
    optimizer: Optimizer | MakeOptimizer | None
    schedule: LRScheduler | MakeSchedule | None
    batch_size: int
    size: int
    augment: Literal["flip"] | Augment | None
    class_weights: Literal["balanced"] | ArrayLike | Tensor | None
    keep: Keep
    unfreeze_at: Mapping[str, int] | None
    views: int | None
    cache: bool
    checkpoint: Path | str | None
    gradients: bool
    seed: int
    progress: bool

    def loop(self) -> Loop:
        started = perf_counter()
        check_choices(self.epochs, self.keep, self.data)
        model, labels = self.model, self.data.train.labels
        releases = plan_unfreezing(model, self.unfreeze_at, self.epochs)
        model.to(_training_device(model, self.optimizer)).to(memory_format=torch.channels_last)
        feeding = self._feeding()
        batches = TrainingBatches(
            feeding.train, labels, self.batch_size, augment=feeding.fresh_augment, seed=self.seed
        )
        lowest = releases[max(releases)] if releases else None
        optimizer = make_optimizer(model, self.optimizer, unfreezing=lowest)
        check_optimizer(model, optimizer, unfreezing=lowest, stacklevel=4)
        steps, weights = (
            self.epochs * len(batches),
            make_class_weights(self.class_weights, self.data),
        )
        # Before a scheduler changes the optimizer's options.
        settings = {} if self.checkpoint is None else self._settings(optimizer, steps, weights)
        return Loop(
            model=model,
            labels=self.data.val.labels,
            feeding=feeding,
            batches=batches,
            loss_function=nn.CrossEntropyLoss(weight=weights).to(model_device(model)),
            optimizer=optimizer,
            scheduler=make_scheduler(self.schedule, optimizer, steps),
            recorder=Recorder(optimizer, gradients=self.gradients, started=started),
            best=Best(self.keep),
            releases=releases,
            checkpoint=None if self.checkpoint is None else Path(self.checkpoint),
            settings=settings,
        )

    def _feeding(self) -> Feeding:
        feeding = Feeding(
            self.model,
            self.data,
            size=self.size,
            augment=self.augment,
            views=self.views,
            cache=self.cache,
            seed=self.seed,
        )
        _check_num_outputs(feeding, self.data)
        return feeding

    def _settings(self, optimizer: Optimizer, steps: int, weights: Tensor | None) -> dict[str, Any]:
        """Return what makes this training this one, as plain values, the same in any process."""
        given = ("epochs", "batch_size", "size", "keep", "views", "cache", "gradients", "seed")
        train, val = self.data.train, self.data.val
        in_words = weights is None or isinstance(self.class_weights, str)
        some = preprocess(self.model, train.images[:_TRIED], self.size)
        return {
            **{name: getattr(self, name) for name in given},
            "augment": describe_augment(self.augment, some.to(model_device(self.model)), self.seed),
            "unfreeze_at": dict(self.unfreeze_at or {}),
            "class_weights": self.class_weights if in_words else plain(weights),
            "model": f"{type(self.model).__name__}, "
            f"{sum(p.numel() for p in self.model.parameters())} parameters",
            **describe_frozen(self.model),
            "images": fingerprint(train.images, train.labels, val.images, val.labels),
            **describe_optimizer(optimizer, self.model),
            **describe_schedule(self.schedule, optimizer, steps, self.seed),
        }


def _check_num_outputs(feeding: Feeding, data: ImageSet) -> None:
    outputs = probabilities(feeding.model, [feeding.train.take(torch.tensor([0]))]).shape[1]
    if outputs != data.num_classes:
        raise ValueError(
            f"the network gives {outputs} answers, but {data.name!r} has "
            f"{data.num_classes} classes: call replace_head(model, {data.num_classes}) first"
        )


def _training_device(model: nn.Module, optimizer: Optimizer | MakeOptimizer | None) -> torch.device:
    trainable_parameters(model)  # for its error, before any work
    present = model_device(model)
    # The momentum of an optimizer in use would stay behind on the old device.
    in_use = isinstance(optimizer, Optimizer) and bool(optimizer.state)
    return present if in_use or present.type != "cpu" else device()
