"""Try out rates on a copy of a network, and suggest one: the learning-rate range test."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from html import escape
from itertools import count
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from tlcourse.backbones import head
from tlcourse.batches import Augment, PreparedImages, TrainingBatches, main_logits, model_device
from tlcourse.datasets import ImageSet, Split
from tlcourse.datasets.splitting import stratified_choice
from tlcourse.optim.groups import check_optimizer
from tlcourse.optim.making import MakeOptimizer, make_class_weights, make_optimizer
from tlcourse.optim.suggesting import smoothed, suggest
from tlcourse.runtime import device, seeded

DIVERGED = 4.0
"""How many times its best value the smoothed loss may reach before the test ends, as in fastai."""

FEWEST_STEPS = 10

HELD_BACK_SHARE = 1 / 3
"""Share of the training images that may be held back to measure the loss on."""


@dataclass(frozen=True, eq=False)
class RateTest:
    """What `find_lr` saw while the rate rose, and the rate that it suggests.

    Attributes:
        table: One row per step: `step` (from 0), `lr` (the highest rate of a group), `loss`
            (before that step, of the images held back, in nats), `smoothed` (its running mean).
        suggestion: A rate to start from, for the group with the highest rate; NaN if the loss
            never fell.
        note: What else is to be known of the test; empty if nothing.

    >>> table = pd.DataFrame({"step": [0], "lr": [1e-6], "loss": [0.7], "smoothed": [0.7]})
    >>> RateTest(table, math.nan, "the loss never fell")
    no rate to suggest after 1 step from 1e-06 to 1e-06: the loss never fell
    """

    table: pd.DataFrame
    suggestion: float
    note: str = ""

    def __repr__(self) -> str:
        none = math.isnan(self.suggestion)
        found = "no rate to suggest" if none else f"suggested rate {self.suggestion:.2g}"
        steps, first, last = len(self.table), self.table["lr"].iloc[0], self.table["lr"].iloc[-1]
        tried = f"{steps} step{'s' * (steps != 1)} from {first:.2g} to {last:.2g}"
        return f"{found} after {tried}" + (f": {self.note}" if self.note else "")

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def find_lr(
    model: nn.Module,
    data: ImageSet,
    *,
    optimizer: Optimizer | MakeOptimizer | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    batch_size: int = 32,
    size: int = 128,
    augment: Literal["flip"] | Augment | None = None,
    class_weights: Literal["balanced"] | ArrayLike | Tensor | None = None,
    smoothing: float = 0.5,
    held_back: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> RateTest:
    """Train with a rate that rises at every step, and see where the loss falls and breaks out.

    The learning-rate range test of Smith (2017), with the geometric rise, the smoothing and the
    end that fastai gave it: it stops when the smoothed loss exceeds 4 times its best value or is
    no finite number. For the rule behind the suggestion see `tlcourse.optim.suggesting.suggest`.

    Unlike theirs it measures the loss of the same few training images before every step, and does
    not train on them: losses of different batches differ by more than a step changes them, and
    the loss of images trained on falls even where there is nothing to learn.

    All of it happens to a copy of the model and of the optimizer: weights, statistics, modes,
    gradients, rates and momentum of the originals are not touched, whatever happens on the way,
    and the global random generators are left as they were.

    Args:
        model: A classifier of torchvision with as many answers as `data` has classes. The copy
            trains on the device on which `fit` would train.
        data: Its training images are used, at least 4 of them; validation and test images are not
            looked at.
        optimizer: What `fit` takes. Groups keep the proportions of their rates; the rate that is
            varied is the highest.
        low: Rate of the first step, above 0.
        high: Rate of the last step, above `low`.
        steps: Optimizer steps of the whole test, at least 10; passes over the images as needed.
        batch_size: Images in a batch, at least 2.
        size: Side in pixels of the images that the network sees.
        augment: See `fit`.
        class_weights: See `fit`.
        smoothing: Weight of the past in the running mean of the loss, 0 or more and below 1.
        held_back: Training images, at least 2, to measure the loss on; at most a third of all
            are taken. Each costs a forward pass per step; on fewer than 8 no fall is clear.
        seed: Seed of order, augmentation, dropout and of the images held back.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If an argument is out of range, the head does not fit the classes, or nothing
            may move.

    >>> from tlcourse.backbones import load_backbone
    >>> from tlcourse.datasets import load_images
    >>> data = load_images("phantom", n=60)
    >>> model = load_backbone("shufflenet_v2_x0_5", weights=None, num_classes=2)
    >>> result = find_lr(model, data, steps=12, high=0.01, size=32, progress=False)
    >>> len(result.table), list(result.table)
    (12, ['step', 'lr', 'loss', 'smoothed'])
    """
    _check_range(low, high, steps, smoothing)
    probed, trained = _divided(data.train, held_back, seed)
    _check_answers(model, data)
    trial, trial_optimizer = _copies(model, optimizer)
    images = PreparedImages(trial, trained.images, size=size)
    batches = TrainingBatches(images, trained.labels, batch_size, augment=augment, seed=seed)
    weights = make_class_weights(class_weights, data)
    loss_function = nn.CrossEntropyLoss(weight=weights).to(model_device(trial))
    rates = np.geomspace(low, high, steps)
    measured = _losses_of(trial, probed, size, weights, seed)
    with seeded(seed), tqdm(total=steps, leave=False, disable=not progress) as bar:
        losses: list[NDArray[np.float64]] = []
        for _ in _rising(trial, batches, loss_function, trial_optimizer, rates):
            losses.append(measured())
            bar.update()
            if _diverged([loss.mean() for loss in losses], smoothing):
                break
    return _result(rates, np.array(losses), smoothing)


def _divided(train: Split, held_back: int, seed: int) -> tuple[Split, Split]:
    """Part the images to measure the loss on from those to train on."""
    classes = len(np.unique(train.labels))
    fewest = max(classes, 2)  # of each class one, and batch-norm needs two
    if held_back < 2 or len(train) < fewest + 2:
        raise ValueError(
            f"expected held_back from 2 and at least {fewest + 2} training images, as some are "
            f"held back, got held_back={held_back} and {len(train)} images"
        )
    count = max(fewest, min(held_back, int(HELD_BACK_SHARE * len(train))))
    chosen = stratified_choice(train.labels, count, seed=seed)
    rest = np.setdiff1d(np.arange(len(train)), chosen)
    return train.select(chosen), train.select(rest)


def _losses_of(
    model: nn.Module, part: Split, size: int, weights: Tensor | None, seed: int
) -> Callable[[], NDArray[np.float64]]:
    """Return a function that measures the present loss `(N,)` of each image of `part`.

    Their mean is the weighted mean that `nn.CrossEntropyLoss` takes of a batch.
    """
    inputs = PreparedImages(model, part.images, size=size).take(torch.arange(len(part)))
    labels = torch.tensor(part.labels).to(inputs.device)
    shares = torch.ones(len(part)) if weights is None else weights[labels.cpu()]
    loss_function = nn.CrossEntropyLoss(reduction="none").to(inputs.device)

    def measured() -> NDArray[np.float64]:
        # One seed for all steps, so that dropout leaves out the same units and adds no noise.
        with seeded(seed), torch.no_grad():
            losses = loss_function(main_logits(model(inputs)), labels).double().cpu()
        weighted: NDArray[np.float64] = (losses * shares / shares.mean()).numpy()
        return weighted

    return measured


def _copies(
    model: nn.Module, optimizer: Optimizer | MakeOptimizer | None
) -> tuple[nn.Module, Optimizer]:
    """Return copies of model and optimizer that belong together, where `fit` would train them."""
    made = make_optimizer(model, optimizer)
    check_optimizer(model, made, stacklevel=4)
    # In one call, so that the copied optimizer holds the copied parameters.
    trial, trial_optimizer = copy.deepcopy((model, made))
    present = model_device(model)
    # The momentum of an optimizer in use would stay behind on the old device.
    place = present if made.state or present.type != "cpu" else device()
    return trial.to(place).to(memory_format=torch.channels_last), trial_optimizer


def _rising(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss_function: nn.Module,
    optimizer: Optimizer,
    rates: NDArray[np.float64],
) -> Iterator[None]:
    """Yield before each step is made: who stops asking prevents it."""
    shares = _shares(optimizer)
    again_and_again = (batch for _ in count() for batch in batches)
    model.train()
    for rate, (images, labels) in zip(rates, again_and_again, strict=False):
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = float(rate * share)
        yield
        optimizer.zero_grad()
        loss_function(main_logits(model(images)), labels).backward()
        optimizer.step()


def _shares(optimizer: Optimizer) -> list[float]:
    """Return each group's part of the highest rate."""
    # With a scheduler attached, `lr` is where that stands (zero before a warmup).
    own = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    if not max(own) > 0:
        raise ValueError(
            f"expected a group of the optimizer with a rate above 0, got {own}: groups keep the "
            "proportions of their rates"
        )
    return [rate / max(own) for rate in own]


def _diverged(losses: list[float], smoothing: float) -> bool:
    means = smoothed(losses, smoothing)
    return not math.isfinite(losses[-1]) or bool(means[-1] > DIVERGED * means.min())


def _result(rates: NDArray[np.float64], losses: NDArray[np.float64], smoothing: float) -> RateTest:
    means = losses.mean(axis=1)
    table = pd.DataFrame(
        {
            "step": range(len(losses)),
            "lr": rates[: len(losses)],
            "loss": means,
            "smoothed": smoothed(means, smoothing),
        }
    )
    suggestion, note = suggest(rates, losses, smoothing)
    return RateTest(table, suggestion, note)


def _check_range(low: float, high: float, steps: int, smoothing: float) -> None:
    if not 0 < low < high < math.inf:
        raise ValueError(f"expected rates 0 < low < high, got low={low} and high={high}")
    if steps < FEWEST_STEPS:
        raise ValueError(f"expected at least {FEWEST_STEPS} steps, got {steps}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"expected smoothing from 0 to below 1, got {smoothing}")


def _check_answers(model: nn.Module, data: ImageSet) -> None:
    answers = head(model).weight.shape[0]
    if answers != data.num_classes:
        raise ValueError(
            f"the network gives {answers} answers, but {data.name!r} has {data.num_classes} "
            f"classes: call replace_head(model, {data.num_classes}) first"
        )
