"""What may be asked of a server before somebody has to say that it may be more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from instil.remote.claims import Claims
from instil.remote.log import Log


class BudgetExceededError(ValueError):
    """The next question could exceed the budget."""


class Budget:
    """At most so many ``requests`` and ``tokens`` (None: any number), of which the answers in ``log`` are spent, whoever asked for them.

    A question is let through only where its largest answer still fits beside those under way, in this process and in others that share the log;
    until they are back it waits, unless ``stopped`` is set.
    """

    def __init__(
        self,
        log: Log,
        requests: int | None = None,
        tokens: int | None = None,
        stopped: threading.Event | None = None,
    ):
        self.log, self.requests, self.tokens = log, requests, tokens
        self.claims = Claims.of(log.path)
        self.stopped = stopped or threading.Event()

    @contextlib.contextmanager
    def spending(self, most: int) -> Iterator[None]:
        """Room for one request of at most so many tokens. Raises Spent where there is none."""

        def exceeded(requests: int, tokens: int) -> str:
            return self._exceeded(most, requests, tokens)

        if reason := self.claims.reserve(most, exceeded, self.stopped):
            raise BudgetExceededError(reason)
        try:
            yield
        finally:
            self.claims.release(most)

    def _exceeded(self, most: int, requests: int, tokens: int) -> str:
        """Why one request more does not fit beside so many, or nothing."""
        self.log.refresh()
        kept = (
            f"what was answered is kept in {self.log.path}"
            if self.log.path
            else "give a log to keep what was answered"
        )
        more = f"allow more and start again: {kept}"
        if self.requests is not None and self.log.requests + requests + 1 > self.requests:
            return (
                f"request_budget: {self.log.requests} of {self.requests} requests are spent; {more}"
            )
        if self.tokens is not None and self.log.tokens + tokens + most > self.tokens:
            return f"token_budget: {self.log.tokens} of {self.tokens} tokens are spent, and the next request may take {most}; {more}"
        return ""
