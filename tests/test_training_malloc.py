"""The allocator is told once, however deep the blocks nest, and told back at the end."""

import pytest

from tlcourse.training import malloc
from tlcourse.training.malloc import large_buffers_kept


@pytest.fixture
def told(monkeypatch):
    """A C library that writes down what it is told."""
    calls = []

    class Library:
        def mallopt(self, name, value):
            calls.append((name, value))

        def malloc_trim(self, pad):
            calls.append(("trim", pad))

    monkeypatch.setattr(malloc, "_glibc", Library)
    return calls


def test_blocks_within_blocks_tell_the_library_once(told):
    with large_buffers_kept(), large_buffers_kept():
        inside = list(told)
    assert inside == [
        (malloc.M_MMAP_THRESHOLD, 1 << 30),
        (malloc.M_TRIM_THRESHOLD, 2**31 - 1),
    ]
    assert told[2:] == [
        (malloc.M_MMAP_THRESHOLD, 32 << 20),
        (malloc.M_TRIM_THRESHOLD, 64 << 20),
        ("trim", 0),
    ]


def test_memory_goes_back_after_an_error_too(told):
    with pytest.raises(KeyboardInterrupt), large_buffers_kept():
        raise KeyboardInterrupt
    assert told[-1] == ("trim", 0)
    assert malloc._depth == 0


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(malloc, "_glibc", lambda: None)
    with large_buffers_kept():
        pass


def test_another_system_has_no_glibc(monkeypatch):
    monkeypatch.setattr(malloc.sys, "platform", "darwin")
    assert malloc._glibc.__wrapped__() is None
