"""Measure batch-norm statistics anew, so that an untrained network can be judged fairly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from tlcourse.backbones import preprocess
from tlcourse.observe import Images, device_of, evaluating


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
    rest = model.register_forward_pre_hook(_only_batch_norm_trains)
    try:
        # update_bn puts the whole model in train mode; `evaluating` restores every flag.
        with evaluating(model):
            update_bn(_even_batches(model, images, size, batch_size), model)
    finally:
        rest.remove()
    return model


def _even_batches(model: nn.Module, images: Images, size: int, batch_size: int) -> Iterator[Tensor]:
    count = max(1, len(images) // batch_size)
    bounds = np.linspace(0, len(images), count + 1).astype(int)
    for start, stop in pairwise(bounds):
        yield preprocess(model, images[start:stop], size).to(device_of(model))


def _only_batch_norm_trains(model: nn.Module, _given: tuple[Tensor, ...]) -> None:
    for module in model.modules():
        module.training = isinstance(module, _BatchNorm)
