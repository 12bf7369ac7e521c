"""What may be asked of a server before somebody has to say that it may be more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from instil.remote.log import Log


class Spent(ValueError):
    """The next question could exceed the budget."""


class Budget:
    """At most so many ``requests`` and ``tokens`` (None: any number), of which the answers in ``log`` are spent, whoever asked for them.

    A question is let through only where its largest answer still fits beside those under way; until they are back it waits.
    """

    def __init__(self, log: Log, requests: int | None = None, tokens: int | None = None):
        self.log, self.requests, self.tokens = log, requests, tokens
        self._under_way: list[int] = []
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def spending(self, most: int) -> Iterator[None]:
        """Room for one request of at most so many tokens. Raises Spent where there is none."""
        with self._changed:
            while reason := self._exceeded(most):
                if not self._under_way:
                    raise Spent(reason)
                self._changed.wait()
            self._under_way.append(most)
        try:
            yield
        finally:
            with self._changed:
                self._under_way.remove(most)
                self._changed.notify_all()

    def _exceeded(self, most: int) -> str:
        self.log.refresh()
        kept = (
            f"what was answered is kept in {self.log.path}"
            if self.log.path
            else "give a log to keep what was answered"
        )
        more = f"allow more and start again: {kept}"
        if (
            self.requests is not None
            and self.log.requests + len(self._under_way) + 1 > self.requests
        ):
            return (
                f"request_budget: {self.log.requests} of {self.requests} requests are spent; {more}"
            )
        if self.tokens is not None and self.log.tokens + sum(self._under_way) + most > self.tokens:
            return f"token_budget: {self.log.tokens} of {self.tokens} tokens are spent, and the next request may take {most}; {more}"
        return ""
