"""The same training, written as each library's users write it.

Each module has one function `train(model, data, job)`, which prepares the data, trains a fresh
MobileNetV2 on the CPU and returns a network that answers to prepared images. What it does is what
is timed. The peers run without progress bars, loggers and checkpoints.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING

from torch import nn

from tlcourse.datasets import ImageSet

if TYPE_CHECKING:
    from benchmarks.jobs import Job

Train = Callable[[nn.Module, ImageSet, "Job"], nn.Module]

COURSE, UNCACHED, BARE = "tlcourse", "tlcourse uncached", "bare loop"
PEERS = ("PyTorch tutorial", "fastai", "Lightning")

_MODULES = {
    COURSE: "course",
    UNCACHED: "course",
    BARE: "bare",
    "PyTorch tutorial": "tutorial",
    "fastai": "with_fastai",
    "Lightning": "with_lightning",
}
_NEEDS = {"fastai": "fastai", "Lightning": "lightning"}


def train_function(contender: str) -> Train:
    """Import a contender and return its `train`.

    >>> train_function("bare loop").__module__
    'benchmarks.contenders.bare'
    """
    module = importlib.import_module(f"benchmarks.contenders.{_MODULES[contender]}")
    function: Train = module.train
    return function


def is_installed(contender: str) -> bool:
    """Tell whether the library that a contender needs is there.

    >>> is_installed("bare loop")
    True
    """
    needed = _NEEDS.get(contender)
    return needed is None or importlib.util.find_spec(needed) is not None


def peer_versions() -> dict[str, str]:
    """Return the version of each library compared with, or "not installed"."""
    return {
        package: metadata.version(package) if is_installed(name) else "not installed"
        for name, package in _NEEDS.items()
    }
