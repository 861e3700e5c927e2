"""Write files that are only ever complete; fill a large array batch by batch."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

MEMORY_SHARE = 0.25
"""Share of the free memory that cached features take before they go to a file: training on them
and the kernels of other notebooks need the rest."""


def cache_limit(chosen: int | None = None) -> int:
    """Return the bytes that cached features may take in memory: `chosen`, or a share of the free.

    >>> cache_limit(1000)
    1000
    """
    return int(MEMORY_SHARE * psutil.virtual_memory().available) if chosen is None else chosen


class ArrayStore:
    """A float32 array that is filled row by row, inside a `with` block.

    Up to `limit` bytes it stays in memory. A larger one, and any with a `path`, is a file: under
    a temporary name until `result` is called, and gone if the block ends with an error.

    Args:
        rows: Length of the first axis.
        limit: Bytes that may stand in memory.
        path: An `.npy` file to write to, whatever the size; None: a temporary folder when a file
            is needed, removed with the array.

    Raises:
        ValueError: If `path` does not end in `.npy`.

    >>> with ArrayStore(rows=2, limit=1000) as store:
    ...     store.put(slice(0, 2), np.ones((2, 3), np.float32))
    ...     store.result().shape
    (2, 3)
    """

    def __init__(self, rows: int, limit: int, path: Path | None = None) -> None:
        if path is not None and Path(path).suffix != ".npy":
            raise ValueError(f"expected a path that ends in .npy, got {path}")
        self._rows, self._limit = rows, limit
        self._path = None if path is None else Path(path)
        self._partial: Path | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._array: NDArray[np.float32] | None = None

    def __enter__(self) -> ArrayStore:
        return self

    def __exit__(self, *_error: object) -> None:
        self._array = None
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)
        if self._folder is not None:
            self._folder.cleanup()

    def put(self, where: slice, values: NDArray[np.float32]) -> None:
        """Keep the rows of one batch; the first one tells the shape of all.

        Raises:
            OSError: If a file is needed and the disk lacks room for it.
        """
        if self._array is None:
            self._array = self._allocate((self._rows, *values.shape[1:]))
        self._array[where] = values

    def result(self) -> NDArray[np.float32]:
        """Return the filled array; a file gets its name now and is mapped copy-on-write."""
        array, self._array = self._array, None
        if array is None:
            raise RuntimeError("expected rows before result(), got none")
        if self._path is None or self._partial is None:
            return array
        if isinstance(array, np.memmap):
            array.flush()
        del array  # Windows renames no file that is mapped.
        self._partial.replace(self._path)
        complete: NDArray[np.float32] = np.load(self._path, mmap_mode="c")
        if self._folder is not None:
            weakref.finalize(complete, self._folder.cleanup)
            self._folder = None
        return complete

    def _allocate(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        needed = int(np.prod(shape)) * np.dtype(np.float32).itemsize
        if self._path is None and needed <= self._limit:
            return np.empty(shape, np.float32)
        if self._path is None:
            # Windows keeps a mapped file until the map is gone, which may be after this.
            self._folder = tempfile.TemporaryDirectory(
                prefix="tlcourse-features-", ignore_cleanup_errors=True
            )
            self._path = Path(self._folder.name) / "features.npy"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(self._path.parent, needed)
        self._partial = self._path.with_suffix(f".{uuid.uuid4().hex}.partial")
        return np.lib.format.open_memmap(self._partial, mode="w+", dtype=np.float32, shape=shape)


def forget_pages(array: object) -> None:
    """Give back the memory that the pages of a mapped file take, if `array` is one.

    A process keeps every page that it has read until the system is short of memory. After this it
    keeps none; what is asked for again comes from the system's cache of files. Nothing is lost:
    private maps (mode "c"), which may hold changes, are left alone, as are arrays in memory.

    >>> forget_pages(np.zeros(3))
    """
    pages = getattr(array, "_mmap", None)
    shared = getattr(array, "mode", "c") != "c"
    if isinstance(pages, mmap.mmap) and shared and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"features need {needed / 2**30:.1f} GB in {folder}, which has {free / 2**30:.1f} GB "
            "free: choose another path, fewer images, a smaller size or a later stage"
        )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a hidden name beside `path`; what is written there gets its name when the block ends.

    It is flushed to the disk first. After an error, or a kill, `path` is as it was.

    Args:
        path: The file; its folder is created.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with written_whole(Path(folder) / "note.txt") as partial:
    ...         _ = partial.write_text("whole")
    ...     [p.name for p in Path(folder).iterdir()]
    ['note.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays last: savers of arrays and tables add or read one.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Unusable(ValueError):
    """Input that cannot be used.

    Args:
        where: The file, folder or part that is at fault.
        expected: What should be there.
        found: What is there.
        remedy: What to do, if that is not plain.

    >>> print(Unusable("scans/7.png", "an image", "a text", "Leave it out"))
    scans/7.png: expected an image; found a text. Leave it out
    """

    def __init__(self, where: object, expected: str, found: str, remedy: str = "") -> None:
        super().__init__(where, expected, found, remedy)
        self.where, self.expected, self.found, self.remedy = where, expected, found, remedy

    def __str__(self) -> str:
        remedy = f". {self.remedy}" if self.remedy else ""
        return f"{self.where}: expected {self.expected}; found {self.found}{remedy}"
