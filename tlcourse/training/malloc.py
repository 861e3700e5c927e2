"""Let the C library keep large buffers between training steps instead of fetching them anew.

The activations of a batch are large, and come and go with every step. glibc takes such sizes
straight from the operating system and gives them back at once, and the kernel must clear each page
again. torch keeps a pool of its own on a GPU, not on the CPU.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

# <malloc.h> of glibc
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

KEPT = 1 << 30
"""Bytes up to which a buffer is kept: more than any activation of a batch in this course."""

OWN_LIMIT = 32 << 20
"""Where glibc's own adjustment of the threshold ends, in bytes."""
_depth = 0


@contextmanager
def large_buffers_kept() -> Iterator[None]:
    """Keep freed memory for the next buffer while the block runs, then give it back.

    Changes the process's allocator, not any result. Does nothing where the C library is not glibc.

    >>> with large_buffers_kept():
    ...     pass
    """
    global _depth
    _depth += 1
    try:
        if _depth == 1:
            _set(KEPT, trim=2**31 - 1)
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            # What glibc arrives at by itself after the first large buffer was freed.
            _set(OWN_LIMIT, trim=2 * OWN_LIMIT)
            _trim()


def _set(limit: int, *, trim: int) -> None:
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_THRESHOLD, limit)
        library.mallopt(M_TRIM_THRESHOLD, trim)


def _trim() -> None:
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    """Return the C library if it is glibc, else None."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)
