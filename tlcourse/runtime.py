"""Say what machine the course runs on: device, threads, seeds, folders."""

from __future__ import annotations

import os
import platform
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np
import psutil
import torch

MINIMUM_MEMORY_GB = 2.0
"""Free memory in GB that a lesson's kernel needs with room to spare."""


def device() -> torch.device:
    """Choose the fastest device at hand: CUDA, then Apple's MPS, then the CPU.

    The environment variable `TLCOURSE_DEVICE` overrules the choice.

    >>> device().type in {"cpu", "cuda", "mps"}
    True
    """
    wanted = os.environ.get("TLCOURSE_DEVICE")
    if wanted:
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def set_threads(count: int | None = None) -> int:
    """Let torch use `count` CPU threads (all usable cores by default); return the count.

    Args:
        count: Number of threads, at least 1.

    Raises:
        ValueError: If `count` is below 1.

    >>> set_threads() == usable_cores()
    True
    """
    count = usable_cores() if count is None else count
    if count < 1:
        raise ValueError(f"expected at least 1 thread, got {count}")
    torch.set_num_threads(count)
    return torch.get_num_threads()


def usable_cores() -> int:
    """Count the cores that this process may use (containers may allow fewer than exist)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def accelerators() -> tuple[str, range]:
    """Return the kind of accelerator that torch finds, and the numbers of its devices.

    >>> kind, devices = accelerators()
    >>> hasattr(torch.get_device_module(kind), "get_rng_state") or not devices
    True
    """
    found = torch.accelerator.current_accelerator()
    if found is None:
        return "cpu", range(0)
    return found.type, range(torch.accelerator.device_count())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block from a known seed and leave every global generator as it was.

    Covers Python's `random`, numpy and torch, on the CPU and on each device of the accelerator
    that torch finds (CUDA, MPS, XPU and others).

    >>> with seeded(0):
    ...     first = torch.rand(1)
    >>> with seeded(0):
    ...     bool(first == torch.rand(1))
    True
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    kind, devices = accelerators()
    with torch.random.fork_rng(devices=devices, device_type=kind):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - other libraries draw from the global state
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def in_notebook() -> bool:
    """Tell whether a front end can show pictures: a kernel has one, a terminal or script has not.

    >>> isinstance(in_notebook(), bool)
    True
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def repository_root() -> Path | None:
    """Return the checkout this package runs from, or None when it was installed elsewhere."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "notebooks" / "src").is_dir() else None


def chosen_folder(name: str) -> Path:
    """Return the folder that a `TLCOURSE_` variable names.

    A relative name counts from where the process stands or, if there is no such folder, from the
    checkout: a lesson's kernel stands in `notebooks/`, whoever set the variable did not.

    Args:
        name: What the variable holds.

    >>> chosen_folder("/somewhere").as_posix().endswith("/somewhere")
    True
    """
    folder = Path(name).expanduser()
    root = repository_root()
    if folder.is_absolute() or folder.is_dir() or root is None:
        return folder
    return root / folder


def cache_dir() -> Path:
    """Return the folder for downloaded images and intermediate files (not created here).

    `TLCOURSE_CACHE` if set, else `data/cache` of the checkout, else the user's cache folder.
    """
    chosen = os.environ.get("TLCOURSE_CACHE")
    if chosen:
        return chosen_folder(chosen)
    root = repository_root()
    if root is not None:
        return root / "data" / "cache"
    import pooch

    return Path(pooch.os_cache("tlcourse"))


def data_dirs() -> list[Path]:
    """List the folders searched for images, in order: `TLCOURSE_DATA`, then the cache.

    Raises:
        NotADirectoryError: If `TLCOURSE_DATA` is set to something that is no folder.
    """
    chosen = os.environ.get("TLCOURSE_DATA")
    if not chosen:
        return [cache_dir()]
    folder = chosen_folder(chosen)
    if not folder.is_dir():
        raise NotADirectoryError(
            f"TLCOURSE_DATA names {folder}, which is no folder: correct it or unset it"
        )
    return [folder, cache_dir()]


def offline() -> bool:
    """Tell whether `TLCOURSE_OFFLINE` forbids the network (any value but empty and 0).

    >>> isinstance(offline(), bool)
    True
    """
    return os.environ.get("TLCOURSE_OFFLINE", "") not in ("", "0")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    names = ("torch", "torchvision", "numpy", "scikit-learn", "scikit-image", "jupyterlab")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def environment_report() -> dict[str, str]:
    """Describe this machine: system, versions, device, threads, memory.

    >>> sorted(environment_report())[:3]
    ['cores', 'device', 'free memory']
    """
    memory = psutil.virtual_memory()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **versions(),
        "device": str(device()),
        "cores": str(usable_cores()),
        "threads": str(torch.get_num_threads()),
        "memory": f"{memory.total / 2**30:.1f} GB",
        "free memory": f"{memory.available / 2**30:.1f} GB",
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
