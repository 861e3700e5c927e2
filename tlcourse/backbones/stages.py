"""Divide a classifier of torchvision into named stages: stem, stage1, stage2, ..., head.

The stem is the input layers, and a new stage begins where a block lowers the resolution, which
strides tell without running the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.swin_transformer import PatchMerging, PatchMergingV2
from torchvision.ops import Permute

from tlcourse.backbones.architectures import (
    Architecture,
    UnsupportedModel,
    architecture_of,
    head_name,
)

NamedModule = tuple[str, nn.Module]

HIDDEN = "hidden"
"""Name of the stage of classifier layers before the head (VGG, AlexNet, MobileNetV3, MaxViT)."""


@dataclass(frozen=True)
class Stage:
    """A run of blocks of a network.

    Attributes:
        name: `"stem"`, `"stage1"`, ..., `"hidden"` where the classifier has layers of its own
            before the last, and `"head"`.
        roots: The modules that make up the stage, with their dotted names.
        loose: Parameters that hang on a container instead of on a root (ViT's class token).
        output: The module whose forward output is the stage's activation: hook this one.
        layout: Axes of that activation: `"NCHW"`, `"NHWC"` (Swin), `"NLC"` (ViT, class token
            first) or `"NC"`.
    """

    name: str
    roots: tuple[NamedModule, ...]
    output: nn.Module
    layout: str = "NCHW"
    loose: tuple[tuple[str, nn.Parameter], ...] = ()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield each parameter with its full dotted name in the model."""
        yield from self.loose
        for name, module in self.roots:
            yield from module.named_parameters(prefix=name)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield each parameter."""
        yield from (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each buffer (such as running statistics) with its full dotted name."""
        for name, module in self.roots:
            yield from module.named_buffers(prefix=name)

    def buffers(self) -> Iterator[Tensor]:
        """Yield each buffer."""
        yield from (buffer for _, buffer in self.named_buffers())

    def modules(self) -> Iterator[nn.Module]:
        """Yield each module, containers of several stages excluded."""
        for _, root in self.roots:
            yield from root.modules()

    def maps(self, activation: Tensor) -> Tensor:
        """Return what `output` put out as feature maps `(N, C, H, W)`, whatever its layout.

        ViT's class token is left out; answers without positions become maps of one pixel.

        >>> import torch
        >>> stage = Stage("stage1", (), nn.Identity(), layout="NLC")
        >>> stage.maps(torch.zeros(2, 1 + 49, 768)).shape
        torch.Size([2, 768, 7, 7])
        """
        if self.layout == "NHWC":
            return activation.permute(0, 3, 1, 2)
        if self.layout == "NLC":
            tokens = activation[:, 1:].transpose(1, 2)
            return tokens.reshape(*tokens.shape[:2], isqrt(tokens.shape[2]), -1)
        return activation.flatten(1)[:, :, None, None] if self.layout == "NC" else activation

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters())
        names = ", ".join(name for name, _ in self.roots)
        return f"Stage({self.name!r}: {count:,} parameters in {names})"


_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_BETWEEN = (nn.AdaptiveAvgPool2d, nn.Dropout, nn.Flatten, Permute)
_VIT_STAGES = 4


def stages(model: nn.Module) -> dict[str, Stage]:
    """Return the stages of `model` in the order of the forward, the head last.

    Every parameter belongs to exactly one stage. Names count up whatever torchvision calls the
    parts: `stage1` of ResNet is `layer1`, of ShuffleNetV2 `stage2`. A pool without parameters
    closes a stage; a block or layer that strides opens one. Closing normalisations belong to
    the last stage. VGG, AlexNet, MobileNetV3 and MaxViT have layers between features and head:
    these are the stage `"hidden"`. Auxiliary classifiers (GoogLeNet, Inception) belong to the
    head.

    Raises:
        UnsupportedModel: If the model is no classifier of torchvision, or has parameters that
            belong to none of its parts.

    >>> list(stages(models.resnet18()))
    ['stem', 'stage1', 'stage2', 'stage3', 'stage4', 'head']
    """
    architecture = architecture_of(model)
    if isinstance(model, models.VisionTransformer):
        body = _transformer_stages(model)
    else:
        body = _convolution_stages(model, architecture)
    hidden, rest = _split_classifier(model, architecture)
    # ConvNeXt keeps a norm of its last stage in its classifier, after pooling.
    closing = tuple(root for root in rest if isinstance(root[1], LayerNorm2d))
    body[-1] = replace(body[-1], roots=(*body[-1].roots, *closing))
    if hidden:
        body.append(Stage(HIDDEN, tuple(hidden), hidden[-1][1], "NC"))
    body.append(_head_stage(model, architecture, [root for root in rest if root not in closing]))
    divided = {stage.name: stage for stage in body}
    _check_complete(model, divided)
    return divided


def _convolution_stages(model: nn.Module, architecture: Architecture) -> list[Stage]:
    units = _units(model, architecture)
    end = 1 + _stem_end(model, architecture, units)
    runs = [units[:end], *_runs(units[end:], architecture)]
    names = ["stem", *(f"stage{i}" for i in range(1, len(runs)))]
    return [
        Stage(name, tuple(run), run[-1][1], architecture.layout)
        for name, run in zip(names, runs, strict=True)
    ]


def _units(model: nn.Module, architecture: Architecture) -> list[NamedModule]:
    """List the blocks before the classifier in the order of the forward."""
    units: list[NamedModule] = []
    for name, child in model.named_children():
        if name in architecture.containers:
            units += [(f"{name}.{inner}", block) for inner, block in child.named_children()]
        elif name not in (architecture.head, *architecture.auxiliary) and not isinstance(
            child, _BETWEEN
        ):
            units.append((name, child))
    return units


def _stem_end(model: nn.Module, architecture: Architecture, units: list[NamedModule]) -> int:
    ends = [
        i
        for i, (name, unit) in enumerate(units)
        if (name == architecture.stem if architecture.stem else isinstance(unit, _POOLS))
    ]
    if not ends or ends[0] + 1 == len(units):
        raise UnsupportedModel(
            f"expected {type(model).__name__} with a stem that ends at "
            f"{architecture.stem or 'the first pool'}, found {[name for name, _ in units]}: "
            "use the architecture as torchvision builds it"
        )
    return ends[0]


def _runs(units: list[NamedModule], architecture: Architecture) -> list[list[NamedModule]]:
    runs: list[list[NamedModule]] = []
    closed = True
    for name, unit in units:
        pool = isinstance(unit, _POOLS)
        if closed or architecture.fixed or (not pool and lowers_resolution(unit)):
            runs.append([])
        runs[-1].append((name, unit))
        closed = pool
    return runs


def lowers_resolution(block: nn.Module) -> bool:
    """Tell from strides whether a block puts out smaller maps than it takes.

    >>> lowers_resolution(nn.Conv2d(3, 8, 3, stride=2))
    True
    """
    merging = (PatchMerging, PatchMergingV2)
    strides = (getattr(module, "stride", 1) for module in block.modules())
    return any(isinstance(module, merging) for module in block.modules()) or any(
        max(stride) > 1 if isinstance(stride, tuple) else stride > 1 for stride in strides
    )


def _transformer_stages(model: models.VisionTransformer) -> list[Stage]:
    """Divide ViT, which has one resolution, into four runs of blocks."""
    encoder, layout = model.encoder, "NLC"
    blocks = [(f"encoder.layers.{name}", b) for name, b in encoder.layers.named_children()]
    stem = (("conv_proj", model.conv_proj), ("encoder.dropout", encoder.dropout))
    loose = (
        ("class_token", model.class_token),
        ("encoder.pos_embedding", encoder.pos_embedding),
    )
    runs = [[blocks[j] for j in part] for part in np.array_split(range(len(blocks)), _VIT_STAGES)]
    runs[-1].append(("encoder.ln", encoder.ln))
    return [
        Stage("stem", stem, encoder.dropout, layout, loose),
        *(Stage(f"stage{i}", tuple(r), r[-1][1], layout) for i, r in enumerate(runs, start=1)),
    ]


def _head_stage(model: nn.Module, architecture: Architecture, rest: list[NamedModule]) -> Stage:
    """Return what is left of the classifier, with what stands beside it in the network."""
    between = [unit for unit in model.named_children() if isinstance(unit[1], _BETWEEN)]
    extra = [(name, getattr(model, name)) for name in architecture.auxiliary]
    roots = [*between, *(e for e in extra if e[1] is not None), *rest]
    return Stage("head", tuple(roots), model.get_submodule(architecture.head), "NC")


def _split_classifier(
    model: nn.Module, architecture: Architecture
) -> tuple[list[NamedModule], list[NamedModule]]:
    """Return the classifier's children as hidden layers and the rest, which holds the head."""
    slot, name = model.get_submodule(architecture.head), head_name(model)
    if not isinstance(slot, nn.Sequential) or name == architecture.head:
        return [], [(architecture.head, slot)]
    children = [(f"{architecture.head}.{key}", child) for key, child in slot.named_children()]
    at = next(i for i, (key, _) in enumerate(children) if name == key or name.startswith(key + "."))
    weighty = [i for i in range(at) if any(c.dim() > 1 for c in children[i][1].parameters())]
    if not architecture.hidden or not weighty:
        return [], children
    # Dropout before the head regularises the head, so that a frozen hidden stage stays exact.
    while at and isinstance(children[at - 1][1], nn.Dropout):
        at -= 1
    return children[:at], children[at:]


def _check_complete(model: nn.Module, divided: dict[str, Stage]) -> None:
    found = {id(p) for stage in divided.values() for p in stage.parameters()}
    stray = [name for name, p in model.named_parameters() if id(p) not in found]
    if stray:
        raise UnsupportedModel(
            f"parameters {stray[:3]} of {type(model).__name__} belong to no known part: "
            f"put new layers into model.{architecture_of(model).head}"
        )
