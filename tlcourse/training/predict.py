"""Ask a network for probabilities."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcourse.backbones.hooks import evaluating, main_logits
from tlcourse.backbones.preprocessing import preprocess
from tlcourse.loaders.batches import model_device
from tlcourse.training.history import diverged


def predict(
    model: nn.Module, images: NDArray[np.uint8], *, size: int = 128, batch_size: int = 16
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
    batches = (preprocess(model, images[i : i + batch_size], size).to(place) for i in starts)
    return probabilities(model, batches)


def probabilities(model: nn.Module, batches: Iterable[Tensor]) -> NDArray[np.float64]:
    """Return the probabilities `(N, C)` that a model in eval mode gives to batches of inputs.

    Raises:
        FloatingPointError: If an answer is not finite.

    >>> probabilities(nn.Linear(3, 2), [torch.zeros(4, 3)]).shape
    (4, 2)
    """
    with evaluating(model), torch.inference_mode():
        logits = torch.cat([main_logits(model(images)).float().cpu() for images in batches])
    if not torch.isfinite(logits).all():
        raise diverged("the network's answers are not finite numbers")
    return np.asarray(logits.double().softmax(dim=1).numpy())
