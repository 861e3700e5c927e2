"""Train from activations cached at the last frozen stage, which then runs only once.

What a frozen stage puts out for an image never changes. `CachedActivations` computes it once;
`AboveBoundary` lets the rest of the network start from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tlcourse.backbones.architectures import UnsupportedModel
from tlcourse.backbones.batchnorm import folded, rounding_apart
from tlcourse.backbones.hooks import capture_activations, evaluating
from tlcourse.backbones.stages import stages
from tlcourse.datasets.base import ImageSet
from tlcourse.files import ArrayStore, cache_limit
from tlcourse.freezing.freeze import frozen_stages
from tlcourse.loaders.augment import Augment
from tlcourse.loaders.batches import AugmentedViews, PreparedImages, Source, TrainingBatches
from tlcourse.training.checkpoint import fingerprint
from tlcourse.training.settings import describe_augment

CACHING_BATCH = 16
"""On a CPU larger activations are fetched from the operating system anew for every batch, which is
slow (see `tlcourse.training.malloc`)."""

VALIDATION_BATCH = 64

_TRIED = 4
"""Maps whose means must give the head the same as the maps themselves."""

_SAMPLED = 8
"""Images that an augmentation is known by in a checkpoint."""


def boundary_stage(model: nn.Module) -> str | None:
    """Name the last stage of the frozen run that begins at the stem; None if the stem may move.

    The head never counts: something must be left to train.

    >>> from torchvision.models import resnet18
    >>> from tlcourse.freezing import freeze
    >>> boundary_stage(freeze(resnet18(), through="stage2")), boundary_stage(resnet18())
    ('stage2', None)
    """
    held, boundary = set(frozen_stages(model)), None
    for name in list(stages(model))[:-1]:
        if name not in held:
            break
        boundary = name
    return boundary


class AboveBoundary(nn.Module):
    """The network from behind a boundary on: takes that stage's activations, gives the answers.

    The whole network's forward runs, but the modules up to the boundary answer at once: with
    nothing of the right shape, and at the boundary itself with the activations handed in. So
    every architecture keeps its own forward, and gradients end at the boundary. Outside a call
    the network is as it was.

    Args:
        model: A classifier of torchvision, in whatever mode; it is held, not copied.
        through: The last stage that is not to run.
        example: One prepared image `(1, 3, H, W)`; it tells the shapes.

    Raises:
        UnsupportedModel: If the network cannot be entered at this boundary.

    >>> from torchvision.models import resnet18
    >>> above = AboveBoundary(resnet18().eval(), "stage3", torch.zeros(1, 3, 32, 32))
    >>> above(torch.zeros(5, 256, 2, 2)).shape
    torch.Size([5, 1000])
    """

    def __init__(self, model: nn.Module, through: str, example: Tensor) -> None:
        super().__init__()
        self.whole, self._example = model, example[:1].detach()
        self._output = stages(model)[through].output
        self._shapes = _shapes_below(model, through, self._example)
        self._activations = example

    @property
    def shape_at_boundary(self) -> tuple[int, ...]:
        """Shape of one image's activations at the boundary."""
        return self._shapes[self._output]

    def forward(self, activations: Tensor) -> Any:
        """Return what the network answers to images with these activations `(N, ...)`."""
        self._activations = activations
        count = len(activations)
        with self._short_circuit(count):
            return self.whole(self._example.expand(count, -1, -1, -1))

    @contextmanager
    def _short_circuit(self, count: int) -> Iterator[None]:
        # Set on the instance, `forward` is found before the method of the class.
        for module, shape in self._shapes.items():
            module.__dict__["forward"] = self._stub(module, (count, *shape))
        try:
            yield
        finally:
            for module in self._shapes:
                del module.__dict__["forward"]

    def _stub(self, module: nn.Module, shape: tuple[int, ...]) -> Callable[..., Tensor]:
        if module is self._output:
            return lambda *_given: self._activations
        # One zero, shown in the right shape: costs neither time nor memory.
        return lambda *_given: self._example.new_zeros(()).expand(shape)


class CachedActivations:
    """What a stage puts out for images, computed once per view and handed out by index.

    Where what follows cannot tell whole maps from their means (a global average pool comes
    next), the means are kept: they are smaller by the number of positions. Where only the head
    stands above the boundary, batch norms are folded into the convolutions before them (see
    `tlcourse.backbones.batchnorm`), and activations are those of the network but for rounding;
    elsewhere they are its activations bit for bit.

    Args:
        model: A classifier whose stages up to `through` are frozen.
        source: Prepared images; one with `views` has each view cached when it is first used.
        through: The boundary.
        limit: Bytes a view may take in memory before it goes to a file that is removed with the
            cache; None: a quarter of the free memory.

    Attributes:
        above: The network from behind the boundary on; it takes the batches of `take`.

    >>> import numpy as np
    >>> from torchvision.models import resnet18
    >>> from tlcourse.loaders import PreparedImages
    >>> model = resnet18().eval()
    >>> images = PreparedImages(model, np.zeros((5, 28, 28), np.uint8), size=32)
    >>> cached = CachedActivations(model, images, "stage3")
    >>> cached.above(cached.take(torch.tensor([4, 0]))).shape
    torch.Size([2, 1000])
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        through: str,
        *,
        limit: int | None = None,
    ) -> None:
        self._model, self._source, self._through = model, source, through
        self._limit = limit
        self._example = source.take(torch.tensor([0]))
        self.above = AboveBoundary(model, through, self._example)
        self._pooled = self._pooling_is_free()
        # Training more than a head from there could enlarge the rounding of the folded weights.
        self._fast = self._folded() if self._is_last() else model
        self._views: dict[int, Tensor] = {}

    def for_source(self, source: Source) -> CachedActivations:
        """Return the cache of other images at the same boundary of the same network."""
        other = copy(self)
        other._source, other._views = source, {}
        return other

    def __len__(self) -> int:
        return len(self._source)

    @property
    def view(self) -> int:
        """The view that `take` hands out."""
        return self._source.view

    @view.setter
    def view(self, which: int) -> None:
        self._source.view = which

    def take(self, indices: Tensor) -> Tensor:
        """Return the activations `(len(indices), ...)` of these images as a fresh batch."""
        if self.view not in self._views:
            self._views[self.view] = self._compute()
        batch = self._views[self.view][indices].to(self._example.device)
        return batch.contiguous(memory_format=_memory_format(batch))

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Hand out the activations of all images, first to last."""
        for start in range(0, len(self), batch_size):
            yield self.take(torch.arange(start, min(start + batch_size, len(self))))

    def _compute(self) -> Tensor:
        output = stages(self._fast)[self._through].output
        store = ArrayStore(len(self), cache_limit(self._limit))
        with store, capture_activations(self._fast, {"cut": output}, self._keep) as capture:
            for start in range(0, len(self), CACHING_BATCH):
                rows = slice(start, min(start + CACHING_BATCH, len(self)))
                seen = capture(self._source.take(torch.arange(rows.start, rows.stop)))
                store.put(rows, seen["cut"].cpu().numpy())
            return torch.from_numpy(store.result())

    def _keep(self, _name: str, activation: Tensor) -> Tensor:
        kept = activation.mean((2, 3), keepdim=True) if self._pooled else activation
        return kept.float().clone(memory_format=torch.contiguous_format)

    def _folded(self) -> nn.Module:
        end = stages(self._model)[self._through].output
        name = next(name for name, module in self._model.named_modules() if module is end)
        return folded(self._model, self._example, output=name)

    def _is_last(self) -> bool:
        """Does only the head stand above the boundary?"""
        return self._through == list(stages(self._model))[-2]

    def _pooling_is_free(self) -> bool:
        """Ask the network itself: do means instead of maps change anything the head is given?

        Not what it answers: a head whose weights are zero answers all alike.
        """
        shape = self.above.shape_at_boundary
        if not self._is_last() or len(shape) != 3 or shape[1] * shape[2] == 1:
            return False
        # Noise, not images: an untrained network may answer all images alike.
        noise = torch.Generator().manual_seed(0)
        maps = torch.randn(_TRIED, *shape, generator=noise).to(self._example.device)
        whole = self._given_to_head(maps.clone())
        try:
            pooled = self._given_to_head(maps.mean((2, 3), keepdim=True))
        except RuntimeError:  # the next layer needs a map of a certain size
            return False
        return all(rounding_apart(*pair) for pair in zip(whole, pooled, strict=True))

    def _given_to_head(self, maps: Tensor) -> list[Tensor]:
        """Return what each module of the head with weights of its own takes."""
        weighty = [m for m in stages(self._model)["head"].modules() if m._parameters]
        named = {str(i): module for i, module in enumerate(weighty)}
        with capture_activations(
            self.above, named, lambda _, given: given.clone(), inputs=True
        ) as capture:
            return list(capture(maps).values())


def _shapes_below(
    model: nn.Module, through: str, example: Tensor
) -> dict[nn.Module, tuple[int, ...]]:
    """Return the shape, batch axis aside, that each module up to the boundary puts out."""
    divided = stages(model)
    names = list(divided)
    below = [divided[name] for name in names[: names.index(through) + 1]]
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    end = divided[through].output
    handles = [
        root.register_forward_hook(
            # ConvNeXt's closing norm belongs to its last stage but runs after the pool, behind
            # the boundary: whatever comes after the boundary stays in use.
            lambda module, _given, out: (
                None if end in shapes else shapes.update({module: tuple(out.shape[1:])})
            )
        )
        for stage in below
        for _, root in stage.roots
    ]
    try:
        with evaluating(model), torch.inference_mode():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    if end not in shapes:
        raise UnsupportedModel(
            f"{type(model).__name__} cannot be entered behind {through!r}: expected its output "
            "to be a block of its own; train it uncached"
        )
    return shapes


def _memory_format(batch: Tensor) -> torch.memory_format:
    return torch.channels_last if batch.dim() == 4 else torch.contiguous_format


class ActivationCache:
    """What the epochs of a training are fed: images, or activations of the last frozen stage.

    While nothing up to a stage moves, and images do not change from epoch to epoch beyond a fixed
    number of views, training goes on from that stage's activations, which are computed once.

    Args:
        model: The network.
        data: Images and labels.
        batch_size: Images in a training batch, at least 2.
        size: Side in pixels of the prepared images.
        augment: As `tlcourse.training.fit` takes it, like all that follow.
        views: Number of augmented views, or None to augment anew in every epoch.
        cache: Whether activations may be cached.
        seed: Seed of order, augmentation and views.

    Attributes:
        model: What takes the batches: the network, or what stands above the boundary stage.
        boundary: The last frozen stage, whose activations are cached; None: nothing is.

    >>> from torchvision.models import resnet18
    >>> from tlcourse.datasets import load_images
    >>> from tlcourse.freezing import freeze
    >>> data = load_images("phantom", n=60)
    >>> cache = ActivationCache(freeze(resnet18(num_classes=2)), data, batch_size=8, size=32)
    >>> activations, labels = next(iter(cache.epoch(1)))
    >>> cache.boundary, tuple(activations.shape), len(labels)
    ('stage4', (8, 512, 1, 1), 8)
    """

    def __init__(
        self,
        model: nn.Module,
        data: ImageSet,
        batch_size: int = 32,
        size: int = 128,
        augment: Literal["flip"] | Augment | None = None,
        views: int | None = None,
        cache: bool = True,
        seed: int = 0,
    ) -> None:
        self._whole, self._data = model, data
        self._given = {"batch_size": batch_size, "size": size, "views": views, "cache": cache}
        self._augment, self._views, self._seed = augment, views or 1, seed
        self._train: Source = PreparedImages(model, data.train.images, size=size)
        self._val = PreparedImages(model, data.val.images, size=size)
        fresh = augment if views is None else None
        if views is not None:
            self._train = AugmentedViews(self._train, augment, views=views, seed=seed)
        self._may_cache = cache and fresh is None
        self._batches = TrainingBatches(
            self._train, data.train.labels, batch_size, augment=fresh, seed=seed
        )
        self.update_boundary()

    def update_boundary(self) -> None:
        """Find out what is frozen; to be called whenever that has changed."""
        self.boundary = boundary_stage(self._whole) if self._may_cache else None
        self.model: nn.Module = self._whole
        self._batches.source = self._train
        self._validated: PreparedImages | CachedActivations = self._val
        if self.boundary is not None:
            cached = CachedActivations(self._whole, self._train, self.boundary)
            self.model, self._batches.source = cached.above, cached
            self._validated = cached.for_source(self._val)

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int) -> TrainingBatches:
        """Return the training batches of an epoch (from 1), in view `(number - 1) % views`."""
        self._batches.source.view = (number - 1) % self._views
        return self._batches

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Hand out the validation images, or their activations, and labels, first to last."""
        labels = torch.split(torch.tensor(self._data.val.labels), VALIDATION_BATCH)
        return zip(self._validated.in_order(VALIDATION_BATCH), labels, strict=True)

    @property
    def generators(self) -> tuple[torch.Generator, ...]:
        """The generators of order and augmentation, which a checkpoint keeps."""
        return self._batches.generators

    def settings(self) -> dict[str, Any]:
        """Return what the inputs depend on as plain values, the same in any process."""
        train, val = self._data.train, self._data.val
        some = self._val.take(torch.arange(min(_SAMPLED, len(self._val))))
        return {
            **self._given,
            "augment": describe_augment(self._augment, some, self._seed),
            "images": fingerprint(train.images, train.labels, val.images, val.labels),
        }
