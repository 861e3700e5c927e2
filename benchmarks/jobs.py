"""One training to be timed: what it is, and how a process carries it out.

    python -m benchmarks.jobs '{"contender": "bare loop", ...}'

carries one out in this process and prints what was measured as the last line.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contenders import train_function
from tlcourse.backbones import load_backbone, preprocess, stages
from tlcourse.datasets import ImageSet
from tlcourse.metrics import auc
from tlcourse.runtime import seeded, set_threads
from tlcourse.training.predict import probabilities

BACKBONE, BOUNDARY = "backbone", "boundary"
LR, WEIGHT_DECAY = 1e-3, 0.01
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the MobileNetV2 weights, as every peer's users write them."""

WARM_IMAGES = 64


@dataclass(frozen=True)
class Job:
    """A training to be timed.

    Attributes:
        contender: One of the names in `contenders`.
        epochs: Times that every training image is seen.
        frozen: "" for nothing, `BACKBONE`, or `BOUNDARY`: up to the stage before the last.
        images: File with a pickled `ImageSet`, written by this program.
        workers: Processes of the peers' data loaders.
        cache: Whether `fit` may cache.
        size: Side in pixels that the images are enlarged to.
        batch_size: Images in a batch.
        weights: "imagenet", or None for random ones.
        threads: CPU threads of torch.
    """

    contender: str
    epochs: int
    frozen: str
    images: str
    workers: int = 0
    cache: bool = True
    size: int = 128
    batch_size: int = 32
    weights: str | None = "imagenet"
    threads: int = 2


@dataclass(frozen=True)
class Measured:
    """What one training took.

    Attributes:
        seconds: Wall time of preparing the data and training.
        frozen_share: Share of them spent in the forward of the frozen part, NaN where not asked.
        val_auc: Of the trained network: a contender that learns nothing is no contender.
        others: Share of the machine's cores that other programs used meanwhile, NaN if unknown.
    """

    seconds: float
    frozen_share: float
    val_auc: float
    others: float = float("nan")


def measure(job: Job) -> Measured:
    """Carry out a job in this process, after a short training of the same kind as a warm-up."""
    set_threads(job.threads)
    train, data = train_function(job.contender), _read(job.images)
    with seeded(0):
        train(network(job), _part_of(data), replace(job, epochs=1))
        model = network(job)
        with clocked(model, job) as frozen:
            started = time.perf_counter()
            trained = train(model, data, job)
            seconds = time.perf_counter() - started
    if torch.get_num_threads() != job.threads:
        raise RuntimeError(f"{job.contender} changed the number of torch's threads: not comparable")
    share = sum(frozen) / seconds if frozen else float("nan")
    return Measured(seconds, share, _val_auc(trained, data, job))


def network(job: Job) -> nn.Module:
    """Return the network that every contender starts from, the head's weights included."""
    model = load_backbone("mobilenet_v2", weights=job.weights, num_classes=2)
    return model


def boundary(model: nn.Module) -> str:
    """Name the stage before the last one of the backbone.

    >>> from torchvision.models import mobilenet_v2
    >>> boundary(mobilenet_v2())
    'stage4'
    """
    return list(stages(model))[-3]


def plain_layout(model: nn.Module) -> nn.Module:
    """Put the weights into torch's default memory format, which the peers' users have."""
    plain: nn.Module = model.to(memory_format=torch.contiguous_format)
    return plain


@contextmanager
def clocked(model: nn.Module, job: Job) -> Iterator[list[float]]:
    """Collect the seconds that each forward spends up to the boundary, on the CPU.

    Only for jobs that freeze up to a boundary and do not cache; otherwise the list stays empty.
    """
    spent: list[float] = []
    if job.frozen != BOUNDARY or job.cache:
        yield spent
        return
    began = [0.0]

    def begin(_module: nn.Module, _given: object) -> None:
        began[0] = time.perf_counter()

    def end(_module: nn.Module, _given: object, _output: Tensor) -> None:
        spent.append(time.perf_counter() - began[0])

    output = stages(model)[boundary(model)].output
    handles = [model.register_forward_pre_hook(begin), output.register_forward_hook(end)]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _read(path: str) -> ImageSet:
    with Path(path).open("rb") as file:
        data: ImageSet = pickle.load(file)  # written a moment ago by `turns.shared_images`
    return data


def _part_of(data: ImageSet) -> ImageSet:
    few = min(WARM_IMAGES, len(data.train))
    return replace(data, train=data.train.subset(few))


def _val_auc(trained: nn.Module, data: ImageSet, job: Job) -> float:
    prepared = preprocess(network(job), data.val.images, job.size)
    if len(np.unique(data.val.labels)) < 2:
        return float("nan")
    return auc(data.val.labels, probabilities(trained, torch.split(prepared, job.batch_size)))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # libraries warn of each other; what is read is the last line
    print(json.dumps(asdict(measure(Job(**json.loads(sys.argv[1]))))))
