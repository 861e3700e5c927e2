"""Record what a training did: one row per epoch, one per optimizer step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.optim import Optimizer

COLUMNS = ["epoch", "train_loss", "val_loss", "val_accuracy", "val_auc", "lr", "seconds"]
"""Columns of `History.table`."""


@dataclass(frozen=True)
class History:
    """What a training did, as two tables.

    Attributes:
        table: One row per finished epoch: `epoch` (from 1), `train_loss` (mean over images of the
            loss while it was training), `val_loss`, `val_accuracy`, `val_auc` (in eval mode), `lr`
            (the highest rate in the epoch's last step), `seconds` (the first epoch's include what
            came before it: preparing images, running frozen stages once).
        steps: One row per optimizer step: `step` (from 0), `epoch`, `loss`, `lr/NAME`, the rate
            that the group NAME had in this step, and, if asked for, `grad/NAME`, the L2 norm of
            the gradient of its parameters (0 where they have none).
        interrupted: Whether Ctrl-C ended the training early.
        kept_epoch: The epoch whose weights the model holds, None if it stopped inside an epoch.

    >>> table = pd.DataFrame({"epoch": [1], "val_auc": [0.91]})
    >>> History(table, pd.DataFrame(), interrupted=False, kept_epoch=1)
     epoch  val_auc
         1     0.91
    """

    table: pd.DataFrame
    steps: pd.DataFrame
    interrupted: bool
    kept_epoch: int | None

    def __repr__(self) -> str:
        text = self.table.to_string(index=False, float_format="{:.4g}".format)
        return "\n".join([text, *self._notes()])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{note}</p>" for note in self._notes())
        html = self.table.to_html(index=False, border=0, float_format="{:.4g}".format)
        return f"{html}{notes}"

    def _notes(self) -> list[str]:
        notes = ["interrupted before the last epoch was over"] if self.interrupted else []
        if self.kept_epoch is not None and self.kept_epoch != len(self.table):
            notes.append(f"the model holds the weights of epoch {self.kept_epoch}")
        return notes


class Recorder:
    """Write down every step and epoch of a training while it runs.

    Args:
        optimizer: What makes the steps.
        gradients: Whether to write down the norm of each group's gradient.
        started: When the first epoch began, by `time.perf_counter`; None: now.

    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> recorder = Recorder(optimizer)
    >>> recorder.step(torch.tensor(0.5), images=8)
    >>> recorder.train_loss()
    0.5
    >>> recorder.history().steps.to_dict("records")
    [{'step': 0, 'epoch': 1, 'loss': 0.5, 'lr/group0': 0.1}]
    """

    def __init__(
        self, optimizer: Optimizer, *, gradients: bool = False, started: float | None = None
    ) -> None:
        self._optimizer, self.gradients = optimizer, gradients
        self._epochs: list[dict[str, float]] = []
        self._steps: list[dict[str, Any]] = []
        self._done = 0  # steps that belong to finished epochs
        self._sizes: list[int] = []
        self._started = time.perf_counter() if started is None else started

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self._epochs)

    def step(self, loss: torch.Tensor, images: int) -> None:
        """Write down the loss of one step and the rates it was taken with.

        Args:
            loss: The loss, a tensor without dimensions.
            images: Number of images in the batch.
        """
        # The loss stays on its device: reading it here would make a GPU wait at every step.
        row = {"step": len(self._steps), "epoch": self.epochs + 1, "loss": loss.detach()}
        norms = _gradient_norms(self._optimizer) if self.gradients else {}
        self._steps.append(row | _rates(self._optimizer) | norms)
        self._sizes.append(images)

    def train_loss(self) -> float:
        """Return the mean loss over the images of the running epoch.

        Raises:
            FloatingPointError: If the loss is no longer a finite number.
        """
        losses = np.array([float(row["loss"]) for row in self._steps[self._done :]])
        broken = np.flatnonzero(~np.isfinite(losses))
        if len(broken):
            row = self._steps[self._done + broken[0]]
            raise diverged(f"the loss became {float(row['loss'])} in step {row['step']}")
        return float(np.average(losses, weights=self._sizes[self._done :]))

    def epoch(self, scores: dict[str, float]) -> None:
        """Close the running epoch.

        Args:
            scores: `train_loss`, `val_loss`, `val_accuracy` and `val_auc`.
        """
        now = time.perf_counter()
        lr = max(value for name, value in self._steps[-1].items() if name.startswith("lr/"))
        row = {"epoch": self.epochs + 1, **scores, "lr": lr, "seconds": now - self._started}
        self._epochs.append(row)
        self._started, self._done = now, len(self._steps)

    def state(self) -> dict[str, Any]:
        """Return what was written down so far as plain numbers, for a checkpoint."""
        return {"epochs": self._epochs, "steps": self._rows(), "sizes": self._sizes}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on after what `state` returned, at the end of its last epoch."""
        self._epochs, self._steps = list(state["epochs"]), list(state["steps"])
        self._sizes, self._done = list(state["sizes"]), len(self._steps)
        self._started = time.perf_counter()

    def _rows(self) -> list[dict[str, Any]]:
        # `epoch` and `step` are whole numbers; all else may still be a tensor on its device.
        whole = ("step", "epoch")
        return [{k: v if k in whole else float(v) for k, v in row.items()} for row in self._steps]

    def history(self, *, interrupted: bool = False, kept_epoch: int | None = None) -> History:
        """Return what was written down so far.

        Args:
            interrupted: Whether the training ended early.
            kept_epoch: The epoch whose weights the model holds.
        """
        columns = ["step", "epoch", "loss", *_rates(self._optimizer)]
        columns += (
            [f"grad/{name}" for name in group_names(self._optimizer)] if self.gradients else []
        )
        return History(
            table=pd.DataFrame(self._epochs, columns=COLUMNS),
            steps=pd.DataFrame(self._rows(), columns=columns),
            interrupted=interrupted,
            kept_epoch=kept_epoch,
        )


def diverged(what: str) -> FloatingPointError:
    """Build the error for a training whose numbers left the finite range.

    >>> raise diverged("the loss became nan in step 3")
    Traceback (most recent call last):
    FloatingPointError: the loss became nan in step 3: lower the learning rate, or warm up
    """
    return FloatingPointError(f"{what}: lower the learning rate, or warm up")


def group_names(optimizer: Optimizer) -> list[str]:
    """Return the names of the optimizer's groups; numbered ones unless all differ.

    >>> group_names(torch.optim.SGD([torch.zeros(1, requires_grad=True)]))
    ['group0']
    """
    names = [group.get("name") for group in optimizer.param_groups]
    if None in names or len(set(names)) < len(names):
        return [f"group{i}" for i in range(len(names))]
    return [str(name) for name in names]


def _rates(optimizer: Optimizer) -> dict[str, float]:
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return {f"lr/{name}": rate for name, rate in zip(group_names(optimizer), rates, strict=True)}


def _gradient_norms(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """Return the norm per group; after a step the gradients it was taken with still stand."""
    return {
        f"grad/{name}": torch.nn.utils.get_total_norm(
            [p.grad for p in group["params"] if p.grad is not None]
        )
        for name, group in zip(group_names(optimizer), optimizer.param_groups, strict=True)
    }
