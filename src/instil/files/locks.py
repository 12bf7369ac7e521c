"""Locks of files, held by one process at a time."""

from __future__ import annotations

import os
from pathlib import Path


class FileLock:
    """Lock that the operating system releases when the process ends, however that happens.

    Without ``fcntl`` (on Windows) the lock does nothing.

    Args:
        path: lock file; it is created and stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if no other process holds it; return whether that worked."""
        return self._acquire(wait=False)

    def acquire(self) -> None:
        """Wait until the lock is free, and take it."""
        self._acquire(wait=True)

    def _acquire(self, wait: bool) -> bool:
        try:
            import fcntl
        except ImportError:
            return True
        if self._descriptor is not None:
            return True
        # A symbolic link in a shared folder must not lead to another file.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, flags, 0o666)
        except PermissionError:
            # Nobody who may not write here needs protection against another writer.
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock if this process holds it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
