"""As little as can be: plain torch over tensors in memory, with what makes `fit` fast.

Same images, batches of the same sizes, channels_last, fused AdamW, and a look at the validation
images after every epoch, as every contender has. What `fit` takes longer is what it records and
checks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.jobs import LR, WEIGHT_DECAY, Job
from tlcourse.backbones import preprocess
from tlcourse.datasets import ImageSet, Split

VALIDATION_BATCH = 64
"""As in `tlcourse.training.activation_cache`."""


def train(model: nn.Module, data: ImageSet, job: Job) -> nn.Module:
    """Train all parameters."""
    images, labels = _tensors(model, data.train, job)
    val_images, val_labels = _tensors(model, data.val, job)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    criterion = nn.CrossEntropyLoss()
    for _ in range(job.epochs):
        model.train()
        for batch in torch.split(torch.randperm(len(images)), job.batch_size):
            inputs = images[batch].contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels[batch])
            loss.backward()
            optimizer.step()
        _validate(model, val_images, val_labels)
    return model


def _tensors(model: nn.Module, part: Split, job: Job) -> tuple[Tensor, Tensor]:
    return preprocess(model, part.images, job.size), torch.from_numpy(part.labels)


def _validate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return loss and accuracy on the validation images."""
    model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(batch) for batch in torch.split(images, VALIDATION_BATCH)])
        right = (logits.argmax(1) == labels).float().mean()
        return float(F.cross_entropy(logits, labels)), float(right)
