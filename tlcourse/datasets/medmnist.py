"""Find or download the real BreastMNIST, verified by its checksum."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Final, NamedTuple

import pooch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from tlcourse.datasets.base import DEFAULT_SIZE, ImageSet, InvalidDataset
from tlcourse.datasets.npz import read_npz
from tlcourse.datasets.splits import Provenance, split_images
from tlcourse.runtime import cache_dir, data_dirs, offline

SERVER_SECONDS = 3.0
"""How long a server may take to answer at all."""

READ_SECONDS = 30.0
"""How long a download may stand still."""

DOWNLOAD_LOCK_SECONDS = 600.0
"""How long another process may hold the lock on the same file."""


class DownloadFailed(OSError):
    """A file could not be downloaded; the message says why."""


def download(url: str, path: Path, *, md5: str, progress: bool = True) -> Path:
    """Download `url` to `path`, unless it is there; return `path`.

    The file appears under its name only when it is whole and its checksum is right; a file there
    with another checksum is replaced. Of several processes that ask at once, one downloads, the
    others wait for it.

    Args:
        url: http or https address.
        path: Final name; its folder is made.
        md5: Checksum, 32 hexadecimal digits.
        progress: Whether to show a progress bar.

    Raises:
        DownloadFailed: If the server does not answer within `SERVER_SECONDS`, the transfer
            breaks off, the checksum differs, the folder cannot be written, another process holds
            the lock for `DOWNLOAD_LOCK_SECONDS`, or `TLCOURSE_OFFLINE` is set.
    """
    if is_verified(path, md5=md5):
        return path
    if offline():
        raise DownloadFailed("TLCOURSE_OFFLINE is set, so nothing was asked of the network")
    _reach(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=DOWNLOAD_LOCK_SECONDS):
            _retrieve(url, path, md5, progress)
    except Timeout as error:
        raise DownloadFailed(f"another process has held {error.lock_file} too long") from error
    # pooch raises ValueError for a checksum; requests' errors are OSErrors, as the disk's are.
    except (OSError, ValueError) as error:
        raise DownloadFailed(f"{url}: {type(error).__name__}: {error}") from error
    return path


def is_verified(path: Path, *, md5: str) -> bool:
    """Tell whether `path` is a file with this checksum.

    >>> is_verified(Path("nowhere.npz"), md5="0" * 32)
    False
    """
    return path.is_file() and pooch.file_hash(str(path), alg="md5") == md5


def _reach(url: str) -> None:
    """Raise unless the server answers soon; a name server that hangs is not waited for."""
    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            # Any answer will do, so the verdict on the file itself is left to the download.
            pooch.HTTPDownloader(timeout=SERVER_SECONDS)(url, None, None, check_only=True)
            outcome.append(None)
        except Exception as error:  # reported by the caller's thread
            outcome.append(error)

    # Resolving a name has no timeout of its own, hence a thread that may be left behind.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * SERVER_SECONDS)
    if not outcome or outcome[0] is not None:
        reason = f"{outcome[0]}" if outcome else f"no answer in {2 * SERVER_SECONDS:.0f} s"
        raise DownloadFailed(f"{url} cannot be reached: {reason}")


def _retrieve(url: str, path: Path, md5: str, progress: bool) -> None:
    # pooch asks a bar for its truth, which a tqdm without a total has not.
    bar = tqdm(total=1, unit="B", unit_scale=True, leave=False, disable=not progress)
    bar.set_description_str(path.name)
    fetch = pooch.HTTPDownloader(
        progressbar=bar, chunk_size=2**16, timeout=(SERVER_SECONDS, READ_SECONDS)
    )
    with bar:
        pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=fetch)


CLASSES: Final = ("malignant", "normal or benign")
SOURCE: Final = "BreastMNIST of MedMNIST v2 / MedMNIST+, https://zenodo.org/records/10519652"
LICENSE: Final = "CC BY 4.0"
CITATION: Final = (
    "Yang et al., MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical "
    "image classification, Scientific Data 10, 41 (2023); Al-Dhabyani et al., Dataset of breast "
    "ultrasound images, Data in Brief 28, 104863 (2020)"
)


class PublishedFile(NamedTuple):
    """A published file: its name, its address and its MD5 checksum."""

    name: str
    url: str
    md5: str


_RECORD: Final = "https://zenodo.org/records/10519652/files"

FILES: Final = {
    size: PublishedFile(name, f"{_RECORD}/{name}?download=1", md5)
    for size, name, md5 in (
        (28, "breastmnist.npz", "750601b1f35ba3300ea97c75c52ff8f6"),
        (64, "breastmnist_64.npz", "742edef2a1fd1524b2efff4bd7ba9364"),
        (128, "breastmnist_128.npz", "363e4b3f8d712e9b5de15470a2aaadf1"),
        (224, "breastmnist_224.npz", "b56378a6eefa9fed602bb16d192d4c8b"),
    )
}
"""The files by image size in pixels, with MedMNIST's own checksums (its package's `INFO`)."""


_failures: dict[int, str] = {}


class DatasetUnavailable(RuntimeError):
    """Images that are neither on this machine nor to be had; says how to get them."""


def load_breastmnist(
    *,
    size: int | None = None,
    split: str | None = None,
    retry: bool = True,
    progress: bool = True,
    stacklevel: int = 4,
    **splitting: Any,
) -> ImageSet:
    """Load the real BreastMNIST as `load_images("breastmnist")` does.

    Args:
        size: 28, 64, 128 or 224 pixels; None is 64.
        split: "grouped" or "official"; None is "grouped".
        retry: As for `fetch_breastmnist`.
        progress: Whether to show progress bars.
        stacklevel: As for `split_images`.
        **splitting: More for `split_images`.
    """
    path = fetch_breastmnist(DEFAULT_SIZE if size is None else size, retry=retry, progress=progress)
    return split_images(
        read_npz(path, classes=CLASSES),
        Provenance("breastmnist", SOURCE, LICENSE, CITATION),
        split=split or "grouped",
        known_leak=True,
        progress=progress,
        stacklevel=stacklevel,
        **splitting,
    )


def find_breastmnist(size: int = 64) -> Path:
    """Return the BreastMNIST file on this machine, checksum verified; nothing is downloaded.

    Args:
        size: 28, 64, 128 or 224 pixels.

    Raises:
        DatasetUnavailable: If it is in none of `runtime.data_dirs()`.
        InvalidDataset: If the folder in `TLCOURSE_DATA` holds a file of that name with another
            checksum. (In the cache such a file counts as missing and is replaced.)
        ValueError: If no such size was published.
    """
    found = _find(size)
    if found is None:
        raise DatasetUnavailable(_how_to_get(size, "it was only looked for, not downloaded"))
    return found


def fetch_breastmnist(size: int = 64, *, retry: bool = True, progress: bool = True) -> Path:
    """Return the BreastMNIST file; download it to the cache if it is not on this machine.

    Args:
        size: 28, 64, 128 or 224 pixels.
        retry: Whether to try the network again after it failed in this process. Every lesson
            asks with False, so that none waits twice.
        progress: Whether to show a progress bar.

    Raises:
        DatasetUnavailable: If it can be had neither way; says how to get it.
        InvalidDataset: As `find_breastmnist`.
        ValueError: If no such size was published.
    """
    found = _find(size)
    if found is not None:
        return found
    if size in _failures and not retry:
        raise DatasetUnavailable(_how_to_get(size, _failures[size]))
    published = FILES[size]
    try:
        path = download(
            published.url, cache_dir() / published.name, md5=published.md5, progress=progress
        )
    except DownloadFailed as error:
        _failures[size] = str(error)
        raise DatasetUnavailable(_how_to_get(size, str(error))) from error
    _failures.pop(size, None)
    return path


def check_size(size: int) -> None:
    """Raise unless BreastMNIST was published with images of this side.

    Args:
        size: Side in pixels.

    Raises:
        ValueError: If no such size was published.

    >>> check_size(64)
    """
    if size not in FILES:
        raise ValueError(f"BreastMNIST is published in {sorted(FILES)} px, not in {size}")


def _find(size: int) -> Path | None:
    check_size(size)
    published = FILES[size]
    for folder in data_dirs():
        path = folder / published.name
        if is_verified(path, md5=published.md5):
            return path
        if path.is_file() and folder != cache_dir():
            remedy = "Delete it or correct TLCOURSE_DATA; the course never overwrites files there"
            raise InvalidDataset(path, f"a file with MD5 {published.md5}", "another", remedy)
    return None


def _how_to_get(size: int, reason: str) -> str:
    published = FILES[size]
    searched = " and ".join(map(str, data_dirs()))
    return (
        f"BreastMNIST at {size} px ({published.name}) is not in {searched}.\n"
        f"Why: {reason}\n"
        "To get it, do one of these:\n"
        f"  - with a network: tlcourse fetch --size {size}\n"
        f"  - by browser: save {published.url}\n"
        f"    as {cache_dir() / published.name} (MD5 {published.md5})\n"
        "  - if you have it elsewhere: set TLCOURSE_DATA to the folder that holds it\n"
        'Without it, load_images("breast") and load_images("phantom") give simulated images.'
    )
