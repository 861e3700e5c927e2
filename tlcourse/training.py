"""Train a network, and ask it for probabilities.

`train_epoch` is the loop that every lesson is about, in plain torch. `fit` prepares what the loop
needs, scores each epoch on the validation images and writes down what happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from tlcourse import metrics
from tlcourse.backbones import preprocess
from tlcourse.batches import (
    Augment,
    PreparedImages,
    TrainingBatches,
    main_logits,
    model_device,
)
from tlcourse.datasets import ImageSet
from tlcourse.history import History, Recorder, diverged
from tlcourse.observe import evaluating
from tlcourse.optim import check_optimizer, trainable_parameters
from tlcourse.runtime import device, seeded
from tlcourse.settings import (
    Keep,
    MakeOptimizer,
    MakeSchedule,
    check_choices,
    make_class_weights,
    make_optimizer,
    make_scheduler,
)

VALIDATION_BATCH = 64


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
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train `model` on `data.train` with cross-entropy; leave it trained and in eval mode.

    Each epoch deals all training images into batches in a new order; a single image left over
    joins the last batch. After each epoch the validation images are scored in eval mode. The test
    images are not looked at. Frozen stages stay as they are (see `tlcourse.freezing`).

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
        seed: Seed of order, augmentation and dropout; the global generators stay as they were.
        progress: Whether to show a progress bar.

    Returns:
        What happened, per epoch and per step.

    Raises:
        ValueError: If an argument is out of range, the head does not fit the classes, nothing
            may move, or optimizer and schedule do not belong together.
        FloatingPointError: If the loss is no longer a finite number.

    >>> from tlcourse.backbones import load_backbone
    >>> from tlcourse.datasets import load_images
    >>> data = load_images("phantom", n=60)
    >>> model = load_backbone("mobilenet_v2", weights=None, num_classes=2)
    >>> history = fit(model, data, epochs=1, size=32, progress=False)
    >>> len(history.table), model.training
    (1, False)
    """
    check_choices(epochs, keep, data)
    model.to(_training_device(model, optimizer)).to(memory_format=torch.channels_last)
    # What batches are drawn from only has to answer `take(indices)`: activations cached at the
    # boundary of a frozen part, with the stages above it as the model, fit in here.
    train, val = (PreparedImages(model, part.images, size=size) for part in (data.train, data.val))
    _check_answers(model, train, data)
    batches = TrainingBatches(train, data.train.labels, batch_size, augment=augment, seed=seed)
    optimizer = make_optimizer(model, optimizer)
    check_optimizer(model, optimizer, stacklevel=3)
    scheduler = make_scheduler(schedule, optimizer, epochs * len(batches))
    weights = make_class_weights(class_weights, data)
    loss_function = nn.CrossEntropyLoss(weight=weights).to(model_device(model))
    recorder, best = Recorder(optimizer), _Best(keep)
    loop = _Loop(model, batches, loss_function, optimizer, scheduler, recorder)
    with seeded(seed):
        interrupted = loop.run(epochs, partial(_validate, model, val, data), best, progress)
    return recorder.history(interrupted=interrupted, kept_epoch=best.held(interrupted))


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


def predict(
    model: nn.Module, images: NDArray[np.uint8], *, size: int = 128, batch_size: int = 64
) -> NDArray[np.float64]:
    """Return the probability of each class for each image; the model stays as it was.

    The network answers in eval mode; whatever mode its modules were in is restored.

    Args:
        model: A classifier.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`.
        size: Side in pixels of the images that the network sees; take what it was trained with.
        batch_size: Images in a batch, at least 1.

    Returns:
        Probabilities `(N, C)`, float64; each row sums to 1.

    Raises:
        ValueError: If there is no image.
        FloatingPointError: If the network's answers are not finite numbers.

    >>> from torchvision.models import mobilenet_v2
    >>> model = mobilenet_v2(num_classes=2)
    >>> predict(model, np.zeros((3, 28, 28), np.uint8), size=32).shape, model.training
    ((3, 2), True)
    """
    if len(images) == 0:
        raise ValueError("expected at least one image, got none")
    starts, place = range(0, len(images), batch_size), model_device(model)
    return _probabilities(
        model, (preprocess(model, images[i : i + batch_size], size).to(place) for i in starts)
    )


class _Best:
    """A copy of the weights of the best epoch so far, if they are wanted."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._score: tuple[float, ...] = (-float("inf"),)
        self._state: dict[str, Tensor] = {}
        self._epoch: int | None = None

    def offer(self, model: nn.Module, epoch: int, scores: dict[str, float]) -> None:
        if self._keep == "last":
            self._epoch = epoch
            return
        auc, loss = scores["val_auc"], scores["val_loss"]
        score = (auc, -loss) if self._keep == "best" else (-loss,)
        if score > self._score:
            self._score, self._epoch = score, epoch
            # state_dict() alone refers to the very tensors that go on changing.
            self._state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        if self._state:
            model.load_state_dict(self._state)

    def held(self, interrupted: bool) -> int | None:
        return None if interrupted and self._keep == "last" else self._epoch

    def message(self, epoch: int, epochs: int) -> str:
        held = self.held(interrupted=True)
        kept = "its last step" if held is None else f"epoch {held}, the best so far"
        return f"Interrupted in epoch {epoch} of {epochs}: the model holds the weights of {kept}."


@dataclass(frozen=True)
class _Loop:
    """What a training consists of, and the epochs around `train_epoch`."""

    model: nn.Module
    batches: TrainingBatches
    loss_function: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    recorder: Recorder

    def run(
        self, epochs: int, validate: Callable[[], dict[str, float]], best: _Best, progress: bool
    ) -> bool:
        """Train, keep the weights that are wanted, and tell whether Ctrl-C ended it early."""
        bar = tqdm(total=epochs * len(self.batches), leave=False, disable=not progress)
        interrupted = False
        try:
            for epoch in range(1, epochs + 1):
                self._epoch(bar)
                scores = {"train_loss": self.recorder.train_loss(), **validate()}
                self.recorder.epoch(scores)
                best.offer(self.model, epoch, scores)
                bar.set_postfix_str(f"validation AUC {scores['val_auc']:.3f}")
        except KeyboardInterrupt:
            interrupted = True
        finally:
            bar.close()
            best.restore(self.model)
            self.model.eval()
        if interrupted:
            print(best.message(epoch, epochs))
        return interrupted

    def _epoch(self, bar: Any) -> None:
        def counted() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in self.batches:
                yield batch
                bar.update()

        train_epoch(
            self.model,
            counted(),
            self.loss_function,
            self.optimizer,
            self.scheduler,
            self.recorder,
        )


def _validate(model: nn.Module, val: PreparedImages, data: ImageSet) -> dict[str, float]:
    labels, probs = data.val.labels, _probabilities(model, val.in_order(VALIDATION_BATCH))
    one_class = len(np.unique(labels)) < 2
    return {
        "val_loss": metrics.log_loss(labels, probs),
        "val_accuracy": metrics.accuracy(labels, probs),
        "val_auc": float("nan") if one_class else metrics.auc(labels, probs),
    }


def _probabilities(model: nn.Module, batches: Iterable[Tensor]) -> NDArray[np.float64]:
    with evaluating(model), torch.inference_mode():
        logits = torch.cat([main_logits(model(images)).float().cpu() for images in batches])
    if not torch.isfinite(logits).all():
        raise diverged("the network's answers are not finite numbers")
    return np.asarray(logits.double().softmax(dim=1).numpy())


def _check_answers(model: nn.Module, train: PreparedImages, data: ImageSet) -> None:
    probs = _probabilities(model, [train.take(torch.tensor([0]))])
    if probs.shape[1] != data.num_classes:
        raise ValueError(
            f"the network gives {probs.shape[1]} answers, but {data.name!r} has "
            f"{data.num_classes} classes: call replace_head(model, {data.num_classes}) first"
        )


def _training_device(model: nn.Module, optimizer: Optimizer | MakeOptimizer | None) -> torch.device:
    trainable_parameters(model)  # for its error, before any work
    present = model_device(model)
    # The momentum of an optimizer in use would stay behind on the old device.
    in_use = isinstance(optimizer, Optimizer) and bool(optimizer.state)
    return present if in_use or present.type != "cpu" else device()
