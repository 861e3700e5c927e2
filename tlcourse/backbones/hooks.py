"""Look at what passes through a network without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from tlcourse.backbones.preprocessing import preprocess
from tlcourse.backbones.stages import Stage, stages
from tlcourse.files import forget_pages

Images = NDArray[np.uint8] | Tensor
Reduce = Callable[[str, Tensor], Tensor]
Capture = Callable[[Tensor], dict[str, Tensor]]
Note = Callable[[nn.Module, Any, Any], Tensor | None]


class _SeenEnoughError(Exception):
    """Ends a forward after the last module of interest; never leaves this module."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode for a block, then restore each flag, also on error.

    The flags are set one by one: `model.train()` would lose a mixture of modes, such as frozen
    batch-norm layers in a network that trains.

    >>> model = nn.Sequential(nn.Dropout())
    >>> with evaluating(model):
    ...     model[0].training
    False
    >>> model[0].training
    True
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def watching(modules: Iterable[nn.Module], note: Note) -> Iterator[None]:
    """Call `note` after each forward of `modules` within a block.

    Args:
        modules: The modules to watch.
        note: Takes the module, the tuple of its inputs and its output. What it returns, unless
            None, takes the place of the output.

    >>> layer = nn.Linear(2, 1)
    >>> with watching([layer], lambda module, given, output: print(tuple(output.shape))):
    ...     _ = layer(torch.zeros(3, 2))
    (3, 1)
    """
    with ExitStack() as undo:
        for module in modules:
            undo.enter_context(module.register_forward_hook(note))
        yield


@contextmanager
def capture_activations(
    model: nn.Module, modules: Mapping[str, nn.Module], reduce: Reduce, *, inputs: bool = False
) -> Iterator[Capture]:
    """Yield a function that runs one batch and returns what passed through `modules`.

    The model is in eval mode and inference mode meanwhile. A forward ends at the last module of
    interest; what lies behind costs nothing.

    Args:
        model: Any network.
        modules: The modules to hook, by the names that the results shall have.
        reduce: Called at once with name and activation. It must return a new tensor: a later
            in-place ReLU (DenseNet) would overwrite the activation itself.
        inputs: Whether to take each module's first input instead of its output.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(inplace=True))
    >>> with capture_activations(model, {"first": model[0]}, lambda _, out: out.clone()) as capture:
    ...     capture(torch.ones(3, 4))["first"].shape
    torch.Size([3, 2])
    """
    seen: dict[str, Tensor] = {}
    names = {module: name for name, module in modules.items()}

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        name = names[module]
        seen[name] = reduce(name, given[0] if inputs else output)
        if len(seen) == len(modules):
            raise _SeenEnoughError

    def capture(batch: Tensor) -> dict[str, Tensor]:
        seen.clear()
        try:
            with torch.inference_mode():
                model(batch)
        except _SeenEnoughError:
            pass
        missing = [name for name in modules if name not in seen]
        if missing:
            raise RuntimeError(
                f"{missing} did not run in the model's forward: pass modules that belong to this "
                "model"
            )
        return {name: seen[name] for name in modules}

    with evaluating(model), watching(modules.values(), note):
        yield capture


@contextmanager
def with_gradients(model: nn.Module, module: nn.Module) -> Iterator[list[Tensor]]:
    """Let a forward in eval mode build a graph and collect the outputs of `module` in a list.

    Take gradients with `torch.autograd.grad`, which touches no parameter's `.grad`.

    Args:
        model: Any network, frozen or not.
        module: The part of it to look at.

    >>> model, inputs = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True)), torch.ones(1, 2)
    >>> with with_gradients(model, model[0]) as outputs:
    ...     logits = model(inputs.requires_grad_())
    ...     torch.autograd.grad(outputs[0].sum(), inputs)[0].shape
    torch.Size([1, 2])
    """
    outputs: list[Tensor] = []

    def note(_module: nn.Module, _given: Any, output: Tensor) -> Tensor:
        outputs.append(output)
        # A copy goes on: an in-place ReLU (DenseNet) would change what was noted.
        return output.clone()

    with (
        watching([module], note),
        evaluating(model),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield outputs


def prepared_batches(
    model: nn.Module,
    images: Images,
    *,
    size: int,
    batch_size: int,
    progress: bool,
    title: str = "features",
) -> Iterator[tuple[slice, Tensor]]:
    """Hand out images as the model wants them, with their rows, on the model's device.

    Each batch is prepared when its turn comes: the images stand as floats one batch at a time,
    and images in a mapped file take no memory beyond it.

    Args:
        model: A classifier of torchvision.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`.
        size: Side of the prepared images in pixels.
        batch_size: Images in a batch, at least 1.
        progress: Whether to show a bar.
        title: What the bar says.

    Raises:
        ValueError: If there is no image or `batch_size` is below 1.

    >>> from torchvision.models import resnet18
    >>> images = np.zeros((3, 28, 28), np.uint8)
    >>> batches = prepared_batches(resnet18(), images, size=32, batch_size=2, progress=False)
    >>> [(rows.start, rows.stop, tuple(batch.shape)) for rows, batch in batches]
    [(0, 2, (2, 3, 32, 32)), (2, 3, (1, 3, 32, 32))]
    """
    if batch_size < 1:
        raise ValueError(f"expected a batch_size of at least 1, got {batch_size}")
    if len(images) == 0:
        raise ValueError("expected at least one image, got none: check what was selected")
    place = device_of(model)
    with tqdm(total=len(images), desc=title, unit="img", leave=False, disable=not progress) as bar:
        for start in range(0, len(images), batch_size):
            rows = slice(start, min(start + batch_size, len(images)))
            batch = preprocess(model, images[rows], size)
            yield rows, batch.to(place, memory_format=torch.channels_last)
            bar.update(rows.stop - rows.start)
            forget_pages(images)


def feature_stages(model: nn.Module) -> dict[str, Stage]:
    """Return the stages before the head, in the order of the forward.

    >>> from torchvision.models import resnet18
    >>> list(feature_stages(resnet18()))[-1]
    'stage4'
    """
    return {name: stage for name, stage in stages(model).items() if name != "head"}


def stage_named(model: nn.Module, name: str) -> Stage:
    """Return a stage before the head by its name.

    Raises:
        ValueError: If there is none of that name; the message lists those there are.
    """
    body = feature_stages(model)
    if name not in body:
        raise ValueError(f"expected a stage before the head, one of {list(body)}, got {name!r}")
    return body[name]


def device_of(model: nn.Module) -> torch.device:
    """Return the device that holds the model's weights.

    >>> device_of(nn.Linear(1, 1))
    device(type='cpu')
    """
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def num_logits(model: nn.Module, image: Tensor) -> int:
    """Count the logits that a model gives to an image; the model stays as it was.

    Args:
        model: Any classifier.
        image: A batch of one `(1, 3, H, W)` on its device.

    >>> num_logits(nn.Linear(4, 2), torch.zeros(1, 4))
    2
    """
    with evaluating(model), torch.inference_mode():
        return int(main_logits(model(image)).shape[1])


def main_logits(output: Any) -> Tensor:
    """Return the logits `(N, C)` of the main head.

    In train mode Inception and GoogLeNet answer with their auxiliary heads as well.

    >>> main_logits(torch.zeros(1, 2)).shape
    torch.Size([1, 2])
    """
    logits: Tensor = getattr(output, "logits", output)
    return logits
