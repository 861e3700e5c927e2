"""Try out rates on a copy of a network, and suggest one: the learning-rate range test."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import wilcoxon
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm.auto import tqdm

from tlcourse.backbones.hooks import main_logits
from tlcourse.datasets.base import ImageSet, Split, stratified_choice
from tlcourse.loaders.augment import Augment
from tlcourse.loaders.batches import PreparedImages, TrainingBatches
from tlcourse.optim.factory import (
    MakeOptimizer,
    make_loss_function,
    make_optimizer,
    prepare_optimizer,
)
from tlcourse.runtime import seeded

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
    no finite number. For the rule behind the suggestion see `tlcourse.optim.lr_finder.suggest`.

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
    # In one call, so that a copied optimizer holds the copied parameters.
    trial, given = copy.deepcopy((model, make_optimizer(model, optimizer)))
    trial_optimizer = prepare_optimizer(trial, given, data, size)
    images = PreparedImages(trial, trained.images, size=size)
    batches = TrainingBatches(images, trained.labels, batch_size, augment=augment, seed=seed)
    loss_function = make_loss_function(class_weights, data, trial)
    rates = np.geomspace(low, high, steps)
    measured = _losses_of(trial, probed, size, loss_function.weight, seed)
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
    shares = torch.ones(len(part)) if weights is None else weights.cpu()[labels.cpu()]
    loss_function = nn.CrossEntropyLoss(reduction="none").to(inputs.device)

    def measured() -> NDArray[np.float64]:
        # One seed for all steps, so that dropout leaves out the same units and adds no noise.
        with seeded(seed), torch.no_grad():
            losses = loss_function(main_logits(model(inputs)), labels).double().cpu()
        weighted: NDArray[np.float64] = (losses * shares / shares.mean()).numpy()
        return weighted

    return measured


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


CLEAR = 5.0
"""How many of its standard errors, by the noise of single steps, the fall must measure: more than
usual, because the lowest steps are picked after seeing all."""

CHANCE_P_VALUE = 0.005
"""Chance, by Wilcoxon's signed ranks, below which it is no accident that the loss of most images
fell. Ranks, because a few images that a network gets surely wrong have losses of any size."""

LEAST = 0.1
"""Share of the first loss that the fall must measure: a tiny rate lowers every image's loss by a
little, so surely that any test of significance calls it a fall."""

LARGE = 0.2
"""Share of the first loss from which on an earlier fall is taken, once any fall is clear: a network
that learns at all does so first at the lowest rate that lets it."""

SOME = 3
"""Steps at the beginning and at the end of a fall whose losses are averaged."""

NORMAL_MEDIAN = 0.6745
"""Median size of a normal number with standard deviation 1."""
NEVER_FELL = "the loss did not fall beyond its noise: lower `low`, raise `high` or take more steps"
STILL_FALLING = "the loss was still falling at the highest rate: raise `high`"


def smoothed(losses: Sequence[float] | NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Return the running mean `(N,)` of losses, in which the past has `weight`.

    The mean of the first few is taken over those few (as Adam corrects its means), so that the
    curve starts at the first loss and not at zero.

    Args:
        losses: `(N,)`.
        weight: From 0 (nothing is smoothed) to below 1.

    >>> smoothed([1.0, 0.0], 0.5).round(3).tolist()
    [1.0, 0.333]
    """
    means, mean = [], 0.0
    for step, loss in enumerate(losses, start=1):
        mean = weight * mean + (1 - weight) * float(loss)
        means.append(mean / (1 - weight**step))
    return np.array(means)


def suggest(
    rates: NDArray[np.float64], losses: NDArray[np.float64], weight: float
) -> tuple[float, str]:
    """Return the rate at which half the fall was done, or NaN, and what is to be said of it.

    The point of steepest fall (Smith, Lightning) hangs on the difference of two losses, which is
    mostly noise; the longest run of falling losses (fastai's `valley`) forgets how far they fell,
    so that it starts wherever the test did. Half the fall hangs on neither: it is read off the
    falling curve that is nearest to all losses up to the lowest (isotonic regression), which
    crosses that height where it is steep. If the loss breaks out and falls again, the first fall
    that is clear or large counts.

    Args:
        rates: `(N,)`, rising geometrically.
        losses: `(N, M)`, of the same M images at every step, not smoothed; from the first step
            with one that is no finite number on they are ignored.
        weight: See `smoothed`; the lowest point is looked for on the smoothed mean.

    Returns:
        The rate, NaN if the loss did not fall beyond its noise; a remark, empty if there is none.

    >>> rates, falling = np.geomspace(1e-6, 1, 61), np.linspace(0.7, 0.1, 61)
    >>> losses = falling[:, np.newaxis] + np.linspace(-0.01, 0.01, 8)
    >>> suggest(rates, losses, 0.5)[1]
    'the loss was still falling at the highest rate: raise `high`'
    >>> suggest(rates, losses[::-1], 0.5)[0]
    nan
    """
    broken = np.flatnonzero(~np.isfinite(losses).all(axis=1))
    losses = losses[: broken[0]] if len(broken) else losses
    if len(losses) < 2 * SOME:
        return math.nan, NEVER_FELL
    noise = _noise_of_step(losses.mean(axis=1))
    ends = [_Fall(losses[: end + 1], noise) for end in _lowest_points(losses, weight)]
    if not any(fall.clear for fall in ends):
        return math.nan, NEVER_FELL
    first = next(fall for fall in ends if fall.clear or fall.large)
    return float(rates[first.half]), STILL_FALLING * (first.end == len(rates) - 1)


class _Fall:
    """How the loss fell from the first few steps to the last few of `losses` `(N, M)`."""

    def __init__(self, losses: NDArray[np.float64], noise: float) -> None:
        means = losses.mean(axis=1)
        curve: NDArray[np.float64] = isotonic_regression(means, increasing=False).x
        before, after = means[:SOME].mean(), means[-SOME:].mean()
        self.end = len(losses) - 1
        self.half = int((curve <= (before + after) / 2).argmax())
        share = 1 - after / before
        beyond_steps = before - after > CLEAR * noise * math.sqrt(2 / SOME)
        self.large = bool(share > LARGE and beyond_steps)
        self.clear = bool(share > LEAST and beyond_steps) and _most_fell(losses)


def _noise_of_step(means: NDArray[np.float64]) -> float:
    """Return the standard deviation of one step, by the differences between neighbours.

    The first half of the steps is used, and the median, because steps grow noisier with the rate.
    """
    differences = np.diff(means[: max(len(means) // 2, 2 * SOME)])
    return float(np.median(np.abs(differences))) / NORMAL_MEDIAN / math.sqrt(2)


def _most_fell(losses: NDArray[np.float64]) -> bool:
    falls = losses[:SOME].mean(axis=0) - losses[-SOME:].mean(axis=0)
    return bool(wilcoxon(falls, alternative="greater").pvalue < CHANCE_P_VALUE)


def _lowest_points(losses: NDArray[np.float64], weight: float) -> list[int]:
    """Return the steps at which a fall of the smoothed loss ended, in order.

    A fall has ended when half of it is lost again. What falls after that, at rates that threw the
    network about, says nothing about the rates before. Noise ends falls, too: several are returned.
    """
    # Sooner, the smoothed loss is the mean of a few, low by chance alone.
    earliest = 2 * SOME - 1
    means = losses.mean(axis=1)
    curve, start = smoothed(means, weight)[earliest:], means[:SOME].mean()
    best = np.minimum.accumulate(curve)
    lost = (curve > (start + best) / 2) & (best < (1 - LEAST) * start)
    ends = {int(curve[: end + 1].argmin()) for end in [*np.flatnonzero(lost), len(curve) - 1]}
    return [earliest + end for end in sorted(ends)]
