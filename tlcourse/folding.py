"""Fold batch normalisation into the convolution before it, where the statistics stand still.

In eval mode a batch norm multiplies each channel by a number and adds one; both can be worked into
the weights and the bias of the convolution it follows. What comes out is the same but for rounding,
and a third of the passes over memory is saved.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tlcourse.batches import main_logits
from tlcourse.observe import evaluating, observing

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
    return copy if _same_answers(model, copy, example, output) else model


def _pairs(model: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Name each convolution with the batch norm that takes its very output."""
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []
    last: tuple[str, Tensor | None] = "", None

    def note(name: str, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal last
        calls[name] += 1
        if isinstance(module, nn.Conv2d):
            last = name, output
        elif given[0] is last[1]:
            pairs.append((last[0], name))

    watched = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)}
    handles = [
        module.register_forward_hook(
            lambda module, given, output, name=name: note(name, module, given, output)
        )
        for name, module in watched.items()
    ]
    try:
        with evaluating(model), torch.inference_mode():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if all(calls[name] == 1 for name in pair)]


def _same_answers(model: nn.Module, copy: nn.Module, example: Tensor, output: str) -> bool:
    # Noise, not the example: an untrained network may answer all images alike.
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(_TRIED, *example.shape[1:], generator=generator).to(example)
    one, other = (_put_out(network, output, noise) for network in (model, copy))
    return rounding_apart(one, other)


def _put_out(model: nn.Module, name: str, images: Tensor) -> Tensor:
    module = {"used": model.get_submodule(name)}
    with observing(model, module, lambda _, seen: main_logits(seen).clone()) as look:
        return look(images)["used"]


def rounding_apart(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors have one shape and differ by no more than rounding does.

    >>> [rounding_apart(torch.ones(2), torch.ones(2) + apart) for apart in (1e-6, 1.0)]
    [True, False]
    """
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= TOLERANCE * one.abs().max())
