"""Say what no rule can know of torchvision's classifiers: where stem, head and axes are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision import models


class UnsupportedModel(TypeError):
    """A model's class is not in `ARCHITECTURES`, or the model was changed beyond recognition."""


@dataclass(frozen=True)
class Architecture:
    """What the rule cannot know of an architecture.

    Attributes:
        stem: Dotted name of the last module of the stem; empty: the first pool.
        head: Attribute that holds the classifier.
        layout: Axes of the activations between blocks.
        hidden: Whether the classifier has layers before the last that carry features.
        fixed: Whether each unit after the stem is a stage, whatever its stride (a ResNet whose
            strides were replaced by dilation keeps its four stages).
        auxiliary: Attributes of auxiliary classifiers, used in training from scratch.
        containers: Attributes whose children are the blocks; other attributes are blocks.
        minimum: Smallest side in pixels that the forward takes, where torchvision's own figure
            is none of that: for Swin it is the size it was trained at.
    """

    stem: str
    head: str = "classifier"
    layout: str = "NCHW"
    hidden: bool = False
    fixed: bool = False
    auxiliary: tuple[str, ...] = ()
    containers: tuple[str, ...] = ("features", "layers", "trunk_output", "blocks")
    minimum: int | None = None


ARCHITECTURES: dict[type[nn.Module], Architecture] = {
    models.AlexNet: Architecture("", hidden=True),
    models.ConvNeXt: Architecture("features.0"),
    models.DenseNet: Architecture("features.pool0"),
    models.EfficientNet: Architecture("features.0", minimum=1),
    models.GoogLeNet: Architecture("maxpool2", head="fc", auxiliary=("aux1", "aux2")),
    models.Inception3: Architecture("maxpool2", head="fc", auxiliary=("AuxLogits",)),
    models.MaxVit: Architecture("stem", hidden=True, fixed=True),
    models.MNASNet: Architecture("layers.2"),
    models.MobileNetV2: Architecture("features.0"),
    models.MobileNetV3: Architecture("features.0", hidden=True),
    models.RegNet: Architecture("stem", head="fc", fixed=True),
    models.ResNet: Architecture("maxpool", head="fc", fixed=True),
    models.ShuffleNetV2: Architecture("maxpool", head="fc"),
    models.SqueezeNet: Architecture(""),
    models.SwinTransformer: Architecture("features.0", head="head", layout="NHWC", minimum=4),
    models.VGG: Architecture("", hidden=True),
    models.VisionTransformer: Architecture(
        "encoder.dropout", head="heads", layout="NLC", hidden=True
    ),
}
"""By class, those of torchvision. A class of your own takes, in your own code, one entry more,
`ARCHITECTURES[Net] = Architecture("stem", head="fc", containers=("body",), minimum=32)`, and each
network the name of the weights whose preprocessing it wants,
`net.weights_entry = "ResNet18_Weights.IMAGENET1K_V1"`."""


def architecture_of(model: nn.Module) -> Architecture:
    """Return what is known of the model's architecture.

    Raises:
        UnsupportedModel: If its class is not in `ARCHITECTURES`. Subclasses are refused:
            their forward may use the parts in another order.
    """
    architecture = ARCHITECTURES.get(type(model))
    if architecture is not None:
        return architecture
    inner = "module" if hasattr(model, "module") else "_orig_mod"
    if isinstance(getattr(model, inner, None), nn.Module):
        raise UnsupportedModel(
            f"{type(model).__name__} wraps a network: pass model.{inner} instead"
        )
    known = ", ".join(sorted(kind.__name__ for kind in ARCHITECTURES))
    raise UnsupportedModel(
        f"expected a classifier of torchvision ({known}), got {type(model).__name__}: build the "
        "model with load_backbone(...) or torchvision.models.get_model(...), or say how a network "
        f"of your own divides: ARCHITECTURES[{type(model).__name__}] = Architecture(...)"
    )


def head(model: nn.Module) -> nn.Linear | nn.Conv2d:
    """Return the final classifier layer (a convolution in SqueezeNet, else `nn.Linear`).

    Raises:
        UnsupportedModel: If the model is no classifier of torchvision, or its head is gone.

    >>> head(models.resnet18())
    Linear(in_features=512, out_features=1000, bias=True)
    """
    layer = model.get_submodule(head_name(model))
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return layer


def head_name(model: nn.Module) -> str:
    """Return the dotted name of the final classifier layer, such as `"classifier.1"`."""
    slot = architecture_of(model).head
    layers = model.get_submodule(slot).named_modules(prefix=slot)
    names: list[str] = [name for name, layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not names:
        raise UnsupportedModel(
            f"expected an nn.Linear or nn.Conv2d in model.{slot} of {type(model).__name__}, "
            f"found {model.get_submodule(slot)}: put a classifier back, "
            f"such as model.{slot} = nn.Linear(features, classes)"
        )
    return names[-1]
