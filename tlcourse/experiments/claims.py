"""Let one process at a time work on a run, and free its runs however it ends."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout


class Claims:
    """Runs that this process works on, each a locked file in a folder that processes share.

    The operating system drops the locks of a process that is killed, so a claim never outlives
    its owner. The caller holds a lock on the folder during `take` and `drop`.

    Args:
        folder: Made with the first claim, removed with the last.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "claims"
    >>> mine, other = Claims(folder), Claims(folder)
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
        """Claim a run; False if another process, or this one, works on it."""
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
