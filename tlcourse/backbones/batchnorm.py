"""Re-estimate a network's batch-norm statistics, and fold batch norms into convolutions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.optim.swa_utils import update_bn

from tlcourse.backbones.hooks import (
    Images,
    capture_activations,
    device_of,
    evaluating,
    main_logits,
    watching,
)
from tlcourse.backbones.preprocessing import preprocess


def calibrate_statistics(
    model: nn.Module, images: Images, *, size: int = 128, batch_size: int = 64
) -> nn.Module:
    """Set the running means and variances of all batch-norm layers to those of `images`.

    A network with random weights has not seen an image: its statistics still say mean 0 and
    variance 1, so that in eval mode the signal fades layer by layer. This is the repair before a
    random network serves as a baseline. It is `torch.optim.swa_utils.update_bn` on the images as
    the model wants them, with dropout and stochastic depth at rest. No weight changes, no label
    is needed. Give it training images alone. A network without batch-norm stays as it is.

    Args:
        model: A classifier of torchvision; changed in place, its modes stay as they are.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`, two or more.
        size: Side to which images are resized, in pixels.
        batch_size: Images in a batch at least, 2 or more. Batches are made equally large,
            because each counts the same.

    Returns:
        The model.

    Raises:
        ValueError: If there are fewer than two images or `batch_size` is below 2.

    >>> from torchvision.models import resnet18
    >>> model = resnet18()
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), np.uint8)
    >>> model.bn1.running_mean.abs().max().item()
    0.0
    >>> bool(calibrate_statistics(model, images, size=32).bn1.running_mean.abs().max() > 0)
    True
    """
    if len(images) < 2 or batch_size < 2:
        raise ValueError(
            "statistics need two images or more in a batch: "
            f"got {len(images)} images and batch_size={batch_size}"
        )
    # update_bn puts the whole model in train mode; `evaluating` restores every flag.
    with evaluating(model), model.register_forward_pre_hook(_only_batch_norm_trains):
        update_bn(_even_batches(model, images, size, batch_size), model)
    return model


def _even_batches(model: nn.Module, images: Images, size: int, batch_size: int) -> Iterator[Tensor]:
    count = max(1, len(images) // batch_size)
    bounds = np.linspace(0, len(images), count + 1).astype(int)
    for start, stop in pairwise(bounds):
        yield preprocess(model, images[start:stop], size).to(device_of(model))


def _only_batch_norm_trains(model: nn.Module, _given: tuple[Tensor, ...]) -> None:
    for module in model.modules():
        module.training = isinstance(module, _BatchNorm)


TOLERANCE = 1e-3
"""Largest difference, as a share of the largest value, that counts as rounding."""
_TRIED = 4


def folded(model: nn.Module, example: Tensor, *, output: str = "") -> nn.Module:
    """Return a copy in eval mode, for answers only, with batch norms folded where that is safe.

    Which layers follow each other is seen by watching one forward, and the copy must then put out
    the same; if it does not, or there is nothing to fold, the model itself comes back.

    Args:
        model: Any network; it stays as it is.
        example: An input batch on its device.
        output: Dotted name of the module whose output will be used, the whole network's by
            default. Of that output the copy is judged: what lies behind may hide a difference.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)).eval()
    >>> folded(model, torch.randn(2, 3, 4, 4))
    Sequential(
      (0): Conv2d(3, 4, kernel_size=(1, 1), stride=(1, 1))
      (1): Identity()
    )
    """
    pairs = _pairs(model, example)
    if not pairs:
        return model
    copy = deepcopy(model).eval()
    for convolution, norm in pairs:
        layers = copy.get_submodule(convolution), copy.get_submodule(norm)
        copy.set_submodule(convolution, fuse_conv_bn_eval(*layers))  # type: ignore[type-var, arg-type]
        copy.set_submodule(norm, nn.Identity())
    return copy if _same_logits(model, copy, example, output) else model


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Name each convolution with the batch norm that takes its very output."""
    watched: dict[nn.Module, str] = {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    }
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []
    last: tuple[str, Tensor | None] = "", None

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal last
        name = watched[module]
        calls[name] += 1
        if isinstance(module, nn.Conv2d):
            last = name, output
        elif given[0] is last[1]:
            pairs.append((last[0], name))

    with evaluating(model), watching(watched, note), torch.inference_mode():
        model(example)
    return [pair for pair in pairs if all(calls[name] == 1 for name in pair)]


def _same_logits(model: nn.Module, copy: nn.Module, example: Tensor, output: str) -> bool:
    # Noise, not the example: an untrained network may answer all images alike.
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_TRIED, *example.shape[1:], generator=generator).to(example)
    one, other = (_put_out(network, output, noise) for network in (model, copy))
    return rounding_apart(one, other)


def _put_out(model: nn.Module, name: str, images: Tensor) -> Tensor:
    module = {"used": model.get_submodule(name)}
    with capture_activations(model, module, lambda _, seen: main_logits(seen).clone()) as look:
        return look(images)["used"]


def rounding_apart(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors have one shape and differ by no more than rounding does.

    >>> [rounding_apart(torch.ones(2), torch.ones(2) + apart) for apart in (1e-6, 1.0)]
    [True, False]
    """
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= TOLERANCE * one.abs().max())
