"""Keep a file of JSON lines to which lines are only added, each whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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
