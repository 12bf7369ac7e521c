"""Locks of files, held by one process at a time."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks: only one process at a time may use a file
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """Lock that the operating system releases when the process ends, however that happens.

    As a context manager it waits until the lock is free, and releases it at the end.

    Without ``fcntl`` (on Windows) the lock does nothing.

    Args:
        path: lock file; it is created and stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def try_acquire(self) -> bool:
        """Take the lock if no other process holds it; return whether that worked."""
        return self._acquire(wait=False)

    def acquire(self) -> None:
        """Wait until the lock is free, and take it."""
        self._acquire(wait=True)

    def _acquire(self, wait: bool) -> bool:
        if fcntl is None or self._descriptor is not None:
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


class ByteLocks:
    """Locks of single bytes of a file, each held by one process.

    The operating system releases them when the process ends. Threads of a process share them.

    Args:
        path: lock file; it is created and stays.
    """

    IS_SUPPORTED = fcntl is not None
    """Whether the operating system has such locks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = 0
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """Descriptor of the file, opened once in each process."""
        # A process that closes any descriptor of the file loses all of its locks on it.
        if not self.is_open:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self._process = os.getpid()
        return self._descriptor

    @property
    def is_open(self) -> bool:
        """Whether this process has opened the file; a fork has to open it again."""
        return self._process == os.getpid()

    def try_acquire(self, byte: int) -> bool:
        """Lock a byte if no other process holds it; return whether that worked."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        # Some systems have the second error for a byte that is locked.
        except (BlockingIOError, PermissionError):
            return False
        return True

    def acquire(self, byte: int) -> None:
        """Wait until a byte is free, and lock it."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, byte)

    def release(self, byte: int) -> None:
        """Release a byte."""
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, byte)
