"""Images as the PyTorch tutorial feeds them: a data set of PIL images with transforms."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.jobs import MEAN, STD, Job
from tlcourse.datasets import ImageSet, Split


class Pictures(Dataset[tuple[Tensor, int]]):
    """PIL images in memory, resized and normalised whenever one is asked for.

    No file is read or decoded, which favours whoever trains on them.

    Args:
        part: Grey images with labels.
        size: Side in pixels of the images that the network sees.
    """

    def __init__(self, part: Split, size: int) -> None:
        self._pictures = [Image.fromarray(image).convert("RGB") for image in part.images]
        self._labels = part.labels.tolist()
        self._prepare = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._prepare(self._pictures[index]), self._labels[index]


def loaders(data: ImageSet, job: Job) -> dict[str, DataLoader[tuple[Tensor, Tensor]]]:
    """Return the loaders of the training and the validation images, "train" and "val"."""
    parts = {"train": data.train, "val": data.val}
    return {
        phase: DataLoader(
            Pictures(part, job.size),  # type: ignore[arg-type]  # collated: labels become a tensor
            batch_size=job.batch_size,
            shuffle=phase == "train",
            num_workers=job.workers,
            # The tutorial starts its workers anew in every epoch; keeping them is faster.
            persistent_workers=job.workers > 0,
            generator=torch.Generator().manual_seed(0),
        )
        for phase, part in parts.items()
    }
