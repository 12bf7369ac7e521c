"""What several users of one log agree on: who asks which question, and what is under way."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

try:
    import fcntl
except ImportError:  # Windows has no such locks; there one process at a time may use a log
    fcntl = None  # type: ignore[assignment]

POLL_INTERVAL = 0.05  # seconds between two looks at what other processes do
# Layout of the lock file. A byte is locked by the process that owns it, and the operating system
# unlocks it when the process ends, however it ends.
BUDGET_BYTE = 0
MAX_SLOTS = 1000  # processes; slot i is owned by locking byte i
SLOTS_START, SLOT_BYTES = 4096, 64  # where slot i says what its process has under way
QUESTIONS_START = 2**40  # a byte for each question


class WaitStoppedError(RuntimeError):
    """The wait for another process was given up, because the caller is to end."""


class Claims:
    """Claims on questions and reservations of a budget, for all users of one log.

    Within a process they are shared by ``Claims.of``. Other processes see them through a file beside
    the log, ``<log>.lock``. A process that is killed leaves no claim behind.
    """

    _of_path: ClassVar[dict[Path, Claims]] = {}

    def __init__(self, path: Path | None):
        self.path = path
        self._changed = threading.Condition()
        self._keys: set[str] = set()
        self._under_way: list[int] = []
        self._process, self._descriptor, self._slot = 0, -1, 0

    @classmethod
    def of(cls, log: Path | None) -> Claims:
        """The claims on a log; those of a log in memory belong to one user.

        Args:
            log: path of the log, or None.
        """
        if log is None or fcntl is None:
            return cls(None)
        path = log.with_name(f"{log.name}.lock").absolute()
        return cls._of_path.setdefault(path, cls(path))

    @contextlib.contextmanager
    def question(self, key: str, stopped: threading.Event) -> Iterator[None]:
        """Wait until nobody else asks this question, and keep others from asking it.

        Args:
            key: hash of the question, in hexadecimal digits.
            stopped: ends the wait.

        Raises:
            Stopped: if ``stopped`` was set.
        """
        with self._changed:
            while key in self._keys:
                self._wait(stopped)
            self._keys.add(key)
        try:
            byte = QUESTIONS_START + int(key[:15], 16)
            while not self._lock(byte):
                if stopped.wait(POLL_INTERVAL):
                    raise WaitStoppedError("the wait for another process's answer was stopped")
            try:
                yield
            finally:
                self._unlock(byte)
        finally:
            with self._changed:
                self._keys.remove(key)
                self._changed.notify_all()

    def reserve(
        self, tokens: int, exceeded: Callable[[int, int], str], stopped: threading.Event
    ) -> str:
        """Wait until a request fits beside those that are under way, in whatever process.

        Args:
            tokens: the most tokens that the request can take.
            exceeded: says why it does not fit beside so many requests and tokens, or nothing.
            stopped: ends the wait.

        Returns:
            Why the request cannot fit, also when nothing else is under way; else nothing, and
            ``release`` must follow.

        Raises:
            Stopped: if ``stopped`` was set.
        """
        with self._changed:
            while True:
                with self._budget_lock():
                    requests, others = self._of_others()
                    requests += len(self._under_way)
                    reason = exceeded(requests, others + sum(self._under_way))
                    if not reason:
                        self._under_way.append(tokens)
                        self._announce()
                        return ""
                if not requests:
                    return reason
                self._wait(stopped)

    def release(self, tokens: int) -> None:
        """End a reservation; what the request took is in the log by now.

        Args:
            tokens: what ``reserve`` was given.
        """
        with self._changed:
            self._under_way.remove(tokens)
            with self._budget_lock():
                self._announce()
            self._changed.notify_all()

    def _wait(self, stopped: threading.Event) -> None:
        self._changed.wait(POLL_INTERVAL)
        if stopped.is_set():
            raise WaitStoppedError("the wait for another request was stopped")

    def _file(self) -> int:
        """The lock file, opened once a process: closing it anywhere would unlock its bytes."""
        assert self.path is not None
        if self._process != os.getpid():
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            self._process, self._slot = os.getpid(), 0
        return self._descriptor

    def _lock(self, byte: int, wait: bool = False) -> bool:
        if self.path is None:
            return True
        try:
            fcntl.lockf(self._file(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)
        except BlockingIOError:
            return False
        except PermissionError:  # how some systems say that it is locked
            return False
        return True

    def _unlock(self, byte: int) -> None:
        if self.path is not None:
            fcntl.lockf(self._file(), fcntl.LOCK_UN, 1, byte)

    @contextlib.contextmanager
    def _budget_lock(self) -> Iterator[None]:
        self._lock(BUDGET_BYTE, wait=True)
        try:
            yield
        finally:
            self._unlock(BUDGET_BYTE)

    def _announce(self) -> None:
        """Write what this process has under way where the others read it."""
        if self.path is None:
            return
        file = self._file()
        if not self._slot:
            self._slot = next(slot for slot in range(1, MAX_SLOTS + 1) if self._lock(slot))
        entry = f"{len(self._under_way)} {sum(self._under_way)}".ljust(SLOT_BYTES).encode()
        os.pwrite(file, entry, SLOTS_START + self._slot * SLOT_BYTES)

    def _of_others(self) -> tuple[int, int]:
        """Requests and tokens that other processes have under way."""
        if self.path is None:
            return 0, 0
        file = self._file()
        content = os.pread(file, MAX_SLOTS * SLOT_BYTES, SLOTS_START + SLOT_BYTES)
        requests = tokens = 0
        for start in range(0, len(content), SLOT_BYTES):
            slot = start // SLOT_BYTES + 1
            numbers = content[start : start + SLOT_BYTES].split()
            if slot == self._slot or len(numbers) != 2 or not all(map(bytes.isdigit, numbers)):
                continue
            if int(numbers[0]) and self._lock(slot):
                self._unlock(slot)  # its process has ended without a word
            else:
                requests, tokens = requests + int(numbers[0]), tokens + int(numbers[1])
        return requests, tokens
