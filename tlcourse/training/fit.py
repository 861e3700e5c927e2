"""Train a network: `fit` prepares what `train_epoch` needs and writes down what happened.

The way of an image: `fit` hands `data.train` to an `ActivationCache`, and `train_epoch` makes a
step with each batch that comes from there (`tlcourse.loaders.batches`). The loop is plain torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from tlcourse.backbones.hooks import main_logits
from tlcourse.datasets.base import ImageSet
from tlcourse.freezing.freeze import lowest_unfrozen, plan_unfreezing, unfreeze_in_training
from tlcourse.loaders.augment import Augment
from tlcourse.loaders.batches import Loader, LoaderBatches
from tlcourse.optim.factory import (
    MakeOptimizer,
    MakeSchedule,
    make_loss_function,
    make_scheduler,
    prepare_optimizer,
)
from tlcourse.runtime import seeded
from tlcourse.training.activation_cache import ActivationCache
from tlcourse.training.checkpoint import (
    Best,
    Keep,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from tlcourse.training.history import History, Recorder
from tlcourse.training.malloc import large_buffers_kept
from tlcourse.training.predict import validation_scores
from tlcourse.training.settings import (
    describe_frozen,
    describe_optimizer,
    describe_schedule,
    plain,
)


def fit(
    model: nn.Module,
    data: ImageSet | Loader,
    val: Loader | None = None,
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

    Each epoch takes all training images in a new order, batch by batch; a single image left over
    joins the last batch. After each epoch the validation images are scored in eval mode. The test
    images are not looked at. Frozen stages stay as they are (see `tlcourse.freezing`), and run only
    once: training goes on from their cached activations, unless images are augmented anew in every
    epoch.

    Ctrl-C ends the training and keeps what was learned; the history says so. The same seed gives
    the same weights, bit for bit, on the CPU of one machine with one number of threads.

    Args:
        model: A network with as many logits as `data` has classes. A model on the CPU moves to
            `runtime.device()`, unless its optimizer has already made steps; others stay put.
        data: Images and labels; or a loader of your own, such as a `torch.utils.data.DataLoader`,
            that gives batches of prepared images `(N, 3, H, W)`, float, and labels `(N,)`, int. A
            loader prepares, shuffles and augments by itself: `batch_size`, `size`, `augment`,
            `views` and `cache` do not apply. Its batches cannot be cached, and its order is not
            part of a checkpoint: a resumed training goes on, but not bit for bit.
        val: With a loader, another one for validation. An `ImageSet` brings its own images.
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
    started = perf_counter()
    _check_arguments(data, val, epochs, keep, augment, views)
    unfreezing = plan_unfreezing(model, unfreeze_at, epochs)
    with large_buffers_kept(), seeded(seed):
        lowest = lowest_unfrozen(unfreezing)
        optimizer = prepare_optimizer(model, optimizer, data, size, unfreezing=lowest)
        inputs: ActivationCache | LoaderBatches = (
            ActivationCache(model, data, batch_size, size, augment, views, cache, seed)
            if isinstance(data, ImageSet)
            else LoaderBatches(model, data, val)
        )
        loss_function = make_loss_function(class_weights, data, model)
        recorder = Recorder(optimizer, gradients=gradients, started=started)
        training = Training(
            model, inputs, loss_function, optimizer, recorder, Best(keep), unfreezing
        )
        settings = training.settings(schedule, epochs, seed) if checkpoint is not None else {}
        training.scheduler = make_scheduler(schedule, optimizer, epochs * len(inputs))
        return training.run(epochs, checkpoint, settings, progress=progress)


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss_function: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    recorder: Recorder | None = None,
) -> None:
    """Train on each batch once: the loop behind every training in this course.

    Args:
        model: The network; it is left in train mode.
        batches: Pairs of images `(N, 3, H, W)` and labels `(N,)` on the model's device.
        loss_function: From logits `(N, C)` and labels to the loss, such as `nn.CrossEntropyLoss()`.
        optimizer: Makes one step per batch.
        scheduler: Makes one step after each step of the optimizer.
        recorder: Writes down the loss and the rates of each step.

    >>> import torch
    >>> model = nn.Linear(2, 2)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> batches = [(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))]
    >>> train_epoch(model, batches, nn.CrossEntropyLoss(), optimizer)
    """
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        logits = main_logits(model(images))
        loss = loss_function(logits, labels)
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(loss, len(labels))  # before the schedule moves on to the next rates
        if scheduler is not None:
            scheduler.step()


@dataclass
class Training:
    """A training on its way: everything in it that changes from step to step.

    Attributes:
        model: The whole network.
        inputs: Batches, and the part of the network that takes them.
        loss_function: From logits `(N, C)` and labels `(N,)` to the loss.
        optimizer: Makes one step per batch.
        recorder: Writes down steps and epochs.
        best: Keeps the weights that are wanted.
        unfreezing: The lowest stage to unfreeze before an epoch.
        scheduler: Makes one step after each of the optimizer's, or None.
    """

    model: nn.Module
    inputs: ActivationCache | LoaderBatches
    loss_function: nn.Module
    optimizer: Optimizer
    recorder: Recorder
    best: Best
    unfreezing: Mapping[int, str]
    scheduler: LRScheduler | None = None

    def run(
        self,
        epochs: int,
        checkpoint: Path | str | None,
        settings: Mapping[str, Any],
        *,
        progress: bool,
    ) -> History:
        """Train, keep the weights that are wanted, and tell what happened.

        Args:
            epochs: Number of the last epoch.
            checkpoint: File to go on from, if it is there, and to write after every epoch.
            settings: What the checkpoint is compared with.
            progress: Whether to show a bar.
        """
        path = None if checkpoint is None else Path(checkpoint)
        epoch = 0 if path is None else self._resume(load_checkpoint(path, settings))
        steps, interrupted = len(self.inputs), False
        bar = tqdm(total=epochs * steps, initial=epoch * steps, leave=False, disable=not progress)
        try:
            while epoch < epochs:
                epoch += 1
                self._epoch(epoch, bar)
                if path is not None:
                    save_checkpoint(path, self._state(epoch), settings)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            bar.close()
            self.best.restore(self.model)
            self.model.eval()
        if interrupted:
            print(self.best.message(epoch, epochs))
        held = self.best.held(interrupted)
        return self.recorder.history(interrupted=interrupted, kept_epoch=held)

    def settings(
        self, schedule: LRScheduler | MakeSchedule | None, epochs: int, seed: int
    ) -> dict[str, Any]:
        """Return what makes this training this one, as plain values, the same in any process.

        To be called before a scheduler changes the optimizer's options.
        """
        weights = getattr(self.loss_function, "weight", None)
        count = sum(p.numel() for p in self.model.parameters())
        return {
            "epochs": epochs,
            "seed": seed,
            "keep": self.best.keep,
            "gradients": self.recorder.gradients,
            "unfreezing": {str(epoch): stage for epoch, stage in self.unfreezing.items()},
            "class_weights": plain(weights),
            "model": f"{type(self.model).__name__}, {count} parameters",
            **describe_frozen(self.model),
            **self.inputs.settings(),
            **describe_optimizer(self.optimizer, self.model),
            **describe_schedule(schedule, self.optimizer, epochs * len(self.inputs), seed),
        }

    def _epoch(self, epoch: int, bar: Any) -> None:
        self._unfreeze(epoch)
        train_epoch(
            self.inputs.model,
            _counted(self.inputs.epoch(epoch), bar),
            self.loss_function,
            self.optimizer,
            self.scheduler,
            self.recorder,
        )
        train_loss = self.recorder.train_loss()  # its error comes first: it names the step
        validated = validation_scores(self.inputs.model, self.inputs.validation())
        scores = {"train_loss": train_loss, **validated}
        self.recorder.epoch(scores)
        self.best.offer(self.model, epoch, scores)
        bar.set_postfix_str(f"validation AUC {scores['val_auc']:.3f}")

    def _unfreeze(self, epoch: int) -> None:
        if epoch in self.unfreezing:
            unfreeze_in_training(self.model, self.unfreezing[epoch], self.optimizer)
            self.inputs.update_boundary()

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "recorder": self.recorder.state(),
            "best": self.best.state(),
            "batches": [generator.get_state() for generator in self.inputs.generators],
            "random": random_state(),
        }

    def _resume(self, state: Mapping[str, Any] | None) -> int:
        """Go on from a checkpoint's state, if there is one; return the number of done epochs."""
        if state is None:
            return 0
        for epoch in range(1, state["epoch"] + 1):
            self._unfreeze(epoch)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.recorder.load_state(state["recorder"])
        self.best.load_state(state["best"])
        for generator, saved in zip(self.inputs.generators, state["batches"], strict=True):
            generator.set_state(saved)
        restore_random_state(state["random"])
        return int(state["epoch"])


def _check_arguments(
    data: ImageSet | Loader,
    val: Loader | None,
    epochs: int,
    keep: str,
    augment: object,
    views: int | None,
) -> None:
    if epochs < 1:
        raise ValueError(f"expected at least 1 epoch, got {epochs}")
    if keep not in get_args(Keep):
        raise ValueError(f"expected keep as one of {get_args(Keep)}, got {keep!r}")
    if not isinstance(data, ImageSet):
        if augment is not None or views is not None:
            raise ValueError("augment and views do not go with a loader: let it augment by itself")
        return
    if val is not None:
        raise ValueError("val goes with a loader: an ImageSet has validation images of its own")
    if keep == "best" and len(np.unique(data.val.labels)) < 2:
        raise ValueError(
            "keep='best' compares AUC, which needs two classes among the validation images: "
            "use keep='best_loss'"
        )


def _counted(batches: Iterable[tuple[Tensor, Tensor]], bar: Any) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in batches:
        yield batch
        bar.update()
