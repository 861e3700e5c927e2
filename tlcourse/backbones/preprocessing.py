"""Prepare images as a network's weights were trained, and say what sizes it takes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models import WeightsEnum

from tlcourse.backbones.architectures import UnsupportedModel, architecture_of, head
from tlcourse.backbones.weights import classifiers

RECORD = "weights_entry"
"""Attribute in which `load_backbone` notes whose transforms fit a network."""
IMAGENET_CLASSES = 1000


def weights_of(model: nn.Module) -> WeightsEnum:
    """Return the entry of torchvision's weights whose transforms fit `model`.

    It is the one `load_backbone` was asked for; for a network built otherwise, one of the same
    class and number of backbone parameters.

    Raises:
        UnsupportedModel: If the model is no classifier of torchvision, or of a width and depth
            for which torchvision has no weights.

    >>> weights_of(models.resnet18())
    ResNet18_Weights.IMAGENET1K_V1
    """
    architecture_of(model)
    recorded = getattr(model, RECORD, None)
    if isinstance(recorded, str):
        entry: WeightsEnum = models.get_weight(recorded)
        return entry
    entries = _entries(type(model))
    count = _parameters_with_imagenet_head(model)
    exact = [entry for entry in entries if entry.meta["num_params"] == count]
    if exact:
        return exact[0]
    if len({_normalisation(entry) for entry in entries if entry.name == "IMAGENET1K_V1"}) == 1:
        return entries[0]
    raise UnsupportedModel(
        f"{type(model).__name__} of this width and depth ({count:,} parameters) is none that "
        "torchvision has weights for, and their preprocessing differs: use a network as "
        "torchvision names it, or load_backbone(...), or say whose preprocessing it wants: "
        f'model.{RECORD} = "ResNet18_Weights.IMAGENET1K_V1"'
    )


def _entries(kind: type[nn.Module]) -> list[WeightsEnum]:
    """List the weights of every network that torchvision builds from one class."""
    names = [n for n in classifiers() if models.get_model_builder(n).__module__ == kind.__module__]
    return [entry for name in names for entry in models.get_model_weights(name)]


def _parameters_with_imagenet_head(model: nn.Module) -> int:
    layer = head(model)
    extra = [getattr(model, name) for name in architecture_of(model).auxiliary]
    aside: list[nn.Module] = [layer, *(module for module in extra if module is not None)]
    total = sum(p.numel() for p in model.parameters())
    total -= sum(p.numel() for module in aside for p in module.parameters())
    per_class = sum(p.numel() for p in layer.parameters()) // layer.weight.shape[0]
    return total + per_class * IMAGENET_CLASSES


def _normalisation(entry: WeightsEnum) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, for values from 0 to 1."""
    transforms = entry.transforms()
    return tuple(transforms.mean), tuple(transforms.std)


def minimum_size(model: nn.Module) -> int:
    """Return the smallest side in pixels that the forward of `model` takes.

    It tells what runs, not what is sensible: at 1 px a ResNet sees no image. ViT and MaxViT take
    exactly this size and no other.

    Raises:
        UnsupportedModel: If the model is no classifier of torchvision.

    >>> minimum_size(models.vgg11())
    32
    """
    own = exact_size(model) or architecture_of(model).minimum
    if own is not None:
        return own
    height, _ = weights_of(model).meta["min_size"]
    return int(height)


def exact_size(model: nn.Module) -> int | None:
    """Return the only image side that `model` takes (ViT, MaxViT), or None if it takes others."""
    if isinstance(model, models.VisionTransformer):
        return int(model.image_size)
    if isinstance(model, models.MaxVit):
        # The stem and the first block halve the side before attention divides it into windows.
        return int(model.blocks[0].grid_size[0]) * 4
    return None


def preprocess(model: nn.Module, images: NDArray[np.uint8] | Tensor, size: int = 128) -> Tensor:
    """Prepare images as the weights of `model` were trained: squeezed to a square, normalised.

    The whole image is resized (bilinear, antialiased, aspect ratio not kept), nothing is cropped:
    a lesion at the border stays in view. Grey images become three equal channels. Mean and
    standard deviation are those of the weights' own transforms.

    Args:
        model: A classifier of torchvision.
        images: uint8 `(N, H, W)` grey or `(N, H, W, 3)` colour, values from 0 to 255.
        size: Side of the result in pixels.

    Returns:
        float32 `(N, 3, size, size)` in channels_last memory format, on the device of `images`.

    Raises:
        TypeError: If `images` are not uint8: floats in 0..1 would be scaled twice.
        ValueError: If the shape is another, or `model` does not take images of `size`.

    >>> preprocess(models.resnet18(), np.zeros((4, 28, 28), np.uint8), size=64).shape
    torch.Size([4, 3, 64, 64])
    """
    _check_size(model, size)
    values = _planes(images).to(torch.float32)
    mean, std = (torch.tensor(v, device=values.device) for v in _normalisation(weights_of(model)))
    if values.shape[2:] != (size, size):
        # Whole grey levels again, as torchvision's own resize leaves them: equal images give
        # equal inputs by either road.
        values = F.interpolate(values, (size, size), mode="bilinear", antialias=True).round_()
    # Channels last from here on: twice as fast as reordering floats afterwards.
    values = values.permute(0, 2, 3, 1).contiguous().div_(255)
    return values.sub(mean).div_(std).permute(0, 3, 1, 2)


def _planes(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return images as uint8 `(N, 1 or 3, H, W)`."""
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        found = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"expected uint8 images with values 0..255, got {found}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            "expected images (N, H, W) or (N, H, W, 3) with N, H, W from 1 up, "
            f"got {tuple(images.shape)}: a single image needs a leading axis, images[None]"
        )
    return images.permute(0, 3, 1, 2)


def _check_size(model: nn.Module, size: int) -> None:
    exact, least = exact_size(model), minimum_size(model)
    if exact is not None and size != exact:
        raise ValueError(
            f"{type(model).__name__} takes images of {exact} px only, got size={size}: "
            f"pass size={exact}"
        )
    if size < least:
        raise ValueError(
            f"{type(model).__name__} takes images of {least} px or more, got size={size}"
        )


def image_categories(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the 1000 ImageNet classes in the order of the answers of `model`.

    Raises:
        ValueError: If the head was replaced, so that its answers are other classes.

    >>> image_categories(models.resnet18())[281]
    'tabby'
    """
    outputs = head(model).weight.shape[0]
    names = tuple(str(name) for name in weights_of(model).meta.get("categories") or ())
    if len(names) != outputs:
        raise ValueError(
            f"expected a head with the {IMAGENET_CLASSES} answers of ImageNet, found {outputs}: "
            "its classes are your own data's, see data.classes"
        )
    return names
