"""Load a network with pretrained weights, and give it a new head."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import nn
from torchvision import models
from torchvision.models import WeightsEnum

from tlcourse.backbones.architectures import architecture_of, head, head_name
from tlcourse.backbones.preprocessing import RECORD
from tlcourse.backbones.weights import fetch_checkpoint, resolve_weights
from tlcourse.runtime import seeded


def load_backbone(
    name: str = "mobilenet_v2",
    *,
    weights: str | WeightsEnum | None = "imagenet",
    num_classes: int | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return a classifier of torchvision, pretrained on ImageNet unless told otherwise.

    The network is in train mode, as torchvision builds it, and in channels_last memory format.
    GoogLeNet and Inception come without their auxiliary classifiers, which serve training from
    scratch only: so every network answers with one tensor `(N, C)` in either mode.

    Args:
        name: A classifier of torchvision, such as `"resnet18"`.
        weights: `"imagenet"`, the name or enum member of other weights (see
            `resolve_weights`), or None for random ones. Missing files are fetched.
        num_classes: Replace the head by an untrained one with so many answers; None keeps the
            1000 of ImageNet.
        seed: Seed of random weights and of the new head.

    Raises:
        ValueError: If `name` or `weights` is unknown.
        WeightsUnavailable: If the checkpoint is not here and cannot be fetched.

    >>> model = load_backbone("mobilenet_v2", weights=None, num_classes=2)
    >>> model.eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2])
    """
    entry = resolve_weights(name, "imagenet" if weights is None else weights)
    if weights is not None:
        fetch_checkpoint(name, weights=entry)
    with seeded(seed):
        model = models.get_model(name, **_build_options(name, None if weights is None else entry))
    # Random networks are prepared as the pretrained ones, so that a comparison differs in
    # weights alone.
    setattr(model, RECORD, str(entry))
    _drop_auxiliary(model)
    if num_classes is not None:
        replace_head(model, num_classes, seed=seed)
    network: nn.Module = model.to(memory_format=torch.channels_last)
    return network


def _build_options(name: str, entry: WeightsEnum | None) -> dict[str, object]:
    options: dict[str, object] = {"weights": entry, "progress": False}
    if entry is None and name in ("googlenet", "inception_v3"):
        # What the pretrained ones use; unsaid, torchvision warns of a change to come.
        options |= {"init_weights": True, "transform_input": True}
    return options


def _drop_auxiliary(model: nn.Module) -> None:
    for attribute in architecture_of(model).auxiliary:
        setattr(model, attribute, None)
        setattr(model, "aux_logits", False)  # noqa: B010 - nn.Module types attributes as modules


def replace_head(model: nn.Module, num_classes: int, *, seed: int = 0) -> nn.Module:
    """Put an untrained head with `num_classes` answers in place of the old one; return `model`.

    The new layer has the kind, device and precision of the old one and PyTorch's own
    initialisation. Auxiliary classifiers (GoogLeNet, Inception), which would go on answering the
    old question, are removed.

    Args:
        model: A classifier of torchvision; changed in place.
        num_classes: Number of answers, at least 1.
        seed: Seed of the new weights; the global generator is left as it was.

    Raises:
        ValueError: If `num_classes` is below 1.
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> head(replace_head(models.resnet18(), 2))
    Linear(in_features=512, out_features=2, bias=True)
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, Integral) or num_classes < 1:
        raise ValueError(f"expected num_classes as a whole number from 1 up, got {num_classes!r}")
    path, old = head_name(model), head(model)
    bias = old.bias is not None
    with seeded(seed):
        new: nn.Module = (
            nn.Linear(old.in_features, num_classes, bias=bias)
            if isinstance(old, nn.Linear)
            else nn.Conv2d(old.in_channels, num_classes, kernel_size=1, bias=bias)
        )
    owner, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(owner), attribute, new.to(old.weight).train(model.training))
    if hasattr(model, "num_classes"):
        setattr(model, "num_classes", num_classes)  # noqa: B010
    _drop_auxiliary(model)
    return model
