"""The loop behind every training: epochs of steps, validation, what is kept, what is resumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from tqdm.auto import tqdm

from tlcourse import metrics
from tlcourse.backbones.hooks import main_logits
from tlcourse.freezing.freeze import unfreeze_in_training
from tlcourse.loaders.batches import TrainingBatches
from tlcourse.optim.factory import Keep
from tlcourse.training.activation_cache import Feeding
from tlcourse.training.checkpoint import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from tlcourse.training.history import Recorder
from tlcourse.training.predict import probabilities

VALIDATION_BATCH = 64


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


@dataclass
class Best:
    """A copy of the weights of the best epoch so far, if they are wanted.

    >>> best = Best("best_loss")
    >>> model = nn.Linear(1, 1)
    >>> best.offer(model, 1, {"val_auc": 0.8, "val_loss": 0.5})
    >>> best.held(interrupted=False)
    1
    """

    keep: Keep
    score: tuple[float, ...] = (-float("inf"),)
    weights: dict[str, Tensor] = field(default_factory=dict)
    epoch: int | None = None

    def offer(self, model: nn.Module, epoch: int, scores: Mapping[str, float]) -> None:
        """Copy the weights if this epoch's scores are the best so far."""
        if self.keep == "last":
            self.epoch = epoch
            return
        auc, loss = scores["val_auc"], scores["val_loss"]
        score = (auc, -loss) if self.keep == "best" else (-loss,)
        if score > self.score:
            self.score, self.epoch = score, epoch
            # state_dict() alone refers to the very tensors that go on changing.
            self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        """Put the copied weights back, if there are any."""
        if self.weights:
            model.load_state_dict(self.weights)

    def held(self, interrupted: bool) -> int | None:
        """Return the epoch whose weights the model holds at the end."""
        return None if interrupted and self.keep == "last" else self.epoch

    def message(self, epoch: int, epochs: int) -> str:
        """Say what an interrupted training leaves."""
        held = self.held(interrupted=True)
        kept = "its last step" if held is None else f"epoch {held}, the best so far"
        return f"Interrupted in epoch {epoch} of {epochs}: the model holds the weights of {kept}."

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"score": list(self.score), "weights": self.weights, "epoch": self.epoch}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.score, self.weights = tuple(state["score"]), dict(state["weights"])
        self.epoch = state["epoch"]


@dataclass
class Loop:
    """What a training consists of, and the epochs around `train_epoch`.

    Attributes:
        model: The whole network.
        labels: Of the validation images `(N,)`.
        feeding: What the epochs are fed with.
        batches: The order of the training images.
        loss_function: From logits `(N, C)` and labels to the loss.
        optimizer: Makes one step per batch.
        scheduler: Makes one step after each of them, or None.
        recorder: Writes down steps and epochs.
        best: Keeps the weights that are wanted.
        releases: The lowest stage to release before an epoch.
        checkpoint: File to write after every epoch and to resume from, or None.
        settings: What a checkpoint is compared with.
    """

    model: nn.Module
    labels: NDArray[np.int64]
    feeding: Feeding
    batches: TrainingBatches
    loss_function: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    recorder: Recorder
    best: Best
    releases: Mapping[int, str]
    checkpoint: Path | None
    settings: Mapping[str, Any]

    def run(self, epochs: int, progress: bool) -> bool:
        """Train, keep the weights that are wanted, and tell whether Ctrl-C ended it early."""
        epoch = self._resume()
        steps = len(self.batches)
        bar = tqdm(total=epochs * steps, initial=epoch * steps, leave=False, disable=not progress)
        interrupted = False
        try:
            while epoch < epochs:
                epoch += 1
                self._epoch(epoch, bar)
                self._save(epoch)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            bar.close()
            self.best.restore(self.model)
            self.model.eval()
        if interrupted:
            print(self.best.message(epoch, epochs))
        return interrupted

    def _epoch(self, epoch: int, bar: Any) -> None:
        def counted() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in self.batches:
                yield batch
                bar.update()

        if epoch in self.releases:
            self._release(self.releases[epoch])
        self.feeding.turn_to(epoch)
        self._train(counted())
        scores = {"train_loss": self.recorder.train_loss(), **self._validate()}
        self.recorder.epoch(scores)
        self.best.offer(self.model, epoch, scores)
        bar.set_postfix_str(f"validation AUC {scores['val_auc']:.3f}")

    def _train(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        train_epoch(
            self.feeding.model,
            batches,
            self.loss_function,
            self.optimizer,
            self.scheduler,
            self.recorder,
        )

    def _validate(self) -> dict[str, float]:
        probs = probabilities(self.feeding.model, self.feeding.val.in_order(VALIDATION_BATCH))
        one_class = len(np.unique(self.labels)) < 2
        return {
            "val_loss": metrics.log_loss(self.labels, probs),
            "val_accuracy": metrics.accuracy(self.labels, probs),
            "val_auc": float("nan") if one_class else metrics.auc(self.labels, probs),
        }

    def _release(self, down_to: str) -> None:
        unfreeze_in_training(self.model, down_to, self.optimizer)
        self.feeding.arrange()
        self.batches.source = self.feeding.train

    def _save(self, epoch: int) -> None:
        if self.checkpoint is None:
            return
        state = {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "recorder": self.recorder.state(),
            "best": self.best.state(),
            "batches": [generator.get_state() for generator in self.batches.generators],
            "random": random_state(),
        }
        save_checkpoint(self.checkpoint, state, self.settings)

    def _resume(self) -> int:
        """Go on from the checkpoint, if there is one; return the number of finished epochs."""
        if self.checkpoint is None:
            return 0
        state = load_checkpoint(self.checkpoint, self.settings)
        if state is None:
            return 0
        for epoch in (e for e in self.releases if e <= state["epoch"]):
            self._release(self.releases[epoch])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.recorder.load_state(state["recorder"])
        self.best.load_state(state["best"])
        for generator, saved in zip(self.batches.generators, state["batches"], strict=True):
            generator.set_state(saved)
        restore_random_state(state["random"])
        return int(state["epoch"])
