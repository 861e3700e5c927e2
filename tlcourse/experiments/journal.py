"""Append rows to a file that several processes write, and say which of them holds a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

Record = dict[str, Any]
"""What one line holds."""


class Journal:
    r"""A file with one JSON object in each line.

    A line counts once its newline is there. A process that is killed while it writes leaves a
    line without one: readers pass over it, the next writer cuts it off. Writers must hold a lock
    of their own; readers need none.

    Args:
        path: The file; it need not exist.

    >>> import tempfile
    >>> journal = Journal(Path(tempfile.mkdtemp()) / "rows.jsonl")
    >>> journal.append({"seed": 0})
    >>> _ = journal.path.write_bytes(journal.path.read_bytes() + b'{"seed": 1, "au')
    >>> journal.append({"seed": 2})
    >>> journal.refresh()
    [{'seed': 0}, {'seed': 2}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: list[Record] = []
        self._offset = 0  # bytes of the lines that were read
        self._lines = 0

    def refresh(self) -> list[Record]:
        """Read the lines that others have added; return the records of all whole lines.

        Raises:
            ValueError: If a whole line is no JSON object (it is named), or lines that were there
                are gone.
        """
        content = self._read_on()
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._lines += 1
            if line.strip():
                self._records.append(self._parse(line))
        self._offset += len(whole)
        return self._records

    def repair(self) -> None:
        """Bring the end of the file in order; the caller holds the lock.

        A last line without newline is completed if it is a whole JSON object (it was edited by
        hand, or just the newline is missing), else cut off.
        """
        self.refresh()
        tail = self._read_on()
        if not tail:
            return
        descriptor = self._open()
        try:
            if _is_object(tail):
                _write(descriptor, b"\n")
            else:
                os.ftruncate(descriptor, self._offset)
        finally:
            os.close(descriptor)

    def append(self, record: Record) -> None:
        """Add one line and wait until the disk has it; the caller holds the lock.

        Raises:
            OSError: If the line cannot be written (a full disk); the file is as it was.
        """
        self.repair()
        descriptor = self._open()
        try:
            _write(descriptor, json.dumps(record).encode() + b"\n")
        finally:
            os.close(descriptor)
        self.refresh()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        return os.open(self.path, flags, 0o666)

    def _read_on(self) -> bytes:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._offset:
            raise ValueError(f"{self.path} was cut or removed while it was in use: start again")
        if size == self._offset:
            return b""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            return file.read()

    def _parse(self, line: bytes) -> Record:
        if _is_object(line):
            record: Record = json.loads(line)
            return record
        shown = line[:60].decode(errors="replace")
        raise ValueError(
            f"{self.path}, line {self._lines}: expected a JSON object, got {shown!r}: "
            "mend or remove that line"
        )


def _write(descriptor: int, data: bytes) -> None:
    """Write at the end, all or nothing."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, end)
        raise


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


class RunLocks:
    """Runs that this process works on, each a locked file in a folder that processes share.

    The operating system drops the locks of a process that is killed, so a lock never outlives
    its owner. The caller holds a lock on the folder during `take` and `drop`.

    Args:
        folder: Made with the first lock, removed with the last.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "locks"
    >>> mine, other = RunLocks(folder), RunLocks(folder)
    >>> mine.take("a1"), other.take("a1")
    (True, False)
    >>> mine.drop("a1")
    >>> other.take("a1")
    True
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, FileLock] = {}

    def take(self, key: str) -> bool:
        """Lock a run; False if another process, or this one, works on it."""
        if key in self._held:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        # Taken in one thread, dropped in another: the lock must not belong to a thread.
        lock = FileLock(self._folder / f"{key}.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._held[key] = lock
        return True

    def drop(self, key: str) -> None:
        """Give a run up, and tidy up behind it."""
        lock = self._held.pop(key, None)
        if lock is None:
            return
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def drop_all(self) -> None:
        """Give every run up, and remove what processes that were killed have left."""
        for key in {*self._held, *(path.stem for path in self._folder.glob("*.lock"))}:
            if key in self._held or self.take(key):
                self.drop(key)
