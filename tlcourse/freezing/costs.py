"""Say what a choice of frozen stages costs on this machine: parameters, memory, seconds.

`stage_costs` measures a network once, `estimate` adds up what a choice costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tlcourse.backbones.hooks import (
    device_of,
    evaluating,
    feature_stages,
    main_logits,
    watching,
)
from tlcourse.backbones.preprocessing import preprocess
from tlcourse.freezing.report import count_parameters
from tlcourse.runtime import seeded

Row = NDArray[np.float64]
_MB = 1e6

_FLOAT = 4
"""Bytes of a float32, which a cache holds."""


def stage_costs(
    model: nn.Module, *, size: int = 128, batch_size: int = 16, repetitions: int = 5
) -> pd.DataFrame:
    """Measure what each stage of `model` costs to train and to run, on the model's device.

    A copy of the model is measured, with all its stages trainable, on random images with the
    cross-entropy: the model, its gradients and the random generators stay as they are. Seconds
    are the fewest of the repetitions, after one pass to warm up: other programs only ever add.

    What an operation saves for the backward pass is counted once, for the last stage that saves
    it: a stage's input, which the one before saved as its output, belongs to the later one, that
    keeps it also when the earlier is frozen. So activations of the trainable stages add up.

    Args:
        model: A classifier of torchvision.
        size: Side of the images in pixels.
        batch_size: Images in a batch, at least 2; seconds per image depend on it.
        repetitions: Passes of which the fastest counts, stage by stage; at least 1.

    Returns:
        One row per stage (index `stage`, head last): `parameters`; per image, in MB (a million
        bytes), `activation_mb` kept for the backward pass and `output_mb`, the stage's output;
        per image, in seconds, `forward_seconds` and `backward_seconds` while training, and
        `frozen_seconds` of the forward in eval mode without gradients.

    Raises:
        ValueError: If `batch_size` or `repetitions` is too small, or the model does not take
            images of `size`.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> from torchvision.models import shufflenet_v2_x0_5
    >>> costs = stage_costs(shufflenet_v2_x0_5(), size=32, batch_size=2, repetitions=1)
    >>> list(costs.index), int(costs["parameters"].sum())
    (['stem', 'stage1', 'stage2', 'stage3', 'head'], 1366792)
    """
    if batch_size < 2 or repetitions < 1:
        raise ValueError(
            "expected batch_size of at least 2 (batch-norm needs two images) and repetitions of at "
            f"least 1, got {batch_size} and {repetitions}"
        )
    images = np.random.default_rng(0).integers(0, 256, (batch_size, size, size), np.uint8)
    # A caller's no_grad or inference_mode must not reach the passes that are measured.
    with seeded(0), torch.inference_mode(False), torch.enable_grad():
        copy = _trainable_copy(model)
        batch = preprocess(copy, images, size).to(
            device_of(copy), memory_format=torch.channels_last
        )
        table = count_parameters(copy)[["parameters"]]
        table["activation_mb"], table["output_mb"] = np.array(_memory(copy, batch)) / _MB
        passes = [_training_pass(copy, batch) for _ in range(repetitions)]
        table["forward_seconds"], table["backward_seconds"] = np.min(passes, axis=0)
        still = [_frozen_pass(copy, batch) for _ in range(1 + repetitions)]
        table["frozen_seconds"] = np.min(still[1:], axis=0)
    table[table.columns[1:]] /= batch_size
    return table


def _trainable_copy(model: nn.Module) -> nn.Module:
    copy = deepcopy(model).requires_grad_(True)
    for module in copy.modules():
        module.training = True  # train() would pass frozen stages by
    return copy


def _memory(model: nn.Module, batch: Tensor) -> tuple[Row, Row]:
    """Return bytes per stage: what is saved for the backward pass, and the output."""
    outputs: list[int] = []
    saved: dict[int, tuple[int, int]] = {}
    own = {_address(tensor) for tensor in (*model.parameters(), *model.buffers())}

    def save(tensor: Tensor) -> Tensor:
        # The graph holds all that was saved until the backward pass: no two share an address.
        if _address(tensor) not in own:
            saved[_address(tensor)] = (len(outputs), tensor.untyped_storage().nbytes())
        return tensor

    def note(output: Tensor) -> None:
        outputs.append(output.numel() * _FLOAT)

    hooks = torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
    with _watching_ends(model, note), hooks:
        logits = main_logits(model(batch))
        loss = _loss(logits)
    note(logits)
    # Frees the graph, and warms up.
    loss.backward()  # type: ignore[no-untyped-call]
    kept = [sum(size for at, size in saved.values() if at == i) for i in range(len(outputs))]
    return np.array(kept, float), np.array(outputs, float)


def _training_pass(model: nn.Module, batch: Tensor) -> tuple[Row, Row]:
    """Return seconds per stage, forward and backward, of one step without the optimizer's."""
    forward, backward = [_now(batch)], list[float]()

    def note(output: Tensor) -> None:
        forward.append(_now(batch))
        # A stage's output gets its gradient when all stages above are through with theirs.
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda _gradient: backward.append(_now(batch))
        )

    model.zero_grad()
    with _watching_ends(model, note):
        loss = _loss(main_logits(model(batch)))
    forward.append(_now(batch))
    loss.backward()  # type: ignore[no-untyped-call]
    backward.append(_now(batch))
    return np.diff(forward), np.diff([forward[-1], *backward])[::-1]


def _frozen_pass(model: nn.Module, batch: Tensor) -> Row:
    """Return seconds per stage of a forward in eval mode without gradients."""
    moments = [_now(batch)]
    with evaluating(model), torch.no_grad():
        with _watching_ends(model, lambda _output: moments.append(_now(batch))):
            model(batch)
        moments.append(_now(batch))
    return np.diff(moments)


def _watching_ends(
    model: nn.Module, note: Callable[[Tensor], None]
) -> AbstractContextManager[None]:
    """Call `note` with the output of each stage but the head, in the order of the forward."""
    ends = [stage.output for stage in feature_stages(model).values()]
    return watching(ends, lambda _module, _given, output: note(output))


def _loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, logits.argmax(1))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _now(batch: Tensor) -> float:
    if batch.device.type != "cpu":
        torch.accelerator.synchronize(batch.device)  # it works behind the program's back
    return time.perf_counter()


@dataclass(frozen=True)
class Estimate:
    """What training costs when some stages are frozen (see `estimate`).

    Attributes:
        trainable: Parameters that train.
        weights_mb: All weights, frozen ones included, in MB (a million bytes).
        gradients_mb: Gradients of the trainable ones.
        optimizer_mb: What the optimizer keeps for the trainable ones.
        activations_mb: What one batch leaves behind for the backward pass.
        epoch_seconds: An epoch when the frozen part runs anew for every batch.
        cached_epoch_seconds: An epoch when the frozen part's outputs are read from a cache.
        caching_seconds: The frozen part once over all images, which fills the cache.
        cache_mb: Size of the cache; it may lie in a file.
    """

    trainable: int
    weights_mb: float
    gradients_mb: float
    optimizer_mb: float
    activations_mb: float
    epoch_seconds: float
    cached_epoch_seconds: float
    caching_seconds: float
    cache_mb: float

    @property
    def memory_mb(self) -> float:
        """Weights, gradients, optimizer and activations together, in MB, without the cache."""
        return self.weights_mb + self.gradients_mb + self.optimizer_mb + self.activations_mb


def estimate(
    costs: pd.DataFrame,
    *,
    through: str | None = None,
    images: int,
    batch_size: int,
    optimizer_state: int = 2,
) -> Estimate:
    """Add up what training costs when the stages through `through` are frozen.

    Left out: the optimizer's own step, reading and augmenting images, validation, and the fixed
    cost of every batch, which is most of what training a head alone takes; that the lowest
    trainable stage needs no gradient of its input; what operations need for a moment (the peak
    is higher), buffers, and the program itself. Seconds per image are those at the batch size that
    was measured. The cache is counted as whole outputs in float32, once per image: several
    augmented views need as many times the room, and where a mean over positions does as well (at
    the last boundary, as `fit` finds out) it is smaller.

    Args:
        costs: What `stage_costs` returned.
        through: The last frozen stage, `"all"` for all but the head, None for none.
        images: Training images, at least 1.
        batch_size: Images in a batch, at least 1.
        optimizer_state: Numbers that the optimizer keeps per trainable parameter: 2 for Adam and
            AdamW, 1 for SGD with momentum, 0 for SGD without.

    Raises:
        ValueError: If `through` names no stage or leaves nothing to train, or a number is out of
            range.

    >>> costs = pd.DataFrame({"parameters": [1_000_000, 10], "activation_mb": [2.0, 0.5],
    ...     "output_mb": [0.1, 0.0], "forward_seconds": [0.02, 0.0],
    ...     "backward_seconds": [0.04, 0.0], "frozen_seconds": [0.01, 0.0]}, ["stem", "head"])
    >>> whole = estimate(costs, images=100, batch_size=8)
    >>> frozen = estimate(costs, through="all", images=100, batch_size=8)
    >>> round(whole.epoch_seconds, 1), round(frozen.epoch_seconds, 1), frozen.trainable
    (6.0, 1.0, 10)
    """
    if images < 1 or batch_size < 1 or optimizer_state < 0:
        raise ValueError(
            "expected images and batch_size of at least 1 and optimizer_state of at least 0, got "
            f"{images}, {batch_size} and {optimizer_state}"
        )
    end = _frozen_count(list(costs.index[:-1]), through)
    frozen, free = costs.iloc[:end].sum(), costs.iloc[end:].sum()
    trainable_mb = free["parameters"] * _FLOAT / _MB
    training = images * float(free["forward_seconds"] + free["backward_seconds"])
    running = images * float(frozen["frozen_seconds"])
    return Estimate(
        trainable=int(free["parameters"]),
        weights_mb=float(costs["parameters"].sum() * _FLOAT / _MB),
        gradients_mb=float(trainable_mb),
        optimizer_mb=float(optimizer_state * trainable_mb),
        activations_mb=float(batch_size * free["activation_mb"]),
        epoch_seconds=running + training,
        cached_epoch_seconds=training,
        caching_seconds=running,
        cache_mb=images * float(costs["output_mb"].iloc[end - 1]) if end else 0.0,
    )


def _frozen_count(choices: Sequence[str], through: str | None) -> int:
    ends = {None: 0, "all": len(choices)} | {name: i for i, name in enumerate(choices, start=1)}
    if through not in ends:
        raise ValueError(
            f"expected through as None, 'all' or a stage below the head, one of {choices}, "
            f"got {through!r}"
        )
    return ends[through]
