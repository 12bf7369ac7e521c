"""Log of server responses, which survives the end of the process that sent the requests."""

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

from instil.files.locks import FileLock

LINE = re.compile(
    rb'\{"key":"([0-9a-f]{64})","tokens":(-1|\d{1,18}),'
    rb'(?:"sum":"([0-9a-f]{16})",)?"answer":(.*)\}\n',
    re.DOTALL,
)
"""Key, tokens, checksum and answer; lines of earlier versions have no checksum."""
NOTE = -1
"""Number of tokens of a note, an entry that no request was sent for."""


def question_key(address: str, body: Mapping[str, Any]) -> str:
    """Return the hash of a question.

    Args:
        address: endpoint of the request.
        body: content of the request.
    """
    return hashlib.sha256(json.dumps([address, body], sort_keys=True).encode()).hexdigest()


class Log:
    """Responses by the key of their question, with the number of requests and tokens.

    A line is completely on disk before its response is used. Half a line of a killed process is
    removed. Several processes may share a file, and each one reads the lines of the others. A line
    has a checksum; a damaged line is ignored with a warning, and its question is sent again.

    Args:
        path: file of JSON lines; None: in memory.

    Attributes:
        requests: number of requests, without notes.
        tokens: number of tokens of these requests.

    Raises:
        ValueError: if the file is not a log.
    """

    def __init__(self, path: Path | None):
        self.path = path
        self.requests = 0
        self.tokens = 0
        self._offsets: dict[str, int] = {}
        self._memory: dict[str, Any] = {}
        self._end = 0
        self._num_lines = 0
        self._lock = threading.RLock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def get(self, key: str) -> Any:
        """Return the response to a question, or None.

        Args:
            key: ``question_key`` of the question.
        """
        with self._lock:
            if self.path is None:
                return self._memory.get(key)
            if key not in self._offsets:
                self.refresh()
            if key not in self._offsets:
                return None
            with open(self.path, "rb") as file:
                file.seek(self._offsets[key])
                return json.loads(file.readline())["answer"]

    def put(self, key: str, answer: Any, tokens: int, replace: bool = False) -> None:
        """Add a response.

        Args:
            key: ``question_key`` of the question.
            answer: response, as JSON values.
            tokens: number of tokens that the request used, or ``NOTE``.
            replace: whether it replaces an earlier response to the question.

        Raises:
            ValueError: for a negative number of tokens.
        """
        if tokens < 0 and tokens != NOTE:
            raise ValueError(f"tokens: Expected a number of at least 0, got {tokens}")
        with self._lock:
            if self.path is None:
                self._memory[key] = answer
                self._add(key, 0, tokens)
                return
            with self._open_locked() as file:
                self._read_new_lines(file)
                if key in self._offsets and not replace:
                    return
                # All writers hold the lock, so a rest after the last line is half a line of a
                # process that was killed.
                file.truncate(self._end)
                file.seek(self._end)
                file.write(_line(key, tokens, json.dumps(answer, separators=(",", ":")).encode()))
                file.flush()
                os.fsync(file.fileno())
                self._read_new_lines(file)

    def refresh(self) -> None:
        """Read the lines that other processes have added."""
        with self._lock:
            if self.path is None or not self.path.exists():
                return
            if self.path.stat().st_size != self._end:
                with open(self.path, "rb") as file:
                    self._read_new_lines(file)

    @contextlib.contextmanager
    def _open_locked(self) -> Iterator[Any]:
        """Open the file for this process only."""
        assert self.path is not None
        with (
            FileLock(self.path),
            open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file,
        ):
            yield file

    def _read_new_lines(self, file: Any) -> None:
        file.seek(self._end)
        for line in file:
            if not line.endswith(b"\n"):
                break
            match = LINE.fullmatch(line)
            self._num_lines += 1
            if match is None and self._num_lines == 1:
                self._num_lines = 0
                raise ValueError(
                    f"log: line 1 of {self.path} is not a server response: {line[:40]!r}. "
                    "Set another file"
                )
            if match is not None and match[3] in (None, _checksum(match[1], match[2], match[4])):
                self._add(match[1].decode(), self._end, int(match[2]))
            else:
                warnings.warn(
                    f"log: line {self._num_lines} of {self.path} is damaged; its question is sent "
                    "again",
                    stacklevel=2,
                )
            self._end += len(line)

    def _add(self, key: str, offset: int, tokens: int) -> None:
        self._offsets[key] = offset
        if tokens != NOTE:
            self.requests += 1
            self.tokens += tokens


def _line(key: str, tokens: int, answer: bytes) -> bytes:
    """Return a line of the file, with the checksum of its other entries."""
    count = str(tokens).encode()
    return b'{"key":"%b","tokens":%b,"sum":"%b","answer":%b}\n' % (
        key.encode(),
        count,
        _checksum(key.encode(), count, answer),
        answer,
    )


def _checksum(key: bytes, tokens: bytes, answer: bytes) -> bytes:
    return hashlib.sha256(b" ".join((key, tokens, answer))).hexdigest()[:16].encode()
