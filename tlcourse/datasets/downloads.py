"""Download a file once, whole and verified, however many kernels ask for it."""

from __future__ import annotations

import threading
from pathlib import Path

import pooch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from tlcourse.runtime import offline

CONNECT_SECONDS = 3.0
"""How long a server may take to answer at all."""

READ_SECONDS = 30.0
"""How long a download may stand still."""

LOCK_SECONDS = 600.0
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
        DownloadFailed: If the server does not answer within `CONNECT_SECONDS`, the transfer
            breaks off, the checksum differs, the folder cannot be written, another process holds
            the lock for `LOCK_SECONDS`, or `TLCOURSE_OFFLINE` is set.
    """
    if is_verified(path, md5=md5):
        return path
    if offline():
        raise DownloadFailed("TLCOURSE_OFFLINE is set, so nothing was asked of the network")
    _reach(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS):
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
            pooch.HTTPDownloader(timeout=CONNECT_SECONDS)(url, None, None, check_only=True)
            outcome.append(None)
        except Exception as error:  # reported by the caller's thread
            outcome.append(error)

    # Resolving a name has no timeout of its own, hence a thread that may be left behind.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(2 * CONNECT_SECONDS)
    if not outcome or outcome[0] is not None:
        reason = f"{outcome[0]}" if outcome else f"no answer in {2 * CONNECT_SECONDS:.0f} s"
        raise DownloadFailed(f"{url} cannot be reached: {reason}")


def _retrieve(url: str, path: Path, md5: str, progress: bool) -> None:
    # pooch asks a bar for its truth, which a tqdm without a total has not.
    bar = tqdm(total=1, unit="B", unit_scale=True, leave=False, disable=not progress)
    bar.set_description_str(path.name)
    fetch = pooch.HTTPDownloader(
        progressbar=bar, chunk_size=2**16, timeout=(CONNECT_SECONDS, READ_SECONDS)
    )
    with bar:
        pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=fetch)
