"""Measure what each stage of a network costs to train and to run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tlcourse.backbones import preprocess
from tlcourse.batches import main_logits
from tlcourse.movement import count_parameters
from tlcourse.observe import device_of, evaluating, feature_stages
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
    with _at_stage_ends(model, note), hooks:
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
    with _at_stage_ends(model, note):
        loss = _loss(main_logits(model(batch)))
    forward.append(_now(batch))
    loss.backward()  # type: ignore[no-untyped-call]
    backward.append(_now(batch))
    return np.diff(forward), np.diff([forward[-1], *backward])[::-1]


def _frozen_pass(model: nn.Module, batch: Tensor) -> Row:
    """Return seconds per stage of a forward in eval mode without gradients."""
    moments = [_now(batch)]
    with evaluating(model), torch.no_grad():
        with _at_stage_ends(model, lambda _output: moments.append(_now(batch))):
            model(batch)
        moments.append(_now(batch))
    return np.diff(moments)


@contextmanager
def _at_stage_ends(model: nn.Module, note: Callable[[Tensor], None]) -> Iterator[None]:
    """Call `note` with the output of each stage but the head, in the order of the forward."""

    def hook(_module: nn.Module, _given: Any, output: Tensor) -> None:
        note(output)

    with ExitStack() as undo:
        for stage in feature_stages(model).values():
            undo.callback(stage.output.register_forward_hook(hook).remove)
        yield


def _loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, logits.argmax(1))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _now(batch: Tensor) -> float:
    if batch.device.type != "cpu":
        torch.accelerator.synchronize(batch.device)  # it works behind the program's back
    return time.perf_counter()
