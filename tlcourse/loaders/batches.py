"""Feed images to a network: prepared once or per batch, shuffled, augmented."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlcourse.backbones.hooks import device_of, num_logits
from tlcourse.backbones.preprocessing import preprocess
from tlcourse.files import forget_pages
from tlcourse.loaders.augment import Augment, augmentation

PREPARED_SHARE = 0.25
"""Share of the free memory that images prepared in advance may take."""

PREPARED_LIMIT = 256 << 20
"""Bytes that they may take beside a CPU, however much is free: twice what a lesson needs."""
PREPARING_BATCH = 64


class PreparedImages:
    """Images as a network wants them, handed out by index.

    They are prepared once and kept as float32 when they fit `PREPARED_SHARE` of the free memory
    of the network's device, and on a CPU `PREPARED_LIMIT`; otherwise they stay uint8 and each
    batch is prepared when asked for.

    Args:
        model: The network; its device receives the batches.
        images: uint8 `(N, H, W)` or `(N, H, W, 3)`.
        size: Side of the prepared images in pixels.

    Attributes:
        prepared_ahead: Whether the images were prepared once, ahead of the first batch.
        view: 0: there is one view of each image; `AugmentedViews` has several.

    >>> from torchvision.models import mobilenet_v2
    >>> images = PreparedImages(mobilenet_v2(), np.zeros((5, 28, 28), np.uint8), size=32)
    >>> images.take(torch.tensor([4, 0])).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(self, model: nn.Module, images: NDArray[np.uint8], *, size: int) -> None:
        self._model, self._raw, self._size = model, images, size
        self._device = device_of(model)
        needed = len(images) * 3 * size * size * 4
        self.prepared_ahead = needed <= _room(self._device)
        self._prepared = self._prepare_all() if self.prepared_ahead else None
        self.view = 0

    def __len__(self) -> int:
        return len(self._raw)

    def take(self, indices: Tensor) -> Tensor:
        """Return a fresh float32 batch `(len(indices), 3, size, size)`, channels_last.

        Args:
            indices: Integers from 0 to N - 1, on the CPU.
        """
        if self._prepared is None:
            return self._prepare(indices.numpy())
        batch = self._prepared[indices.to(self._device)]
        return batch.contiguous(memory_format=torch.channels_last)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Hand out all images, first to last.

        Args:
            batch_size: Images in a batch; the last may hold fewer.
        """
        yield from map(self.take, torch.split(torch.arange(len(self)), batch_size))

    def _prepare(self, which: NDArray[np.int64]) -> Tensor:
        batch: Tensor = preprocess(self._model, self._raw[which], self._size)
        forget_pages(self._raw)  # images in a mapped file need not stay
        return batch.to(self._device, memory_format=torch.channels_last)

    def _prepare_all(self) -> Tensor:
        shape = (len(self._raw), 3, self._size, self._size)
        prepared = torch.empty(shape, device=self._device, memory_format=torch.channels_last)
        # In parts, so that what preparing needs on the way stays small beside the result.
        for part in torch.split(torch.arange(len(self._raw)), PREPARING_BATCH):
            prepared[part] = self._prepare(part.numpy())
        return prepared


class Source(Protocol):
    """Whatever hands out batches of network inputs by index; `view` tells which version.

    `PreparedImages` does, `AugmentedViews`, and `tlcourse.training.activation_cache`'s
    `CachedActivations`.
    """

    view: int

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Tensor:
        """Return the inputs with these indices as a fresh batch."""
        ...


class Loader(Protocol):
    """A loader of one's own, such as a `torch.utils.data.DataLoader`: batches in any order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class LoaderWarning(UserWarning):
    """What a training from a loader of one's own cannot do."""


class LoaderBatches:
    """Batches of one's own loaders in place of an image set's, brought to the model's device.

    Nothing of them is cached: a loader may augment anew in every epoch.

    Args:
        model: The network that takes the batches.
        train: Gives batches of prepared images `(N, 3, H, W)`, float, and labels `(N,)`, int.
        val: The same, of the validation images.

    Raises:
        ValueError: If `val` lacks, or a loader is empty.

    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> images = TensorDataset(torch.rand(9, 3, 8, 8), torch.arange(9) % 2)
    >>> batches = LoaderBatches(nn.Conv2d(3, 2, 1), DataLoader(images, 3), DataLoader(images, 9))
    >>> len(batches), [tuple(images.shape) for images, _ in batches.validation()]
    (3, [(9, 3, 8, 8)])
    """

    generators: tuple[torch.Generator, ...] = ()
    """None that a checkpoint could keep: a loader's order is its own."""

    def __init__(self, model: nn.Module, train: Loader, val: Loader | None) -> None:
        if val is None:
            raise ValueError(
                "expected fit(model, loader, val_loader): a loader for validation lacks"
            )
        for name, loader in (("training", train), ("validation", val)):
            if len(loader) == 0:
                raise ValueError(f"expected at least one batch from the {name} loader, got none")
        self.model, self._train, self._val = model, train, val
        self._num_logits = 0

    def __len__(self) -> int:
        return len(self._train)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Hand out the training batches of an epoch (from 1)."""
        return map(self._placed, self._train)

    def validation(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Hand out the validation batches."""
        return map(self._placed, self._val)

    def update_boundary(self) -> None:
        """Find out what is frozen: nothing depends on it here."""

    def settings(self) -> dict[str, Any]:
        """Say what is known of the loaders, for a checkpoint; warn of what it cannot hold."""
        warnings.warn(
            "a loader's order and augmentation are no part of a checkpoint: a resumed training "
            "goes on, but not bit for bit; give fit an ImageSet if it must",
            LoaderWarning,
            stacklevel=4,
        )
        return {"loader": type(self._train).__name__, "batches": len(self._train)}

    def _placed(self, batch: Any) -> tuple[Tensor, Tensor]:
        parts = batch if isinstance(batch, tuple | list) else [batch]
        if len(parts) != 2 or not all(isinstance(part, Tensor) for part in parts):
            came = ", ".join(type(part).__name__ for part in parts)
            raise ValueError(f"expected a loader that gives pairs of tensors, got {came}")
        images, labels = parts
        ints = not labels.is_floating_point()
        if not images.is_floating_point() or not ints or labels.shape != images.shape[:1]:
            raise ValueError(
                "expected images (N, 3, H, W), float, and labels (N,), int, from the loader, got "
                f"{tuple(images.shape)}, {images.dtype}, and {tuple(labels.shape)}, {labels.dtype}"
            )
        images, labels = images.to(device_of(self.model)), labels.long()
        self._num_logits = self._num_logits or num_logits(self.model, images[:1])
        if labels.max() >= self._num_logits:
            raise ValueError(
                f"expected labels from 0 to {self._num_logits - 1}, as many as the network has "
                f"logits, got {labels.max()}: call replace_head(model, num_classes) first"
            )
        form = torch.channels_last if images.dim() == 4 else torch.preserve_format
        return images.contiguous(memory_format=form), labels.to(images.device)


class TrainingBatches:
    """Pairs of images and labels in random order: each pass over it is one epoch.

    Order and augmentation have generators of their own, so that runs with and without
    augmentation see the images in the same order.

    Args:
        source: Prepared images, or whatever else the network takes; may be exchanged between
            epochs for another of the same images.
        labels: `(N,)` integers.
        batch_size: Images in a batch, at least 2; a single image left over joins the last batch.
        augment: See `augmentation`.
        seed: Seed of order and augmentation.

    Raises:
        ValueError: If there are fewer than two images, or `batch_size` is below 2.

    >>> from torchvision.models import mobilenet_v2
    >>> images = PreparedImages(mobilenet_v2(), np.zeros((9, 28, 28), np.uint8), size=32)
    >>> batches = TrainingBatches(images, np.zeros(9, np.int64), 4)
    >>> len(batches), [len(labels) for _, labels in batches]
    (2, [4, 5])
    """

    def __init__(
        self,
        source: Source,
        labels: NDArray[np.int64],
        batch_size: int,
        *,
        augment: str | Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.source, self._batch_size = source, batch_size
        self._labels = torch.tensor(labels)
        self._augment = augmentation(augment)
        self._order, self._augment_generator = (
            torch.Generator().manual_seed(int(state))
            for state in np.random.SeedSequence(seed).generate_state(2)
        )
        self._steps = len(shuffled_batches(len(source), batch_size, torch.Generator()))

    def __len__(self) -> int:
        return self._steps

    @property
    def generators(self) -> tuple[torch.Generator, torch.Generator]:
        """The generators of order and of augmentation."""
        return self._order, self._augment_generator

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in shuffled_batches(len(self.source), self._batch_size, self._order):
            images = self._augment(self.source.take(indices), self._augment_generator)
            yield images, self._labels[indices].to(images.device)


def shuffled_batches(count: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Deal the indices 0 to `count` - 1 into batches in random order, each index once.

    A single image left over joins the batch before it, because batch-norm cannot train on one.

    Args:
        count: Number of images, at least 2.
        batch_size: Images in a batch, at least 2.
        generator: What the order is drawn with.

    Raises:
        ValueError: If `count` or `batch_size` is below 2.

    >>> [len(b) for b in shuffled_batches(9, 4, torch.Generator().manual_seed(0))]
    [4, 5]
    """
    if count < 2 or batch_size < 2:
        raise ValueError(
            f"batch-norm needs two images or more in a batch: got {count} images and "
            f"batch_size={batch_size}"
        )
    batches = list(torch.split(torch.randperm(count, generator=generator), batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        last = batches.pop()
        batches[-1] = torch.cat([batches[-1], last])
    return batches


def _room(device: torch.device) -> float:
    if device.type == "cuda":
        return PREPARED_SHARE * int(torch.cuda.mem_get_info(device)[0])
    return min(PREPARED_LIMIT, PREPARED_SHARE * int(psutil.virtual_memory().available))


class AugmentedViews:
    """Images in a chosen number of augmented versions, each the same whenever it is asked for.

    Augmentation as usual draws anew in every epoch, so nothing can be computed ahead. Here view v
    of image i depends on `seed`, v and i alone: whatever the batch, it is the same bit for bit.

    Args:
        source: Prepared images.
        augment: As `tlcourse.loaders.augment.augmentation` takes it.
        views: Number of versions, at least 1.
        seed: Seed of all versions.

    Attributes:
        view: Which version `take` hands out, from 0; set it to `epoch % views` in each epoch.

    Raises:
        ValueError: If `views` is below 1, or there is no augmentation to make them with.

    >>> from torchvision.models import mobilenet_v2
    >>> from tlcourse.loaders import PreparedImages
    >>> prepared = PreparedImages(mobilenet_v2(), np.zeros((5, 28, 28), np.uint8), size=32)
    >>> AugmentedViews(prepared, "flip", views=2).take(torch.tensor([4, 0])).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, source: Source, augment: str | Augment | None, *, views: int, seed: int = 0
    ) -> None:
        if views < 1:
            raise ValueError(f"expected views of at least 1, got {views}")
        if augment is None:
            raise ValueError(
                f"views={views} of an image differ by augmentation, and augment is None: "
                "give one, such as augment='flip', or leave views out"
            )
        self._source, self._augment = source, augmentation(augment)
        self.views, self._seed, self.view = views, seed, 0

    def __len__(self) -> int:
        return len(self._source)

    def take(self, indices: Tensor) -> Tensor:
        """Return the current view of these images as a fresh batch `(len(indices), 3, H, W)`.

        Args:
            indices: Integers from 0 to N - 1, on the CPU.
        """
        batch = self._source.take(indices)
        made = [
            self._augment(batch[i : i + 1], self._augment_generator(n))
            for i, n in enumerate(indices)
        ]
        return torch.cat(made).contiguous(memory_format=torch.channels_last)

    def _augment_generator(self, index: Tensor) -> torch.Generator:
        drawn = np.random.SeedSequence((self._seed, self.view % self.views, int(index)))
        return torch.Generator().manual_seed(int(drawn.generate_state(1)[0]))
