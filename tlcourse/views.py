"""A fixed number of augmented views of each image, so that what is computed of them can be kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tlcourse.batches import Augment, Source, augmentation


class AugmentedViews:
    """Images in a chosen number of augmented versions, each the same whenever it is asked for.

    Augmentation as usual draws anew in every epoch, so nothing can be computed ahead. Here view v
    of image i depends on `seed`, v and i alone: whatever the batch, it is the same bit for bit.

    Args:
        source: Prepared images.
        augment: As `tlcourse.batches.augmentation` takes it.
        views: Number of versions, at least 1.
        seed: Seed of all versions.

    Attributes:
        view: Which version `take` hands out, from 0; set it to `epoch % views` in each epoch.

    Raises:
        ValueError: If `views` is below 1, or there is no augmentation to make them with.

    >>> from torchvision.models import mobilenet_v2
    >>> from tlcourse.batches import PreparedImages
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
        made = [self._augment(batch[i : i + 1], self._chance(n)) for i, n in enumerate(indices)]
        return torch.cat(made).contiguous(memory_format=torch.channels_last)

    def _chance(self, index: Tensor) -> torch.Generator:
        drawn = np.random.SeedSequence((self._seed, self.view % self.views, int(index)))
        return torch.Generator().manual_seed(int(drawn.generate_state(1)[0]))
