"""Ask a network for probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcourse.backbones.hooks import device_of, evaluating, main_logits
from tlcourse.backbones.preprocessing import preprocess
from tlcourse.metrics.scores import accuracy, auc, log_loss
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
    starts, place = range(0, len(images), batch_size), device_of(model)
    batches = (preprocess(model, images[i : i + batch_size], size).to(place) for i in starts)
    return probabilities(model, batches)


def validation_scores(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Score a network, in eval mode, on batches of inputs and labels.

    Returns:
        `val_loss` (in nats), `val_accuracy`, and `val_auc`, NaN if only one class is there.

    >>> batches = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> validation_scores(nn.Linear(2, 2, bias=False), batches)["val_accuracy"] <= 1
    True
    """
    seen: list[Tensor] = []

    def inputs() -> Iterator[Tensor]:
        for batch, labels in batches:
            seen.append(labels.cpu())
            yield batch

    probs = probabilities(model, inputs())
    labels = torch.cat(seen).numpy()
    one_class = len(np.unique(labels)) < 2
    return {
        "val_loss": log_loss(labels, probs),
        "val_accuracy": accuracy(labels, probs),
        "val_auc": float("nan") if one_class else auc(labels, probs),
    }


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
