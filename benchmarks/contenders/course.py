"""The course's own way: `freeze`, then `fit`."""

from __future__ import annotations

from torch import nn

from benchmarks.jobs import BACKBONE, BOUNDARY, Job, boundary
from tlcourse.datasets import ImageSet
from tlcourse.freezing import freeze
from tlcourse.training import fit


def train(model: nn.Module, data: ImageSet, job: Job) -> nn.Module:
    """Train with `fit`, whose own optimizer is AdamW with the rate and decay of `jobs`."""
    if job.frozen == BACKBONE:
        freeze(model)
    if job.frozen == BOUNDARY:
        freeze(model, through=boundary(model))
    fit(
        model,
        data,
        epochs=job.epochs,
        batch_size=job.batch_size,
        size=job.size,
        cache=job.cache,
        progress=False,
    )
    return model
