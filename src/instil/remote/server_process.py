"""Server that is started as a process of its own, again after each change of its weights."""

from __future__ import annotations

import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from typing import IO

from instil.remote.connection import Connection, RequestRefusedError, ServerUnreachableError

WAIT = 0.05
"""Seconds between two checks whether a server responds."""
GRACE = 10.0
"""Seconds that a server has to end before it is killed."""


class ServerProcess:
    """Process of a server.

    Args:
        command: program with its arguments.
        connection: connection to the server; its ``timeout`` also limits the start.
    """

    def __init__(self, command: Sequence[str], connection: Connection):
        self.command = list(command)
        self.connection = connection
        self._finalizer: weakref.finalize[..., ServerProcess] | None = None

    def start(self) -> None:
        """Start the process and wait until the server responds.

        Raises:
            ValueError: if the program cannot be started or ends, or another server responds
                already.
            ServerUnreachableError: if it does not respond in time.
        """
        if self._responds():
            # Its responses, with other weights, would be taken for those of the new process.
            raise ValueError(
                f"command: another server responds at {self.connection.root} already. Expected a "
                "free address. End that server or choose another port"
            )
        with tempfile.TemporaryFile() as log:
            try:
                process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)
            except OSError as error:
                raise ValueError(
                    f"command: '{self.command[0]}' cannot be started: {error}"
                ) from error
            self._finalizer = weakref.finalize(self, _end, process)
            self._wait(process, log)

    def _wait(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        """Wait until the server responds."""
        deadline = time.monotonic() + self.connection.timeout
        while not self._responds():
            if process.poll() is not None:
                raise ValueError(f"command: the server has ended: {_last_line(log)}")
            if time.monotonic() > deadline:
                self.stop()
                raise ServerUnreachableError(
                    f"command: no response from {self.connection.root}/health within "
                    f"{self.connection.timeout:g} s"
                )
            time.sleep(WAIT)

    def _responds(self) -> bool:
        try:
            self.connection.get(f"{self.connection.root}/health")
        except (ServerUnreachableError, RequestRefusedError):
            return False
        return True

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._finalizer is not None:
            self._finalizer()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
