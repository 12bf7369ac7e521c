"""Answers that were paid for, a line each, kept whatever happens to the process that asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such locks; there one process at a time may write
    fcntl = None  # type: ignore[assignment]

LINE = re.compile(
    rb'\{"key":"([0-9a-f]{64})","tokens":(-1|\d{1,18}),(?:"sum":"([0-9a-f]{16})",)?"answer":(.*)\}\n',
    re.DOTALL,
)


NOTE = -1
"""The tokens of what nobody was asked for."""


def question_key(address: str, body: Mapping[str, Any]) -> str:
    """The name of a question: the hash of where and what is asked."""
    return hashlib.sha256(json.dumps([address, body], sort_keys=True).encode()).hexdigest()


class Log:
    """Answers by their question's key, in the JSON lines of a file, or with ``path`` None in memory; ``requests`` and ``tokens`` are what they took.
    A note is kept like an answer, and counts for nothing.

    A line is on the disk, whole, before its answer is used; half a line that a killed process left is taken away. Several processes may share a
    file: each reads what others have added. A line carries a checksum; one that is damaged is left out with a warning, and its question is asked
    again. Raises ValueError for a file that is no such log.
    """

    def __init__(self, path: Path | None):
        self.path, self.requests, self.tokens = path, 0, 0
        self._places: dict[str, int] = {}
        self._memory: dict[str, Any] = {}
        self._read, self._lines, self._lock = 0, 0, threading.RLock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def get(self, key: str) -> Any:
        """The answer, or None."""
        with self._lock:
            if self.path is None:
                return self._memory.get(key)
            if key not in self._places:
                self.refresh()
            if key not in self._places:
                return None
            with open(self.path, "rb") as file:
                file.seek(self._places[key])
                return json.loads(file.readline())["answer"]

    def put(self, key: str, answer: Any, tokens: int, replace: bool = False) -> None:
        """Keep an answer that took so many tokens; one that is there already stays, unless ``replace``."""
        if tokens < 0 and tokens != NOTE:
            raise ValueError(f"tokens: Expected a number of at least 0, got {tokens}")
        with self._lock:
            if self.path is None:
                self._memory[key] = answer
                self._count(key, 0, tokens)
                return
            with self._opened() as file:
                self._take(file)
                if key in self._places and not replace:
                    return
                file.truncate(
                    self._read
                )  # all writers hold the lock: what is left over is half a line of one that was killed
                file.seek(self._read)
                file.write(_line(key, tokens, json.dumps(answer, separators=(",", ":")).encode()))
                file.flush()
                os.fsync(file.fileno())
                self._take(file)

    def refresh(self) -> None:
        """Read what other processes have added."""
        with self._lock:
            if (
                self.path is not None
                and self.path.exists()
                and self.path.stat().st_size != self._read
            ):
                with open(self.path, "rb") as file:
                    self._take(file)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file, for this process alone."""
        assert self.path is not None
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _take(self, file: Any) -> None:
        """Read the lines from the last known end on."""
        file.seek(self._read)
        for line in file:
            if not line.endswith(b"\n"):
                break
            found = LINE.fullmatch(line)
            self._lines += 1
            if found is None and self._lines == 1:
                self._lines = 0
                raise ValueError(
                    f"log: line 1 of {self.path} is no answer of a server: {line[:40]!r}; take another file"
                )
            if found is not None and found[3] in (None, _sum(found[1], found[2], found[4])):
                self._count(found[1].decode(), self._read, int(found[2]))
            else:
                warnings.warn(
                    f"log: line {self._lines} of {self.path} is damaged; its question is asked again",
                    stacklevel=2,
                )
            self._read += len(line)

    def _count(self, key: str, place: int, tokens: int) -> None:
        self._places[key] = place
        if tokens != NOTE:
            self.requests, self.tokens = self.requests + 1, self.tokens + tokens


def _line(key: str, tokens: int, answer: bytes) -> bytes:
    """A line of the file, with a checksum of its other entries."""
    number = str(tokens).encode()
    return b'{"key":"%b","tokens":%b,"sum":"%b","answer":%b}\n' % (
        key.encode(),
        number,
        _sum(key.encode(), number, answer),
        answer,
    )


def _sum(key: bytes, tokens: bytes, answer: bytes) -> bytes:
    return hashlib.sha256(b" ".join((key, tokens, answer))).hexdigest()[:16].encode()
