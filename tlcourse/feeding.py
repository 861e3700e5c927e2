"""Decide what the epochs of a training are fed with: images, or activations cached once."""

from __future__ import annotations

from typing import Literal

from torch import nn

from tlcourse.batches import Augment, PreparedImages, Source
from tlcourse.boundary import CachedActivations, frozen_boundary
from tlcourse.datasets import ImageSet
from tlcourse.views import AugmentedViews


class Feeding:
    """The training and validation inputs, and the part of the network that takes them.

    While nothing below a boundary moves, and images do not change from epoch to epoch beyond a
    fixed number of views, both parts are fed as activations cached at that boundary.

    Args:
        model: The network.
        data: Images and labels.
        size: Side in pixels of the prepared images.
        augment: As `fit` takes it.
        views: Number of augmented views, or None to augment anew in every epoch.
        cache: Whether activations may be cached.
        seed: Seed of the views.

    Attributes:
        model: What takes the batches: the network, or what stands above the boundary.
        train: Source of the training inputs.
        val: Source of the validation inputs.
        boundary: The last frozen stage whose activations are cached, or None.
        fresh_augment: What is left to do per batch: the augmentation, unless views hold it.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ImageSet,
        *,
        size: int,
        augment: Literal["flip"] | Augment | None,
        views: int | None,
        cache: bool,
        seed: int,
    ) -> None:
        self.whole = model
        prepared = PreparedImages(model, data.train.images, size=size)
        self.fresh_augment = augment if views is None else None
        self._train: Source = prepared
        if views is not None:
            self._train = AugmentedViews(prepared, augment, views=views, seed=seed)
        self._views = views or 1
        self._val = PreparedImages(model, data.val.images, size=size)
        self._may_cache = cache and self.fresh_augment is None
        self.arrange()

    def arrange(self) -> None:
        """Look again at what is frozen; to be called whenever that has changed."""
        self.boundary = frozen_boundary(self.whole) if self._may_cache else None
        self.model: nn.Module = self.whole
        self.train: Source = self._train
        self.val: PreparedImages | CachedActivations = self._val
        if self.boundary is not None:
            cached = CachedActivations(self.whole, self._train, self.boundary)
            self.model, self.train = cached.above, cached
            self.val = cached.beside(self._val)

    def turn_to(self, epoch: int) -> None:
        """Take the view whose turn it is in this epoch (from 1)."""
        self.train.view = (epoch - 1) % self._views
