"""Claims on questions and reservations of a budget, shared by all users of one log."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from instil.files.locks import ByteLocks

POLL_INTERVAL = 0.05  # seconds between two checks of other processes
# Layout of the lock file. A process locks its bytes, and the operating system unlocks them when
# the process ends, however it ends.
BUDGET_BYTE = 0
MAX_SLOTS = 1000  # processes; the owner of slot i locks byte i
SLOTS_START, SLOT_BYTES = 4096, 64  # slot i holds the reservations of its process
QUESTIONS_START = 2**40  # one byte for each question


class WaitStoppedError(RuntimeError):
    """The wait for another process was stopped because the caller is about to end."""


class Claims:
    """Claims on questions and reservations of a budget, for all users of one log.

    Threads of a process share the object of ``Claims.of``. Other processes see the claims through
    the file ``<log>.lock`` next to the log. A killed process leaves no claim behind.

    Args:
        path: lock file; None for a log in memory.
    """

    _of_path: ClassVar[dict[Path, Claims]] = {}

    def __init__(self, path: Path | None):
        self.path = path
        self._changed = threading.Condition()
        self._keys: set[str] = set()
        self._reservations: list[int] = []
        self._locks = None if path is None else ByteLocks(path)
        self._slot = 0

    @classmethod
    def of(cls, log: Path | None) -> Claims:
        """Return the claims on a log.

        Args:
            log: path of the log; None for a log in memory, whose claims are not shared.
        """
        if log is None or not ByteLocks.IS_SUPPORTED:
            return cls(None)
        path = log.with_name(f"{log.name}.lock").absolute()
        return cls._of_path.setdefault(path, cls(path))

    @contextlib.contextmanager
    def question(self, key: str, stopped: threading.Event) -> Iterator[None]:
        """Claim a question for the duration of a ``with`` block, after all other claims on it.

        Args:
            key: hash of the question, in hexadecimal digits.
            stopped: event that ends the wait.

        Raises:
            WaitStoppedError: if ``stopped`` was set.
        """
        with self._changed:
            while key in self._keys:
                self._wait(stopped)
            self._keys.add(key)
        try:
            byte = QUESTIONS_START + int(key[:15], 16)
            while not self._lock(byte):
                if stopped.wait(POLL_INTERVAL):
                    raise WaitStoppedError("the wait for a response of another process was stopped")
            try:
                yield
            finally:
                self._unlock(byte)
        finally:
            with self._changed:
                self._keys.remove(key)
                self._changed.notify_all()

    def reserve(
        self, tokens: int, reason_against: Callable[[int, int], str], stopped: threading.Event
    ) -> str:
        """Wait until a request fits next to all requests in progress, in any process.

        Args:
            tokens: maximum number of tokens of the request.
            reason_against: ``(requests, tokens)`` in progress -> why the request does not fit, or
                an empty string.
            stopped: event that ends the wait.

        Returns:
            An empty string if the request fits; ``release`` must follow. Otherwise the reason why
            it does not fit even if no other request is in progress.

        Raises:
            WaitStoppedError: if ``stopped`` was set.
        """
        with self._changed:
            while True:
                with self._budget_lock():
                    requests, tokens_of_others = self._reservations_of_others()
                    requests += len(self._reservations)
                    reason = reason_against(requests, tokens_of_others + sum(self._reservations))
                    if not reason:
                        self._reservations.append(tokens)
                        self._publish()
                        return ""
                if not requests:
                    return reason
                self._wait(stopped)

    def release(self, tokens: int) -> None:
        """End a reservation. Add the response to the log first.

        Args:
            tokens: number of tokens of the reservation.
        """
        with self._changed:
            self._reservations.remove(tokens)
            with self._budget_lock():
                self._publish()
            self._changed.notify_all()

    def _wait(self, stopped: threading.Event) -> None:
        self._changed.wait(POLL_INTERVAL)
        if stopped.is_set():
            raise WaitStoppedError("the wait for another request was stopped")

    def _file(self, locks: ByteLocks) -> int:
        """Return the descriptor of the lock file. A fork needs a slot of its own."""
        if not locks.is_open:
            self._slot = 0
        return locks.descriptor

    def _lock(self, byte: int) -> bool:
        if self._locks is None:
            return True
        self._file(self._locks)
        return self._locks.try_acquire(byte)

    def _unlock(self, byte: int) -> None:
        if self._locks is not None:
            self._locks.release(byte)

    @contextlib.contextmanager
    def _budget_lock(self) -> Iterator[None]:
        if self._locks is not None:
            self._file(self._locks)
            self._locks.acquire(BUDGET_BYTE)
        try:
            yield
        finally:
            self._unlock(BUDGET_BYTE)

    def _publish(self) -> None:
        """Write the reservations of this process to its slot, for other processes."""
        if self._locks is None:
            return
        file = self._file(self._locks)
        if not self._slot:
            self._slot = next(slot for slot in range(1, MAX_SLOTS + 1) if self._lock(slot))
        entry = f"{len(self._reservations)} {sum(self._reservations)}".ljust(SLOT_BYTES).encode()
        os.pwrite(file, entry, SLOTS_START + self._slot * SLOT_BYTES)

    def _reservations_of_others(self) -> tuple[int, int]:
        """Return the requests and tokens that other processes have reserved."""
        if self._locks is None:
            return 0, 0
        file = self._file(self._locks)
        content = os.pread(file, MAX_SLOTS * SLOT_BYTES, SLOTS_START + SLOT_BYTES)
        requests = tokens = 0
        for start in range(0, len(content), SLOT_BYTES):
            slot = start // SLOT_BYTES + 1
            fields = content[start : start + SLOT_BYTES].split()
            if slot == self._slot or len(fields) != 2 or not all(map(bytes.isdigit, fields)):
                continue
            if int(fields[0]) and self._lock(slot):
                # The lock was free: the process ended without a release.
                self._unlock(slot)
            else:
                requests += int(fields[0])
                tokens += int(fields[1])
        return requests, tokens
